package oip

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

type (
	request   = inferencepb.ModelInferRequest
	requested = inferencepb.ModelInferRequest_InferRequestedOutputTensor
	parameter = inferencepb.InferParameter
)

// classifier is a batched signature without open dimensions.
var classifier = tensor.Signature{
	Inputs:  []tensor.Spec{{Name: "image", Type: tensor.FP32, Shape: []int64{-1, 28, 28}}},
	Outputs: []tensor.Spec{{Name: "logits", Type: tensor.FP32, Shape: []int64{-1, 10}}},
	Batched: true,
}

// encoder is a batched signature with two inputs, one of them open.
var encoder = tensor.Signature{
	Inputs: []tensor.Spec{
		{Name: "text", Type: tensor.Bytes, Shape: []int64{-1}},
		{Name: "mask", Type: tensor.Bool, Shape: []int64{-1, -1, 2}},
	},
	Outputs: []tensor.Spec{
		{Name: "embedding", Type: tensor.FP32, Shape: []int64{-1, 4}},
		{Name: "norm", Type: tensor.FP32, Shape: []int64{-1}},
	},
	Batched: true,
}

// rawRequest is a request of one tensor with raw data.
func rawRequest(name string, t tensor.Type, shape []int64, raw []byte) *request {
	return &request{
		Inputs:           []*input{{Name: name, Datatype: string(t), Shape: shape}},
		RawInputContents: [][]byte{raw},
	}
}

// typedRequest is a request of one tensor with typed contents.
func typedRequest(name string, t tensor.Type, shape []int64, c *contents) *request {
	return &request{Inputs: []*input{{Name: name, Datatype: string(t), Shape: shape, Contents: c}}}
}

func images(rows int64) *request {
	return rawRequest("image", tensor.FP32, []int64{rows, 28, 28}, make([]byte, rows*28*28*4))
}

func texts(rows, length int64) *request {
	return &request{
		Inputs: []*input{
			{Name: "text", Datatype: "BYTES", Shape: []int64{rows}},
			{Name: "mask", Datatype: "BOOL", Shape: []int64{rows, length, 2}},
		},
		RawInputContents: [][]byte{make([]byte, 4*rows), make([]byte, rows*length*2)},
	}
}

// swapped has its inputs the other way round.
func swapped(req *request) *request {
	slices.Reverse(req.Inputs)
	slices.Reverse(req.RawInputContents)
	return req
}

// with changes a request, for tables.
func with(req *request, change func(*request)) *request {
	change(req)
	return req
}

func wantInvalid(t *testing.T, err error, message string) {
	t.Helper()
	if _, ok := errors.AsType[*InvalidError](err); !ok {
		t.Fatalf("got the error %v (%T), want an *InvalidError %q", err, err, message)
	}
	if err.Error() != message {
		t.Fatalf("message\n got %q\nwant %q", err.Error(), message)
	}
}

func wantError(t *testing.T, err error, message string) {
	t.Helper()
	if err == nil || err.Error() != message {
		t.Fatalf("error\n got %v\nwant %s", err, message)
	}
}

func int64Param(v int64) *parameter {
	return &parameter{ParameterChoice: &inferencepb.InferParameter_Int64Param{Int64Param: v}}
}

func uint64Param(v uint64) *parameter {
	return &parameter{ParameterChoice: &inferencepb.InferParameter_Uint64Param{Uint64Param: v}}
}

func stringParam(v string) *parameter {
	return &parameter{ParameterChoice: &inferencepb.InferParameter_StringParam{StringParam: v}}
}

func boolParam(v bool) *parameter {
	return &parameter{ParameterChoice: &inferencepb.InferParameter_BoolParam{BoolParam: v}}
}

func doubleParam(v float64) *parameter {
	return &parameter{ParameterChoice: &inferencepb.InferParameter_DoubleParam{DoubleParam: v}}
}

// floats is raw FP32.
func floats(values ...float32) []byte {
	var data []byte
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}

func TestInvalidErrorIsInvalidArgumentAndNotExecuted(t *testing.T) {
	err := Malformed(rawRequest("x", "FLOAT", nil, nil))
	if !errors.Is(err, errs.Invalid) {
		t.Errorf("%v is not errs.Invalid", err)
	}
	if e := errs.From(err); e.Execution != errs.NotExecuted || e.Message != err.Error() {
		t.Errorf("got %+v, want not executed and the same text", e)
	}
	if code := status.Code(grpcerr.Status(err)); code != codes.InvalidArgument {
		t.Errorf("got %v, want INVALID_ARGUMENT", code)
	}
}
