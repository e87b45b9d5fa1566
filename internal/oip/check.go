package oip

import (
	"slices"
	"strconv"
	"strings"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// Shape is what a valid request amounts to.
type Shape struct {
	// Rows is the batch size, 1 for a model without a batch dimension.
	Rows int
	// Class is equal for requests that may share a batch: the dimensions of
	// all inputs without the batch, as in "image:28x28". It is "" when the model
	// leaves no dimension open but the batch.
	Class string
}

// Check checks a request that is not Malformed against a model's signature:
// the names, datatypes and shapes of its inputs, that they agree on the number
// of rows, from 1 to maxRows, and the names of the outputs that it asks for. A
// model without a batch dimension takes one request as one row, whatever
// maxRows. The error is an *InvalidError.
func Check(req *inferencepb.ModelInferRequest, sig tensor.Signature, maxRows int) (Shape, error) {
	if err := checkNames(req, sig); err != nil {
		return Shape{}, err
	}
	for _, spec := range sig.Inputs {
		if err := checkInput(req.Inputs[indexOf(req.Inputs, spec.Name)], spec); err != nil {
			return Shape{}, err
		}
	}
	rows, err := checkRows(req.Inputs, sig.Batched, maxRows)
	if err != nil {
		return Shape{}, err
	}
	return Shape{Rows: rows, Class: class(req, sig)}, nil
}

func checkNames(req *inferencepb.ModelInferRequest, sig tensor.Signature) error {
	for _, in := range req.Inputs {
		if !named(sig.Inputs, in.Name) {
			return invalid("unknown input %q; the model takes %s", in.Name, names(sig.Inputs))
		}
	}
	for _, spec := range sig.Inputs {
		if indexOf(req.Inputs, spec.Name) < 0 {
			return missing(spec.Name, sig)
		}
	}
	if len(req.Inputs) != len(sig.Inputs) {
		return invalid("the request has %d inputs, but the model takes %d: %s", len(req.Inputs), len(sig.Inputs), names(sig.Inputs))
	}
	for _, out := range req.Outputs {
		if !named(sig.Outputs, out.Name) {
			return invalid("there is no output %q; the model gives %s", out.Name, names(sig.Outputs))
		}
	}
	return nil
}

func checkInput(in *input, spec tensor.Spec) error {
	if in.Datatype != string(spec.Type) {
		return invalid("input %q is %s, but the model takes %s", in.Name, in.Datatype, spec.Type)
	}
	fits := slices.EqualFunc(in.Shape, spec.Shape, func(got, want int64) bool {
		return got >= 0 && (want == -1 || got == want)
	})
	if !fits {
		return invalid("input %q has shape %v, but the model takes %v", in.Name, in.Shape, spec.Shape)
	}
	return nil
}

func checkRows(inputs []*input, batched bool, maxRows int) (int, error) {
	if !batched || len(inputs) == 0 {
		return 1, nil
	}
	first := inputs[0]
	for _, in := range inputs {
		if len(in.Shape) == 0 {
			return 0, invalid("input %q has no dimensions, but the model is batched: the first dimension is the rows", in.Name)
		}
		if in.Shape[0] != first.Shape[0] {
			return 0, invalid("input %q has %d rows but input %q has %d; all inputs need the same first dimension",
				in.Name, in.Shape[0], first.Name, first.Shape[0])
		}
	}
	switch rows := first.Shape[0]; {
	case rows < 1:
		return 0, invalid("input %q has %d rows (shape %v); a request needs at least 1", first.Name, rows, first.Shape)
	case rows > int64(maxRows):
		return 0, invalid("%d rows are more than the %d that the model allows in one request; split it", rows, maxRows)
	default:
		return int(rows), nil
	}
}

// class is the Shape.Class of a request that suits sig.
func class(req *inferencepb.ModelInferRequest, sig tensor.Signature) string {
	batch := 0
	if sig.Batched {
		batch = 1
	}
	open := func(spec tensor.Spec) bool { return slices.Contains(spec.Shape[batch:], -1) }
	if !slices.ContainsFunc(sig.Inputs, open) {
		return ""
	}
	var b strings.Builder
	for i, spec := range sig.Inputs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(spec.Name)
		separator := byte(':')
		for _, d := range req.Inputs[indexOf(req.Inputs, spec.Name)].Shape[batch:] {
			b.WriteByte(separator)
			b.WriteString(strconv.FormatInt(d, 10))
			separator = 'x'
		}
	}
	return b.String()
}

func indexOf(inputs []*input, name string) int {
	return slices.IndexFunc(inputs, func(in *input) bool { return in.Name == name })
}

func named(specs []tensor.Spec, name string) bool {
	return slices.ContainsFunc(specs, func(s tensor.Spec) bool { return s.Name == name })
}

func missing(name string, sig tensor.Signature) error {
	return invalid("input %q is missing; the model takes %s", name, names(sig.Inputs))
}

// names lists the names of specs as a person reads them.
func names(specs []tensor.Spec) string {
	if len(specs) == 0 {
		return "none"
	}
	quoted := make([]string, len(specs))
	for i, s := range specs {
		quoted[i] = strconv.Quote(s.Name)
	}
	return strings.Join(quoted, ", ")
}
