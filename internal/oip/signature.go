package oip

import (
	"slices"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/logpb"
)

// Signature converts the replicated form of a signature.
func Signature(s *logpb.Signature) tensor.Signature {
	return tensor.Signature{Inputs: specs(s.GetInputs()), Outputs: specs(s.GetOutputs()), Batched: s.GetBatched()}
}

// SignatureProto is the replicated form of a signature.
func SignatureProto(s tensor.Signature) *logpb.Signature {
	return &logpb.Signature{Inputs: specsProto(s.Inputs), Outputs: specsProto(s.Outputs), Batched: s.Batched}
}

func specs(from []*logpb.TensorSpec) []tensor.Spec {
	to := make([]tensor.Spec, len(from))
	for i, s := range from {
		to[i] = tensor.Spec{Name: s.GetName(), Type: tensor.Type(s.GetDatatype()), Shape: slices.Clone(s.GetShape())}
	}
	return to
}

func specsProto(from []tensor.Spec) []*logpb.TensorSpec {
	to := make([]*logpb.TensorSpec, len(from))
	for i, s := range from {
		to[i] = &logpb.TensorSpec{Name: s.Name, Datatype: string(s.Type), Shape: slices.Clone(s.Shape)}
	}
	return to
}
