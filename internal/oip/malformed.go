// Package oip reads requests and writes responses of the Open Inference
// Protocol, the same way at the controller that a request enters by and at the
// worker that runs it.
//
// A request is checked in two steps: [Malformed] needs no model, [Check] needs
// the model's signature. [Inputs] then gives the tensors. All of them are safe
// on any request: what they allocate is bounded by what was sent, never by
// what a shape claims.
package oip

import (
	"fmt"
	"math"
	"strings"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// maxMessageBytes bounds an error's text, since names and shapes in it come
// from the sender and the text travels in headers.
const maxMessageBytes = 1024

// InvalidError is a request that its sender must change.
type InvalidError struct{ Message string }

// Error says what is wrong, with which value, and what is expected.
func (e *InvalidError) Error() string { return e.Message }

// Unwrap gives the error its reason, errs.Invalid.
func (e *InvalidError) Unwrap() error { return errs.New(errs.Invalid, "%s", e.Message) }

func invalid(format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if len(message) > maxMessageBytes {
		message = strings.ToValidUTF8(message[:maxMessageBytes], "") + "…"
	}
	return &InvalidError{Message: message}
}

// Malformed finds what is wrong with a request whatever the model: a shape that
// is negative or too large, an unknown datatype, data that is missing, surplus,
// given twice or not as long as its shape says, two inputs of one name, and
// parameters that mean nothing here. The error is an *InvalidError.
func Malformed(req *inferencepb.ModelInferRequest) error {
	if err := malformedParameters(req); err != nil {
		return err
	}
	if raw := len(req.RawInputContents); raw > 0 && raw != len(req.Inputs) {
		return invalid("raw_input_contents has %d entries, but the request has %d inputs; "+
			"either every input has one, or none", raw, len(req.Inputs))
	}
	seen := map[string]bool{}
	for i, in := range req.Inputs {
		if seen[in.Name] {
			return invalid("input %q is given twice", in.Name)
		}
		seen[in.Name] = true
		if err := malformedInput(req, i); err != nil {
			return err
		}
	}
	return nil
}

// malformedInput checks input i: its datatype, its shape, and that its data is
// exactly what they ask for.
func malformedInput(req *inferencepb.ModelInferRequest, i int) error {
	in := req.Inputs[i]
	t := tensor.Type(in.Datatype)
	if !t.Known() {
		return invalid("input %q has the unknown datatype %q; the protocol has BOOL, UINT8, UINT16, UINT32, UINT64, "+
			"INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64 and BYTES", in.Name, in.Datatype)
	}
	elements, err := tensor.Elements(in.Shape)
	if err != nil {
		return invalid("input %q is impossible: %v", in.Name, err)
	}
	if len(req.RawInputContents) == 0 {
		return malformedTyped(in, t, elements)
	}
	if i >= len(req.RawInputContents) {
		return invalid("input %q has no data: raw_input_contents has only %d entries", in.Name, len(req.RawInputContents))
	}
	if f, ok := filled(in.Contents, ""); ok {
		return invalid("input %q has its data twice, in raw_input_contents[%d] and in %s; leave one out", in.Name, i, f.name)
	}
	return malformedRaw(in, t, elements, i, req.RawInputContents[i])
}

// malformedRaw checks the raw data of input i.
func malformedRaw(in *input, t tensor.Type, elements int64, i int, raw []byte) error {
	if t == tensor.Bytes {
		return malformedFrames(in, elements, i, raw)
	}
	if need := elements * int64(t.Size()); need != int64(len(raw)) {
		return invalid("input %q needs %d bytes (shape %v of %s) but raw_input_contents[%d] has %d",
			in.Name, need, in.Shape, t, i, len(raw))
	}
	if t == tensor.Bool {
		for at, b := range raw {
			if b > 1 {
				return invalid("input %q has the value %d at element %d, but a BOOL is 0 or 1", in.Name, b, at)
			}
		}
	}
	return nil
}

// malformedFrames checks the lengths in raw data of BYTES.
func malformedFrames(in *input, elements int64, i int, raw []byte) error {
	taken, rest := skipFrames(raw, elements)
	if taken < elements {
		return invalid("input %q needs %d elements (shape %v of BYTES) but raw_input_contents[%d] ends inside element %d; "+
			"each element is its length in 4 little-endian bytes, then its content", in.Name, elements, in.Shape, i, taken)
	}
	if len(rest) > 0 {
		return invalid("input %q needs %d elements (shape %v of BYTES) but raw_input_contents[%d] has %d bytes after them",
			in.Name, elements, in.Shape, i, len(rest))
	}
	return nil
}

// malformedTyped checks the typed contents of an input.
func malformedTyped(in *input, t tensor.Type, elements int64) error {
	want := contentsField(t)
	if other, ok := filled(in.Contents, want); ok {
		if want == "" {
			return invalid("input %q has its data in %s, but %s has no typed contents; use raw_input_contents", in.Name, other.name, t)
		}
		return invalid("input %q has data in %s, but %s goes into %s", in.Name, other.name, t, want)
	}
	count := 0
	for _, f := range fields(in.Contents) {
		if f.name == want {
			count = f.count
		}
	}
	if count == 0 && elements > 0 {
		return invalid("input %q has no data; give it in raw_input_contents", in.Name)
	}
	if int64(count) != elements {
		return invalid("input %q needs %d elements (shape %v of %s) but %s has %d", in.Name, elements, in.Shape, t, want, count)
	}
	return malformedValues(in, t)
}

// malformedValues finds a value that is outside of the range of its datatype,
// which the wider field of typed contents makes possible.
func malformedValues(in *input, t tensor.Type) error {
	signed, unsigned := in.Contents.GetIntContents(), in.Contents.GetUintContents()
	switch t {
	case tensor.Int8:
		return malformedRange(in, t, signed, math.MinInt8, math.MaxInt8)
	case tensor.Int16:
		return malformedRange(in, t, signed, math.MinInt16, math.MaxInt16)
	case tensor.Uint8:
		return malformedRange(in, t, unsigned, 0, math.MaxUint8)
	case tensor.Uint16:
		return malformedRange(in, t, unsigned, 0, math.MaxUint16)
	default:
		return nil
	}
}

func malformedRange[T int32 | uint32](in *input, t tensor.Type, values []T, low, high T) error {
	for i, v := range values {
		if v < low || v > high {
			return invalid("input %q has the value %d at element %d, but %s holds %d to %d", in.Name, v, i, t, low, high)
		}
	}
	return nil
}
