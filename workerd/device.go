package workerd

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

// device is a GPU, or the CPU: one executor runs batches on it one at a time, another moves weights.
type device struct {
	mu     *sync.Mutex // the worker's
	clock  func() int64
	log    hclog.Logger
	index  int
	kind   string
	allows func(engineName string) bool
	models *hostMemory

	inference *executor
	transfer  *executor

	// Guarded by mu.
	cache   *pageCache
	weights map[uint64]engine.Weights // of the models whose state is resident
	moves   uint64                    // how often weights has changed, and 1: heartbeats say it only then
	pace    map[paceKey]pace          // of what ran here
	// inferred is when the last batch ended, 0 for none.
	inferred int64
	// measuring are the Profile actions that have begun.
	measuring map[*measurement]bool
}

// model returns a model that may run here. The lock is held.
func (d *device) model(id uint64) (*model, error) {
	m := d.models.held(id)
	switch {
	case m == nil:
		return nil, unknownModel(id)
	case !d.allows(m.record.GetEngine()):
		return nil, refusef(sessionpb.ResultCode_RESULT_CODE_UNKNOWN_ENGINE,
			"device %d may not use engine %q, which model %d needs", d.index, m.record.GetEngine(), id)
	default:
		return m, nil
	}
}

// uses says whether a job of the model waits or runs. The lock is held.
func (d *device) uses(id uint64) bool {
	of := func(j *job) bool { return j.action.GetModelId() == id }
	return d.inference.uses(of) || d.transfer.uses(of)
}

// awaits says whether weights that are not here are about to come. The lock is held.
func (d *device) awaits(id uint64) bool {
	return !d.cache.is(id, resident) && d.transfer.uses(func(j *job) bool {
		return j.action.GetModelId() == id && j.action.GetLoadWeights() != nil
	})
}

// loadWeights carries out a LoadWeights action. Weights that are here already are a success.
func (d *device) loadWeights(ctx context.Context, j *job) (*sessionpb.Result, error) {
	id := j.action.GetModelId()
	m, pages, err := d.beginLoad(id)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return &sessionpb.Result{Pages: uint32(pages)}, nil
	}
	start := d.clock()
	w, err := d.bring(ctx, m)
	took := d.clock() - start

	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.cache.release(id)
		return nil, err
	}
	d.settle(id, w)
	return &sessionpb.Result{Pages: uint32(pages), EngineNs: took}, nil
}

// beginLoad takes pages for the weights. It returns no model when the weights are here.
func (d *device) beginLoad(id uint64) (*model, int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.model(id)
	if err != nil {
		return nil, 0, err
	}
	if s := d.cache.held[id]; s != nil {
		if s.state != resident && !d.adopt(id) {
			return nil, 0, weightsInUse(id, "a profile")
		}
		return nil, s.pages, nil
	}
	if err := d.take(m, loading); err != nil {
		return nil, 0, err
	}
	return m, d.cache.held[id].pages, nil
}

// take allocates pages for a model. The lock is held.
func (d *device) take(m *model, state residency) error {
	if !d.cache.take(m.id, m.info.WeightsBytes, state) {
		return refusef(sessionpb.ResultCode_RESULT_CODE_CACHE_EXHAUSTED,
			"model %d needs %d pages of %d bytes, %d of %d are free; evict others first",
			m.id, d.cache.pagesFor(m.info.WeightsBytes), d.cache.pageBytes, d.cache.free, d.cache.total)
	}
	return nil
}

// settle makes weights ready to run. The lock is held.
func (d *device) settle(id uint64, w engine.Weights) {
	d.cache.held[id].state = resident
	d.weights[id] = w
	d.moves++
	d.inference.poke()
}

// depart marks resident weights as leaving and returns them, nil if there are none. The lock is held.
func (d *device) depart(id uint64, state residency) engine.Weights {
	w := d.weights[id]
	if w != nil {
		d.cache.held[id].state = state
		delete(d.weights, id)
		d.moves++
	}
	return w
}

// evictWeights carries out an EvictWeights action.
func (d *device) evictWeights(_ context.Context, j *job) (*sessionpb.Result, error) {
	id := j.action.GetModelId()
	w, err := d.beginEvict(id)
	if err != nil {
		return nil, err
	}
	start := d.clock()
	if err := d.evict(id, w); err != nil {
		return nil, err
	}
	return &sessionpb.Result{EngineNs: d.clock() - start}, nil
}

func (d *device) beginEvict(id uint64) (engine.Weights, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.model(id); err != nil {
		return nil, err
	}
	// A measurement that waits to go on with these weights has to begin anew.
	waiting := func(j *job) bool { return j.action.GetModelId() == id && j.action.GetProfile() == nil }
	running := func(j *job) bool { return j.action.GetModelId() == id }
	if slices.ContainsFunc(d.inference.queue.jobs, waiting) || slices.ContainsFunc(d.inference.running, running) {
		return nil, weightsInUse(id, "an action that waits or runs")
	}
	if d.cache.is(id, borrowed) {
		return nil, weightsInUse(id, "a profile")
	}
	if w := d.depart(id, leaving); w != nil {
		return w, nil
	}
	return nil, refusef(sessionpb.ResultCode_RESULT_CODE_WEIGHTS_NOT_PRESENT,
		"the weights of model %d are not on device %d", id, d.index)
}

// evict gives back the room of weights that depart returned. Should the engine fail, they are as resident as before, so
// that pages are never counted as free while they are not.
func (d *device) evict(id uint64, w engine.Weights) error {
	err := contain(w.Evict)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.settle(id, w)
		return err
	}
	d.cache.release(id)
	return nil
}

// bring has the engine load the weights.
func (d *device) bring(ctx context.Context, m *model) (w engine.Weights, err error) {
	err = contain(func() (err error) {
		w, err = m.handle.LoadWeights(ctx, d.index)
		return err
	})
	return w, err
}

// clear evicts everything; nothing runs any more.
func (d *device) clear() []error {
	d.mu.Lock()
	unfinished := slices.Collect(maps.Keys(d.measuring))
	d.mu.Unlock()
	for _, m := range unfinished {
		d.endProfile(m)
	}
	d.mu.Lock()
	ids := d.cache.models()
	d.mu.Unlock()
	var errs []error
	for _, id := range ids {
		d.mu.Lock()
		w := d.depart(id, leaving)
		d.mu.Unlock()
		if w != nil {
			errs = append(errs, d.evict(id, w))
		}
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}
