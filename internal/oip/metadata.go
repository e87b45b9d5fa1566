package oip

import (
	"slices"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// Metadata is the answer to ModelMetadata. Shapes have -1 for a variable
// dimension and include the batch dimension, as clients expect.
func Metadata(name string, versions []string, platform string, sig tensor.Signature) *inferencepb.ModelMetadataResponse {
	return &inferencepb.ModelMetadataResponse{
		Name: name, Versions: versions, Platform: platform,
		Inputs: metadata(sig.Inputs), Outputs: metadata(sig.Outputs),
	}
}

func metadata(specs []tensor.Spec) []*inferencepb.ModelMetadataResponse_TensorMetadata {
	tensors := make([]*inferencepb.ModelMetadataResponse_TensorMetadata, len(specs))
	for i, s := range specs {
		tensors[i] = &inferencepb.ModelMetadataResponse_TensorMetadata{
			Name: s.Name, Datatype: string(s.Type), Shape: slices.Clone(s.Shape),
		}
	}
	return tensors
}
