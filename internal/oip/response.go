package oip

import (
	"fmt"
	"slices"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// Response answers req for the model of this name and version, the one that
// really ran. It has the outputs that req asks for, all of them when it names
// none, in the order of outputs; the data is always in raw_output_contents, one
// entry an output, since some clients read nothing else, and is aliased. It
// fails when an output that req asks for is not among outputs: Check finds an
// unknown one earlier, so the model did not give what it declares.
func Response(req *inferencepb.ModelInferRequest, name, version string, outputs []tensor.Tensor,
	parameters map[string]*inferencepb.InferParameter,
) (*inferencepb.ModelInferResponse, error) {
	for _, asked := range req.Outputs {
		if !slices.ContainsFunc(outputs, func(out tensor.Tensor) bool { return out.Name == asked.Name }) {
			return nil, fmt.Errorf("model %s version %s did not give the output %q", name, version, asked.Name)
		}
	}
	resp := &inferencepb.ModelInferResponse{
		ModelName: name, ModelVersion: version, Id: req.Id, Parameters: parameters,
	}
	for _, out := range outputs {
		if !wants(req, out.Name) {
			continue
		}
		resp.Outputs = append(resp.Outputs, &inferencepb.ModelInferResponse_InferOutputTensor{
			Name: out.Name, Datatype: string(out.Type), Shape: out.Shape,
		})
		resp.RawOutputContents = append(resp.RawOutputContents, out.Data)
	}
	return resp, nil
}

// wants says whether req asks for this output.
func wants(req *inferencepb.ModelInferRequest, name string) bool {
	return len(req.Outputs) == 0 ||
		slices.ContainsFunc(req.Outputs, func(out *inferencepb.ModelInferRequest_InferRequestedOutputTensor) bool {
			return out.Name == name
		})
}
