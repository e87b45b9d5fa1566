package oip

import (
	"encoding/binary"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

type (
	input    = inferencepb.ModelInferRequest_InferInputTensor
	contents = inferencepb.InferTensorContents
)

// Inputs returns the request's tensors in the signature's order. Typed contents
// become raw ones; raw ones and shapes are aliased, not copied, so the request
// must not change while the tensors are in use. Every tensor holds exactly the
// data that its shape and type ask for, checked or not; that they suit the
// model is for Check to say. The error is an *InvalidError.
func Inputs(req *inferencepb.ModelInferRequest, sig tensor.Signature) ([]tensor.Tensor, error) {
	tensors := make([]tensor.Tensor, 0, len(sig.Inputs))
	for _, spec := range sig.Inputs {
		i := indexOf(req.Inputs, spec.Name)
		if i < 0 {
			return nil, missing(spec.Name, sig)
		}
		if err := malformedInput(req, i); err != nil {
			return nil, err
		}
		in := req.Inputs[i]
		t := tensor.Tensor{Name: in.Name, Type: tensor.Type(in.Datatype), Shape: in.Shape}
		if len(req.RawInputContents) > 0 {
			t.Data = req.RawInputContents[i]
		} else {
			t.Data = encode(t.Type, in.Contents)
		}
		tensors = append(tensors, t)
	}
	return tensors, nil
}

// encode is the raw form of typed contents whose values fit t.
func encode(t tensor.Type, c *contents) []byte {
	switch t {
	case tensor.Bool:
		return little(c.GetBoolContents())
	case tensor.Int8:
		return little(narrow[int8](c.GetIntContents()))
	case tensor.Int16:
		return little(narrow[int16](c.GetIntContents()))
	case tensor.Int32:
		return little(c.GetIntContents())
	case tensor.Int64:
		return little(c.GetInt64Contents())
	case tensor.Uint8:
		return little(narrow[uint8](c.GetUintContents()))
	case tensor.Uint16:
		return little(narrow[uint16](c.GetUintContents()))
	case tensor.Uint32:
		return little(c.GetUintContents())
	case tensor.Uint64:
		return little(c.GetUint64Contents())
	case tensor.FP32:
		return little(c.GetFp32Contents())
	case tensor.FP64:
		return little(c.GetFp64Contents())
	case tensor.Bytes:
		return frame(c.GetBytesContents())
	default: // FP16 and BF16 have no typed contents.
		return nil
	}
}

type number interface {
	bool | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32 | float64
}

func little[T number](values []T) []byte {
	// Append fails only on types that have no fixed size, which number excludes.
	data, _ := binary.Append(make([]byte, 0, binary.Size(values)), binary.LittleEndian, values)
	return data
}

func narrow[To int8 | int16 | uint8 | uint16, From int32 | uint32](values []From) []To {
	narrowed := make([]To, len(values))
	for i, v := range values {
		narrowed[i] = To(v)
	}
	return narrowed
}

// contentsField names the field that typed contents of t are in, "" when there
// is none.
func contentsField(t tensor.Type) string {
	switch t {
	case tensor.Bool:
		return "bool_contents"
	case tensor.Int8, tensor.Int16, tensor.Int32:
		return "int_contents"
	case tensor.Int64:
		return "int64_contents"
	case tensor.Uint8, tensor.Uint16, tensor.Uint32:
		return "uint_contents"
	case tensor.Uint64:
		return "uint64_contents"
	case tensor.FP32:
		return "fp32_contents"
	case tensor.FP64:
		return "fp64_contents"
	case tensor.Bytes:
		return "bytes_contents"
	default:
		return ""
	}
}

// field is one of the fields of typed contents and how many values it has.
type field struct {
	name  string
	count int
}

func fields(c *contents) [8]field {
	return [...]field{
		{"bool_contents", len(c.GetBoolContents())},
		{"int_contents", len(c.GetIntContents())},
		{"int64_contents", len(c.GetInt64Contents())},
		{"uint_contents", len(c.GetUintContents())},
		{"uint64_contents", len(c.GetUint64Contents())},
		{"fp32_contents", len(c.GetFp32Contents())},
		{"fp64_contents", len(c.GetFp64Contents())},
		{"bytes_contents", len(c.GetBytesContents())},
	}
}

// filled finds a field other than except that has values.
func filled(c *contents, except string) (field, bool) {
	for _, f := range fields(c) {
		if f.count > 0 && f.name != except {
			return f, true
		}
	}
	return field{}, false
}
