package workerd

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

const (
	// leastRuns are measured for each number of rows, whatever the budget says.
	leastRuns = 3
	// outlierFactor times the median is where a run counts as an outlier.
	outlierFactor = 3
)

// measurement is one Profile action while it runs.
type measurement struct {
	device  *device
	job     *job
	model   *model
	weights engine.Weights // nil while they are not on the device
	// reload: nothing else uses the weights, so that loading them can be measured.
	reload bool
	// ours: the pages were taken for the measurement and are given back afterwards.
	ours bool
}

// profile carries out a Profile action. It leaves the device as it was.
func (d *device) profile(ctx context.Context, j *job) (_ *sessionpb.Result, err error) {
	m, err := d.beginProfile(j)
	if err != nil {
		return nil, err
	}
	defer m.end()
	wanted := j.action.GetProfile()
	p := &logpb.Profile{Key: &logpb.ProfileKey{
		Digest:        m.model.record.GetDigest(),
		Engine:        m.model.record.GetEngine(),
		EngineVersion: m.model.record.GetEngineVersion(),
		DeviceKind:    d.kind,
	}}
	if m.reload {
		loads, err := m.loads(ctx, max(1, int(wanted.GetWeightsLoads())))
		if err != nil {
			return nil, err
		}
		p.WeightsLoadP50Ns, p.WeightsLoadP99Ns = percentile(loads, 0.50), percentile(loads, 0.99)
	}
	for _, rows := range m.model.info.ProfileRows {
		runs, outputBytes, err := m.runs(ctx, rows, wanted)
		if err != nil {
			return nil, err
		}
		p.Execution = append(p.Execution, summary(rows, runs))
		p.OutputBytesPerRow = max(p.OutputBytesPerRow, uint64(outputBytes+rows-1)/uint64(rows))
	}
	return &sessionpb.Result{Profile: p}, nil
}

// beginProfile borrows the weights from the cache, or takes pages for them.
func (d *device) beginProfile(j *job) (*measurement, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := j.action.GetModelId()
	m, err := d.model(id)
	if err != nil {
		return nil, err
	}
	p := &measurement{device: d, job: j, model: m}
	others := d.inference.uses(func(o *job) bool { return o != j && o.action.GetModelId() == id })
	switch {
	case d.cache.held[id] == nil:
		p.ours, p.reload = true, true
		return p, d.take(m, borrowed)
	case !d.cache.is(id, resident):
		return nil, weightsInUse(id, "a load or an eviction")
	case others:
		p.weights = d.weights[id]
	default:
		p.reload = true
		p.weights = d.depart(id, borrowed)
	}
	return p, nil
}

// end gives the weights back to the cache, or evicts them. Should that fail, they stay, and stay accounted for.
func (m *measurement) end() {
	d, id := m.device, m.model.id
	switch {
	case m.reload && m.ours && m.weights != nil:
		if err := d.evict(id, m.weights); err != nil {
			d.log.Warn("weights stay after a profile", "model", id, "device", d.index, "error", err)
		}
	case m.reload:
		d.mu.Lock()
		defer d.mu.Unlock()
		if m.weights == nil {
			d.cache.release(id)
			return
		}
		d.settle(id, m.weights)
	}
}

// interrupted says whether the measurement is of no use any more: its session is over, or the worker ends.
func (m *measurement) interrupted() error {
	m.device.mu.Lock()
	defer m.device.mu.Unlock()
	if m.job.dropped || m.device.inference.closed {
		return errShuttingDown
	}
	return nil
}

// loads measures so many loads of the weights.
func (m *measurement) loads(ctx context.Context, n int) ([]int64, error) {
	var took []int64
	for range n {
		if err := m.interrupted(); err != nil {
			return nil, err
		}
		if m.weights != nil {
			if err := contain(m.weights.Evict); err != nil {
				return nil, err
			}
			m.weights = nil
		}
		start := time.Now()
		w, err := m.device.bring(ctx, m.model)
		if err != nil {
			return nil, err
		}
		m.weights = w
		took = append(took, int64(time.Since(start)))
	}
	slices.Sort(took)
	return took, nil
}

// runs measures the execution of so many rows, and returns the times in ascending order.
func (m *measurement) runs(ctx context.Context, rows int, wanted *sessionpb.Profile) (took []int64, outputBytes int, err error) {
	batch, err := zeros(m.model.info.Signature, rows)
	if err != nil {
		return nil, 0, err
	}
	var outputs []tensor.Tensor
	run := func() (time.Duration, error) {
		if err := m.interrupted(); err != nil {
			return 0, err
		}
		start := time.Now()
		outputs, err = runBatch(ctx, m.weights, batch)
		return time.Since(start), err
	}
	for range wanted.GetWarmups() {
		if _, err := run(); err != nil {
			return nil, 0, err
		}
	}
	var spent time.Duration
	budget := time.Duration(cmp.Or(wanted.GetBudgetNs(), math.MaxInt64))
	for n := 0; n < leastRuns || n < int(wanted.GetRuns()) && spent < budget; n++ {
		t, err := run()
		if err != nil {
			return nil, 0, err
		}
		spent += t
		took = append(took, int64(t))
	}
	for _, o := range outputs {
		outputBytes += len(o.Data)
	}
	slices.Sort(took)
	return took, outputBytes, nil
}

// summary says about one number of rows what its runs, in ascending order, tell.
func summary(rows int, runs []int64) *logpb.RowsTime {
	median := percentile(runs, 0.50)
	first, _ := slices.BinarySearch(runs, outlierFactor*median+1)
	return &logpb.RowsTime{
		Rows:     uint32(rows),
		P50Ns:    median,
		P99Ns:    percentile(runs, 0.99),
		Runs:     uint32(len(runs)),
		Outliers: uint32(len(runs) - first),
	}
}

// percentile is the nearest-rank percentile of ascending values.
func percentile(sorted []int64, p float64) int64 {
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// zeros is a batch of zeros, or of empty strings, in which every variable dimension but the batch is 1.
func zeros(sig tensor.Signature, rows int) (engine.Batch, error) {
	b := engine.Batch{Rows: rows}
	for _, spec := range sig.Inputs {
		shape := slices.Clone(spec.Shape)
		for i, n := range shape {
			if n < 0 {
				shape[i] = 1
			}
		}
		if sig.Batched && len(shape) > 0 {
			shape[0] = int64(rows)
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
