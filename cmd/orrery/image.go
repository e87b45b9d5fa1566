package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// imageRequest asks a model about one picture. input is the model's input,
// whose variable dimensions, the batch among them, are 1 here.
func imageRequest(model, version string, input *inferencepb.ModelMetadataResponse_TensorMetadata, pixels []float32) (*inferencepb.ModelInferRequest, error) {
	if input.GetDatatype() != string(tensor.FP32) {
		return nil, fmt.Errorf("input %q of model %s takes %s: only models that take pixels as FP32 can be given a picture", input.GetName(), model, input.GetDatatype())
	}
	shape := slices.Clone(input.GetShape())
	for i, d := range shape {
		if d < 0 {
			shape[i] = 1
		}
	}
	if n, err := tensor.Elements(shape); err != nil || n != int64(len(pixels)) {
		return nil, fmt.Errorf("input %q of model %s has the shape %v: it takes no picture of %d grey pixels", input.GetName(), model, input.GetShape(), len(pixels))
	}
	return &inferencepb.ModelInferRequest{
		ModelName: model, ModelVersion: version,
		Inputs:           []*inferencepb.ModelInferRequest_InferInputTensor{{Name: input.GetName(), Datatype: input.GetDatatype(), Shape: shape}},
		RawInputContents: [][]byte{float32s(pixels)},
	}, nil
}

// float32s is values as the protocol has them.
func float32s(values []float32) []byte {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}

// scores are the values of a response's first output.
func scores(response *inferencepb.ModelInferResponse) ([]float32, error) {
	if len(response.GetOutputs()) == 0 || len(response.GetRawOutputContents()) == 0 {
		return nil, errors.New("the answer has no output")
	}
	output, data := response.Outputs[0], response.RawOutputContents[0]
	if output.Datatype != string(tensor.FP32) || len(data) == 0 || len(data)%4 != 0 {
		return nil, fmt.Errorf("output %q is %d bytes of %s, which are no scores: those are FP32", output.Name, len(data), output.Datatype)
	}
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values, nil
}

// best is the index of the largest score.
func best(scores []float32) int {
	b := 0
	for i, s := range scores {
		if s > scores[b] {
			b = i
		}
	}
	return b
}
