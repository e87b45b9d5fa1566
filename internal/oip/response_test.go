package oip

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

func TestResponse(t *testing.T) {
	type answer = inferencepb.ModelInferResponse_InferOutputTensor
	outputs := []tensor.Tensor{
		row("logits", []int64{1, 2}, 1, 2),
		{Name: "none", Type: tensor.Bytes, Shape: []int64{0}},
		row("norm", []int64{1}, 3),
	}
	logits := &answer{Name: "logits", Datatype: "FP32", Shape: []int64{1, 2}}
	none := &answer{Name: "none", Datatype: "BYTES", Shape: []int64{0}}
	norm := &answer{Name: "norm", Datatype: "FP32", Shape: []int64{1}}
	tests := []struct {
		name    string
		asked   []string
		outputs []*answer
		raw     [][]byte
	}{
		{"all", nil, []*answer{logits, none, norm}, [][]byte{floats(1, 2), {}, floats(3)}},
		{"one", []string{"norm"}, []*answer{norm}, [][]byte{floats(3)}},
		{"the model's order, once each", []string{"norm", "none", "norm"}, []*answer{none, norm}, [][]byte{{}, floats(3)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := &request{Id: "42", ModelName: "asked"}
			for _, name := range tt.asked {
				req.Outputs = append(req.Outputs, &requested{Name: name})
			}
			parameters := map[string]*parameter{"queue_us": int64Param(7)}
			built, err := Response(req, "digits", "3", outputs, parameters)
			if err != nil {
				t.Fatal(err)
			}
			// Over the wire, so that an empty raw entry is seen to survive.
			wire, err := proto.Marshal(built)
			if err != nil {
				t.Fatal(err)
			}
			got := &inferencepb.ModelInferResponse{}
			if err := proto.Unmarshal(wire, got); err != nil {
				t.Fatal(err)
			}
			want := &inferencepb.ModelInferResponse{
				ModelName: "digits", ModelVersion: "3", Id: "42", Parameters: parameters,
				Outputs: tt.outputs, RawOutputContents: tt.raw,
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestResponseWithoutARequestedOutput(t *testing.T) {
	req := &request{Outputs: []*requested{{Name: "logit"}}}
	_, err := Response(req, "digits", "3", []tensor.Tensor{row("logits", []int64{1}, 1)}, nil)
	wantError(t, err, `model digits version 3 did not give the output "logit"`)
}

func TestMetadata(t *testing.T) {
	type metadata = inferencepb.ModelMetadataResponse_TensorMetadata
	want := &inferencepb.ModelMetadataResponse{
		Name: "encoder", Versions: []string{"1", "2"}, Platform: "onnx",
		Inputs: []*metadata{
			{Name: "text", Datatype: "BYTES", Shape: []int64{-1}},
			{Name: "mask", Datatype: "BOOL", Shape: []int64{-1, -1, 2}},
		},
		Outputs: []*metadata{
			{Name: "embedding", Datatype: "FP32", Shape: []int64{-1, 4}},
			{Name: "norm", Datatype: "FP32", Shape: []int64{-1}},
		},
	}
	if diff := cmp.Diff(want, Metadata("encoder", []string{"1", "2"}, "onnx", encoder), protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSignatureRoundTrip(t *testing.T) {
	p := SignatureProto(encoder)
	if diff := cmp.Diff(encoder, Signature(p)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	p.Inputs[0].Shape[0] = 5
	if encoder.Inputs[0].Shape[0] != -1 {
		t.Error("the two forms share a shape")
	}
	if got := Signature(nil); len(got.Inputs)+len(got.Outputs) > 0 || got.Batched {
		t.Errorf("no signature became %+v", got)
	}
}
