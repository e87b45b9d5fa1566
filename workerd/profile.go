package workerd

import (
	"context"
	"time"

	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

// sliceTime is about how long a slice of a measurement takes, if its runs are shorter.
const sliceTime = 2 * time.Millisecond

// idleAfter is how long after the last batch a device is nobody's.
const idleAfter = time.Second

// later is what a job returns that has done a slice of its work and wants to go on, on some executor at an instant of the
// worker's clock.
type later struct {
	on *executor
	at int64
}

func (later) Error() string { return "to be continued" }

// profile carries out the next slice of a Profile action. Whatever else waits for the device goes before the slice after
// it; while there are batches, a pause between the slices keeps to the share of the device's time that the leader allows.
// Loads of the weights are measured where others are loaded, so that batches don't wait for them. In the end it leaves the
// device as it was.
func (d *device) profile(ctx context.Context, j *job) (*sessionpb.Result, error) {
	start := d.clock()
	if j.measurement == nil {
		m, err := d.beginProfile(j)
		if err != nil {
			return nil, err
		}
		j.measurement = m
		if m.loads > 0 {
			return nil, later{d.transfer, start}
		}
	}
	m := j.measurement
	finished, err := m.slice(ctx)
	if err == nil && !finished {
		on := d.inference
		if m.loads > 0 {
			on = d.transfer
		}
		return nil, later{on, d.clock() + d.pauseAfter(start, j.action.GetProfile().GetShare())}
	}
	d.endProfile(m)
	if err != nil {
		return nil, err
	}
	return &sessionpb.Result{Profile: m.profile}, nil
}

// pauseAfter is how long the pause after a slice has to be that began at start. None is needed while nobody else uses the
// device.
func (d *device) pauseAfter(start int64, share float64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock()
	if share <= 0 || share >= 1 || d.inferred == 0 || now-d.inferred > int64(idleAfter) {
		return 0
	}
	return int64(float64(now-start) * (1/share - 1))
}

// beginProfile borrows the weights from the cache, or takes pages for them.
func (d *device) beginProfile(j *job) (*measurement, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, wanted := j.action.GetModelId(), j.action.GetProfile()
	m, err := d.model(id)
	if err != nil {
		return nil, err
	}
	p := newMeasurement(d, j, m)
	others := d.inference.uses(func(o *job) bool { return o != j && o.action.GetModelId() == id })
	switch {
	case d.cache.held[id] == nil:
		if err := d.take(m, borrowed); err != nil {
			return nil, err
		}
		p.ours, p.loads = true, max(1, int(wanted.GetWeightsLoads()))
	case !d.cache.is(id, resident):
		return nil, weightsInUse(id, "a load or an eviction")
	case others || wanted.GetWeightsLoads() == 0:
		p.weights = d.weights[id] // they stay where they are
	default:
		p.borrowed, p.loads = true, int(wanted.GetWeightsLoads())
		p.weights = d.depart(id, borrowed)
	}
	d.measuring[p] = true
	return p, nil
}

// endProfile gives the weights back to the cache, or evicts them. Should that fail, they stay, and stay accounted for.
func (d *device) endProfile(m *measurement) {
	id := m.model.id
	d.mu.Lock()
	delete(d.measuring, m)
	evict := m.ours && m.weights != nil
	switch {
	case (m.ours || m.borrowed) && m.weights == nil:
		d.cache.release(id)
	case m.borrowed:
		d.settle(id, m.weights)
	}
	d.mu.Unlock()
	if !evict {
		return
	}
	if err := d.evict(id, m.weights); err != nil {
		d.log.Warn("weights stay after a profile", "model", id, "device", d.index, "error", err)
	}
}

// adopt makes weights resident that a measurement has brought for itself, if that has no more to do than run: the
// measurement goes on with them where they are. The lock is held.
func (d *device) adopt(id uint64) bool {
	for m := range d.measuring {
		if m.model.id == id && m.ours && m.loads == 0 {
			m.ours = false
			d.settle(id, m.weights)
			return true
		}
	}
	return false
}

// measurement is one Profile action while it is carried out.
type measurement struct {
	device *device
	job    *job
	model  *model

	// Changed with the worker's lock: weights are nil while they are not on the device. ours: the pages were taken for the
	// measurement and are given back afterwards. borrowed: the weights were resident, and are so again afterwards. loads of
	// the weights are still to be measured.
	weights        engine.Weights
	ours, borrowed bool
	loads          int

	rows []int // to be measured; the first is being measured
	// What was measured: loads of the weights, or runs of the first number of rows.
	took   []int64
	warm   int // warm-up runs of it that were done
	batch  engine.Batch
	output int // bytes of its last run

	profile *logpb.Profile
}

func newMeasurement(d *device, j *job, m *model) *measurement {
	p := &measurement{device: d, job: j, model: m, profile: &logpb.Profile{Key: &logpb.ProfileKey{
		Digest:        m.record.GetDigest(),
		Engine:        m.record.GetEngine(),
		EngineVersion: m.record.GetEngineVersion(),
		DeviceKind:    d.kind,
	}}}
	wanted := map[int]bool{}
	for _, rows := range j.action.GetProfile().GetRows() {
		wanted[int(rows)] = true
	}
	for _, rows := range m.info.ProfileRows {
		if len(wanted) == 0 || wanted[rows] {
			p.rows = append(p.rows, rows)
		}
	}
	return p
}

// slice measures one load, or runs for a while, at least one, and says whether nothing is left to do.
func (m *measurement) slice(ctx context.Context) (finished bool, err error) {
	for start := time.Now(); ; {
		if err := m.interrupted(); err != nil {
			return false, err
		}
		if m.loads > 0 {
			err := m.load(ctx)
			return m.loads == 0 && len(m.rows) == 0, err
		}
		if len(m.rows) > 0 {
			err = m.run(ctx)
		}
		if err != nil || len(m.rows) == 0 {
			return true, err
		}
		if time.Since(start) >= sliceTime {
			return false, nil
		}
	}
}

// interrupted says whether the measurement can't go on: its session is over, the worker ends, the model is to be unloaded,
// or weights that were used where they are have been evicted.
func (m *measurement) interrupted() error {
	d := m.device
	d.mu.Lock()
	defer d.mu.Unlock()
	switch inPlace := !m.ours && !m.borrowed; {
	case m.job.dropped || d.inference.closed:
		return errShuttingDown
	case m.job.unwanted:
		return errCancelled
	case inPlace && d.weights[m.model.id] != m.weights:
		return refusef(sessionpb.ResultCode_RESULT_CODE_WEIGHTS_NOT_PRESENT, "the weights of model %d were evicted while it was measured", m.model.id)
	}
	return nil
}

// load measures one load of the weights.
func (m *measurement) load(ctx context.Context) error {
	if m.weights != nil {
		if err := contain(m.weights.Evict); err != nil {
			return err
		}
		m.device.mu.Lock()
		m.weights = nil
		m.device.mu.Unlock()
	}
	start := time.Now()
	w, err := m.device.bring(ctx, m.model)
	if err != nil {
		return err
	}
	m.took = append(m.took, int64(time.Since(start)))
	if m.loads == 1 {
		m.profile.WeightsLoadP50Ns, m.profile.WeightsLoadP99Ns = quantiles(m.took)
		m.took = nil
	}
	m.device.mu.Lock()
	defer m.device.mu.Unlock()
	m.weights = w
	m.loads--
	return nil
}

// run does one run of the first of the numbers of rows, and sums them up after the last.
func (m *measurement) run(ctx context.Context) (err error) {
	rows, wanted := m.rows[0], m.job.action.GetProfile()
	if m.batch.Rows != rows {
		if m.batch, err = zeros(m.model.info.Signature, wanted.GetLargest(), rows); err != nil {
			return err
		}
	}
	start := time.Now()
	outputs, err := runBatch(ctx, m.weights, m.batch)
	if err != nil {
		return err
	}
	took := int64(time.Since(start))
	if m.warm < int(wanted.GetWarmups()) {
		m.warm++
		return nil
	}
	m.took = append(m.took, took)
	if !enough(m.took, wanted) {
		return nil
	}
	m.output = 0
	for _, o := range outputs {
		m.output += len(o.Data)
	}
	m.profile.Execution = append(m.profile.Execution, summary(rows, m.took))
	m.profile.OutputBytesPerRow = max(m.profile.OutputBytesPerRow, uint64(m.output+rows-1)/uint64(rows))
	m.rows, m.took, m.warm = m.rows[1:], nil, 0
	return nil
}
