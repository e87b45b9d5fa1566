package gomlx

import (
	"github.com/gomlx/gomlx/pkg/core/dtypes"

	"github.com/orrery-project/orrery/internal/tensor"
)

// typeOf translates the numbers of onnx.TensorProto.DataType. It is not ok for
// the types that an inference request can't carry or GoMLX can't compute.
func typeOf(onnxType int32) (t tensor.Type, ok bool) {
	switch onnxType {
	case 1:
		return tensor.FP32, true
	case 2:
		return tensor.Uint8, true
	case 3:
		return tensor.Int8, true
	case 4:
		return tensor.Uint16, true
	case 5:
		return tensor.Int16, true
	case 6:
		return tensor.Int32, true
	case 7:
		return tensor.Int64, true
	case 9:
		return tensor.Bool, true
	case 10:
		return tensor.FP16, true
	case 11:
		return tensor.FP64, true
	case 12:
		return tensor.Uint32, true
	case 13:
		return tensor.Uint64, true
	case 16:
		return tensor.BF16, true
	default:
		return "", false
	}
}

// dtypeOf translates the types that typeOf gives.
func dtypeOf(t tensor.Type) dtypes.DType {
	switch t {
	case tensor.FP32:
		return dtypes.Float32
	case tensor.Uint8:
		return dtypes.Uint8
	case tensor.Int8:
		return dtypes.Int8
	case tensor.Uint16:
		return dtypes.Uint16
	case tensor.Int16:
		return dtypes.Int16
	case tensor.Int32:
		return dtypes.Int32
	case tensor.Int64:
		return dtypes.Int64
	case tensor.Bool:
		return dtypes.Bool
	case tensor.FP16:
		return dtypes.Float16
	case tensor.FP64:
		return dtypes.Float64
	case tensor.Uint32:
		return dtypes.Uint32
	case tensor.Uint64:
		return dtypes.Uint64
	case tensor.BF16:
		return dtypes.BFloat16
	default:
		return dtypes.InvalidDType
	}
}
