package workerd

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/workerd/engine"
)

// fakeEngine doubles every number that it is given, in the times that a test chooses.
type fakeEngine struct {
	name    string
	sources map[string]*fakeModel

	mu      sync.Mutex
	runs    []fakeRun
	running map[int]int // by device
	overlap bool        // two batches ran on a device at once
	open    int         // models that are not closed
	loaded  int         // weights that are not evicted
}

type fakeRun struct {
	source string
	at     time.Time
	rows   int
	batch  engine.Batch
}

func (e *fakeEngine) Name() string               { return e.name }
func (e *fakeEngine) Version() string            { return "7" }
func (e *fakeEngine) Accepts(source string) bool { return strings.HasPrefix(source, e.name+":") }

func (e *fakeEngine) Load(ctx context.Context, _ *os.Root, source string) (engine.Model, error) {
	m, ok := e.sources[source]
	if !ok {
		return nil, fmt.Errorf("%s: %w", source, engine.ErrBadSource)
	}
	if err := pause(ctx, m.loadTime); err != nil {
		return nil, err
	}
	e.count(&e.open, 1)
	loaded := *m
	loaded.engine, loaded.source = e, source
	return &loaded, nil
}

func (e *fakeEngine) count(n *int, by int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*n += by
}

func (e *fakeEngine) ran() []fakeRun {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs
}

// fakeModel is what a source holds.
type fakeModel struct {
	weightsBytes, hostBytes int64
	loadTime, weightsTime   time.Duration
	runTime                 func(run int, rows int) time.Duration
	run                     func(engine.Batch) error // may panic
	weightsErr, evictErr    error
	unbatched               bool
	open                    bool // the second dimension is variable
	rows                    []int
	emulated                bool

	engine *fakeEngine
	source string
}

func (m *fakeModel) Info() engine.Info {
	shape := []int64{-1, 2}
	if m.unbatched {
		shape = []int64{2}
	}
	if m.open {
		shape = []int64{-1, -1}
	}
	info := engine.Info{
		Digest: "digest of " + m.source,
		Signature: tensor.Signature{
			Inputs:  []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: shape}},
			Outputs: []tensor.Spec{{Name: "y", Type: tensor.FP32, Shape: shape}},
			Batched: !m.unbatched,
		},
		WeightsBytes: m.weightsBytes, HostBytes: m.hostBytes, ProfileRows: []int{1, 2, 4, 8}, Emulated: m.emulated,
	}
	if m.rows != nil {
		info.ProfileRows = m.rows
	}
	return info
}

func (m *fakeModel) LoadWeights(ctx context.Context, device int) (engine.Weights, error) {
	if err := pause(ctx, m.weightsTime); err != nil {
		return nil, err
	}
	if m.weightsErr != nil {
		return nil, m.weightsErr
	}
	m.engine.count(&m.engine.loaded, 1)
	return &fakeWeights{m, device}, nil
}

func (m *fakeModel) Close() error {
	m.engine.count(&m.engine.open, -1)
	return nil
}

type fakeWeights struct {
	model  *fakeModel
	device int
}

func (w *fakeWeights) Run(ctx context.Context, b engine.Batch) ([]tensor.Tensor, error) {
	e := w.model.engine
	e.mu.Lock()
	n := len(e.runs)
	e.runs = append(e.runs, fakeRun{w.model.source, time.Now(), b.Rows, b})
	e.running[w.device]++
	e.overlap = e.overlap || e.running[w.device] > 1
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.running[w.device]--
	}()

	took := 10 * time.Millisecond
	if w.model.runTime != nil {
		took = w.model.runTime(n, b.Rows)
	}
	if err := pause(ctx, took); err != nil {
		return nil, err
	}
	if w.model.run != nil {
		if err := w.model.run(b); err != nil {
			return nil, err
		}
	}
	x := b.Inputs[0]
	return []tensor.Tensor{{Name: "y", Type: x.Type, Shape: x.Shape, Data: floats(doubled(x.Data)...)}}, nil
}

func (w *fakeWeights) Evict() error {
	if w.model.evictErr != nil {
		return w.model.evictErr
	}
	w.model.engine.count(&w.model.engine.loaded, -1)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func floats(values ...float32) []byte {
	data, _ := binary.Append(nil, binary.LittleEndian, values)
	return data
}

func values(data []byte) []float32 {
	v := make([]float32, len(data)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return v
}

func doubled(data []byte) []float32 {
	v := values(data)
	for i := range v {
		v[i] *= 2
	}
	return v
}
