package workerd

import (
	"slices"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// largestBatch is how many bytes the inputs of a batch may have that is measured. No request may be as large
// (inference.max_message).
const largestBatch = 1 << 30

// checkShapes refuses a model that declared shapes don't fit, or that could not be measured with them. rows is its largest
// batch.
func checkShapes(sig tensor.Signature, rows int, wanted *sessionpb.LoadModel) error {
	for _, declared := range wanted.GetLargest() {
		i := slices.IndexFunc(sig.Inputs, func(spec tensor.Spec) bool { return spec.Name == declared.GetName() })
		if i < 0 {
			return refusef(sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT, "%q has no input %q, for which a largest shape was declared; its inputs are %s",
				wanted.GetSource(), declared.GetName(), inputNames(sig))
		}
		own := ownShape(sig, sig.Inputs[i].Shape)
		if !slices.EqualFunc(own, declared.GetShape(), func(have, most int64) bool { return have < 0 || have == most }) {
			return refusef(sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT,
				"input %q of %q has the shape %v beside the batch, which %v does not fit; a shape has a number for each dimension, and only where the model has -1 may it choose one",
				declared.GetName(), wanted.GetSource(), own, declared.GetShape())
		}
		elements, err := tensor.Elements(declared.GetShape())
		size := int64(max(1, sig.Inputs[i].Type.Size())) * int64(rows)
		if err != nil || elements > largestBatch/size {
			return refusef(sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT,
				"input %q of %q would have more than %d bytes in a batch of %d with the shape %v; declare a smaller one",
				declared.GetName(), wanted.GetSource(), largestBatch, rows, declared.GetShape())
		}
	}
	return nil
}

// ownShape is a shape without the batch dimension.
func ownShape(sig tensor.Signature, shape []int64) []int64 {
	if sig.Batched && len(shape) > 0 {
		return shape[1:]
	}
	return shape
}

func inputNames(sig tensor.Signature) (names []string) {
	for _, spec := range sig.Inputs {
		names = append(names, spec.Name)
	}
	return names
}
