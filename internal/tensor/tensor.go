// Package tensor describes the arrays that models take and give, as they are
// on the wire of the Open Inference Protocol: a datatype, a shape, and raw
// little-endian bytes in row-major order.
package tensor

import "fmt"

// Type is a datatype of the Open Inference Protocol.
type Type string

// The protocol's datatypes. BYTES elements have a length of their own: four
// little-endian bytes, then the content.
const (
	Bool   Type = "BOOL"
	Uint8  Type = "UINT8"
	Uint16 Type = "UINT16"
	Uint32 Type = "UINT32"
	Uint64 Type = "UINT64"
	Int8   Type = "INT8"
	Int16  Type = "INT16"
	Int32  Type = "INT32"
	Int64  Type = "INT64"
	FP16   Type = "FP16"
	BF16   Type = "BF16"
	FP32   Type = "FP32"
	FP64   Type = "FP64"
	Bytes  Type = "BYTES"
)

// Size is the length of one element in bytes, 0 for BYTES and unknown types.
func (t Type) Size() int {
	switch t {
	case Bool, Uint8, Int8:
		return 1
	case Uint16, Int16, FP16, BF16:
		return 2
	case Uint32, Int32, FP32:
		return 4
	case Uint64, Int64, FP64:
		return 8
	default:
		return 0
	}
}

// Known says whether t is one of the protocol's datatypes.
func (t Type) Known() bool { return t.Size() > 0 || t == Bytes }

// Spec is what a model declares about one tensor.
type Spec struct {
	Name string
	Type Type
	// Shape has -1 for a variable dimension, and includes the batch dimension
	// when the signature is batched.
	Shape []int64
}

// Signature is all that a model takes and gives, in order.
type Signature struct {
	Inputs, Outputs []Spec
	// Batched says that the first dimension of every tensor is the batch.
	Batched bool
}

// Tensor is one array.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int64
	// Data is row-major and little-endian.
	Data []byte
}

// Elements is the number of elements that shape holds. It fails on a negative
// dimension and when the product does not fit.
func Elements(shape []int64) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has the negative dimension %d", shape, d)
		}
		if d != 0 && n > maxElements/d {
			return 0, fmt.Errorf("shape %v has more than %d elements", shape, int64(maxElements))
		}
		n *= d
	}
	return n, nil
}

// maxElements keeps every product of a size and a count inside an int64.
const maxElements = 1 << 40
