package workerd

import (
	"slices"

	"github.com/orrery-project/orrery/internal/stats"
	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

const (
	// leastRuns are measured for each number of rows, whatever the budget says, unless fewer are wanted.
	leastRuns = 5
	// stableRuns are measured before the times can be found stable, and between two looks.
	stableRuns = 10
	// stableMedian and stableTail are how far the median and the 99th percentile of the first half of the runs may be from
	// those of the second, when they are stable.
	stableMedian, stableTail = 0.02, 0.05
)

// enough says whether runs, in the order in which they were made, suffice.
func enough(runs []int64, wanted *sessionpb.Profile) bool {
	spent, most := int64(0), max(1, int(wanted.GetRuns()))
	for _, t := range runs {
		spent += t
	}
	switch {
	case len(runs) < min(leastRuns, most):
		return false
	case len(runs) >= most, wanted.GetBudgetNs() > 0 && spent >= wanted.GetBudgetNs():
		return true
	}
	return len(runs)%stableRuns == 0 && stable(runs)
}

// stable says whether both halves of the runs tell the same.
func stable(runs []int64) bool {
	half := len(runs) / 2
	median1, tail1 := quantiles(runs[:half])
	median2, tail2 := quantiles(runs[half:])
	return near(median1, median2, stableMedian) && near(tail1, tail2, stableTail)
}

// near says whether two times differ by no more than a share of the larger.
func near(a, b int64, share float64) bool {
	return float64(max(a, b)-min(a, b)) <= share*float64(max(a, b))
}

// quantiles are the median and the 99th percentile.
func quantiles(times []int64) (p50, p99 int64) {
	sorted := slices.Sorted(slices.Values(times))
	return stats.Percentile(sorted, 0.50), stats.Percentile(sorted, 0.99)
}

// summary says about one number of rows what its runs tell. Outliers are counted, and part of the percentiles.
func summary(rows int, runs []int64) *logpb.RowsTime {
	s := &logpb.RowsTime{Rows: uint32(rows), Runs: uint32(len(runs))}
	s.P50Ns, s.P99Ns = quantiles(runs)
	s.Outliers = stats.Outliers(runs, s.P50Ns)
	return s
}

// zeros is a batch of zeros, or of empty strings. Inputs with variable dimensions but the batch have the shapes that were
// declared as the largest; what was not declared is 1.
func zeros(sig tensor.Signature, largest []*logpb.TensorShape, rows int) (engine.Batch, error) {
	b := engine.Batch{Rows: rows}
	for _, spec := range sig.Inputs {
		shape := slices.Clone(spec.Shape)
		own := ownShape(sig, shape)
		if sig.Batched && len(shape) > 0 {
			shape[0] = int64(rows)
		}
		for _, declared := range largest {
			if declared.GetName() == spec.Name && len(declared.GetShape()) == len(own) {
				copy(own, declared.GetShape())
			}
		}
		for i, n := range own {
			if n < 0 {
				own[i] = 1
			}
		}
		elements, err := tensor.Elements(shape)
		if err != nil {
			return b, err
		}
		size := int64(spec.Type.Size())
		if spec.Type == tensor.Bytes {
			size = 4 // the length of an empty string
		}
		b.Inputs = append(b.Inputs, tensor.Tensor{Name: spec.Name, Type: spec.Type, Shape: shape, Data: make([]byte, elements*size)})
	}
	return b, nil
}
