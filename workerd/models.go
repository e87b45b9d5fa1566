package workerd

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/internal/oip"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

// hostSlots is how many models are read or closed at a time.
const hostSlots = 2

// model is a model in host memory.
type model struct {
	id            uint64
	name, version string
	handle        engine.Model // nil while it is being read
	info          engine.Info
	record        *logpb.ModelInfo
	loadNs        int64
	leaving       bool // being unloaded
}

// hostMemory holds the models that were read from the model directory.
type hostMemory struct {
	mu      *sync.Mutex // the worker's
	clock   func() int64
	log     hclog.Logger
	root    *os.Root
	engines []engine.Engine
	devices []*device
	budget  int64 // bytes; 0: no bound

	executor *executor

	// Guarded by mu.
	models map[uint64]*model
	used   int64 // bytes
}

// held returns a model that can be used, or nil. The lock is held.
func (h *hostMemory) held(id uint64) *model {
	m := h.models[id]
	if m == nil || m.handle == nil || m.leaving {
		return nil
	}
	return m
}

// free says whether nothing is being done to a model at the moment: so the second of two equal loads waits for the
// first one and then finds the model. The lock is held.
func (h *hostMemory) free(id uint64) bool {
	return !slices.ContainsFunc(h.executor.running, func(j *job) bool { return j.action.GetModelId() == id })
}

// load carries out a LoadModel action. A model that is held already is a success.
func (h *hostMemory) load(ctx context.Context, j *job) (*sessionpb.Result, error) {
	id, wanted := j.action.GetModelId(), j.action.GetLoadModel()
	known, err := h.beginLoad(id, wanted)
	if err != nil {
		return nil, err
	}
	if known != nil {
		return &sessionpb.Result{Info: known.record}, checkDigest(known, wanted)
	}
	m, err := h.read(ctx, id, wanted)
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.models, id)
		return nil, err
	}
	if err := h.admit(m); err != nil {
		return nil, err
	}
	h.log.Info("model loaded", "model", id, "source", wanted.GetSource(), "engine", m.record.GetEngine(), "host_bytes", m.info.HostBytes)
	return &sessionpb.Result{Info: m.record, EngineNs: m.loadNs}, nil
}

// beginLoad returns the model if it is held, and otherwise notes that it is on its way.
func (h *hostMemory) beginLoad(id uint64, wanted *sessionpb.LoadModel) (*model, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.models[id]; m != nil {
		return m, nil
	}
	if h.budget > 0 && h.used >= h.budget {
		return nil, h.exhausted(0)
	}
	h.models[id] = &model{id: id, name: wanted.GetName(), version: wanted.GetVersion()}
	return nil, nil
}

// read has an engine load the model, without the lock. It leaves nothing behind when it fails.
func (h *hostMemory) read(ctx context.Context, id uint64, wanted *sessionpb.LoadModel) (*model, error) {
	m := &model{id: id, name: wanted.GetName(), version: wanted.GetVersion()}
	start := h.clock()
	err := contain(func() error {
		e, err := h.choose(wanted)
		if err != nil {
			return err
		}
		if m.handle, err = e.Load(ctx, h.root, wanted.GetSource()); err != nil {
			return err
		}
		m.info = m.handle.Info()
		m.record = modelInfo(m.info, e)
		return nil
	})
	m.loadNs = h.clock() - start
	if err == nil && !soundInfo(m.info) {
		err = refusef(sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED,
			"engine %q gave nonsense about %q: weights %d bytes, host memory %d bytes, profile rows %v",
			m.record.GetEngine(), wanted.GetSource(), m.info.WeightsBytes, m.info.HostBytes, m.info.ProfileRows)
	}
	if err == nil {
		err = checkDigest(m, wanted)
	}
	if err == nil {
		err = checkShapes(m.info.Signature, maxRows(m), wanted)
	}
	if err != nil && m.handle != nil {
		h.discard(m)
	}
	return m, err
}

// admit takes a model that was read into the books, if it fits.
func (h *hostMemory) admit(m *model) error {
	h.mu.Lock()
	fits := h.budget <= 0 || h.used+m.info.HostBytes <= h.budget
	if fits {
		h.models[m.id] = m
		h.used += m.info.HostBytes
		h.mu.Unlock()
		return nil
	}
	err := h.exhausted(m.info.HostBytes)
	h.mu.Unlock()

	h.discard(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.models, m.id)
	return err
}

// exhausted is the refusal of a model for which there is no room. The lock is held.
func (h *hostMemory) exhausted(need int64) error {
	return refusef(sessionpb.ResultCode_RESULT_CODE_HOST_MEMORY_EXHAUSTED,
		"%d of %d bytes of host memory are used, and the model needs %d; unload others or allow more", h.used, h.budget, need)
}

// discard closes a model that nobody has used.
func (h *hostMemory) discard(m *model) {
	if err := contain(m.handle.Close); err != nil {
		h.log.Warn("model did not close", "model", m.id, "error", err)
	}
}

// choose finds the engine that the load names, or the first one that accepts the source, among those that a device of
// this worker may use.
func (h *hostMemory) choose(wanted *sessionpb.LoadModel) (engine.Engine, error) {
	for _, e := range h.engines {
		usable := slices.ContainsFunc(h.devices, func(d *device) bool { return d.allows(e.Name()) })
		if usable && (wanted.GetEngine() == e.Name() || wanted.GetEngine() == "" && e.Accepts(wanted.GetSource())) {
			return e, nil
		}
	}
	if wanted.GetEngine() != "" {
		return nil, refusef(sessionpb.ResultCode_RESULT_CODE_UNKNOWN_ENGINE,
			"no device of this worker uses an engine %q; enable it or name another one", wanted.GetEngine())
	}
	return nil, refusef(sessionpb.ResultCode_RESULT_CODE_UNKNOWN_ENGINE,
		"no engine of this worker's devices takes %q; name the engine", wanted.GetSource())
}

// unload carries out an UnloadModel action: off the devices first, then out of host memory.
func (h *hostMemory) unload(_ context.Context, j *job) (*sessionpb.Result, error) {
	id := j.action.GetModelId()
	m, resident, err := h.beginUnload(id)
	if err != nil {
		return nil, err
	}
	for d, w := range resident {
		if evictErr := d.evict(id, w); evictErr != nil {
			err = evictErr
		}
	}
	if err == nil {
		err = contain(m.handle.Close)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		m.leaving = false
		return nil, err
	}
	delete(h.models, id)
	h.used -= m.info.HostBytes
	for _, d := range h.devices {
		maps.DeleteFunc(d.pace, func(k paceKey, _ pace) bool { return k.model == id })
	}
	h.log.Info("model unloaded", "model", id)
	return &sessionpb.Result{}, nil
}

// beginUnload closes the model for new work and returns its weights on each device that has them.
func (h *hostMemory) beginUnload(id uint64) (*model, map[*device]engine.Weights, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.held(id)
	if m == nil {
		return nil, nil, unknownModel(id)
	}
	for _, d := range h.devices {
		d.inference.abort(id)
		d.transfer.abort(id)
		if d.uses(id) {
			return nil, nil, weightsInUse(id, "an action that waits or runs")
		}
	}
	m.leaving = true
	resident := make(map[*device]engine.Weights)
	for _, d := range h.devices {
		if w := d.depart(id, leaving); w != nil {
			resident[d] = w
		}
	}
	return m, resident, nil
}

// clear closes all models; nothing runs any more, and no weights are left.
func (h *hostMemory) clear() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for id, m := range h.models {
		if m.handle != nil {
			if err := contain(m.handle.Close); err != nil {
				errs = append(errs, err)
			}
		}
		delete(h.models, id)
	}
	h.used = 0
	return errs
}

func checkDigest(m *model, wanted *sessionpb.LoadModel) error {
	if wanted.GetDigest() == "" || wanted.GetDigest() == m.info.Digest {
		return nil
	}
	return refusef(sessionpb.ResultCode_RESULT_CODE_DIGEST_MISMATCH,
		"%q has the digest %s, not %s; give all workers the same files", wanted.GetSource(), m.info.Digest, wanted.GetDigest())
}

// soundInfo says whether the accounting can rely on what an engine found out.
func soundInfo(info engine.Info) bool {
	return info.WeightsBytes >= 0 && info.HostBytes >= 0 && len(info.ProfileRows) > 0 &&
		info.ProfileRows[0] > 0 && slices.IsSorted(info.ProfileRows)
}

func modelInfo(info engine.Info, e engine.Engine) *logpb.ModelInfo {
	rows := make([]uint32, len(info.ProfileRows))
	for i, n := range info.ProfileRows {
		rows[i] = uint32(n)
	}
	return &logpb.ModelInfo{
		Digest:        info.Digest,
		Signature:     oip.SignatureProto(info.Signature),
		WeightsBytes:  uint64(info.WeightsBytes),
		HostBytes:     uint64(info.HostBytes),
		ProfileRows:   rows,
		Engine:        e.Name(),
		EngineVersion: e.Version(),
		Emulated:      info.Emulated,
	}
}
