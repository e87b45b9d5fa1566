package controller

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// This file has workers load and unload what the plan says.

const (
	// canaryPatience is how long the first load of a model is waited for, before
	// another worker begins too.
	canaryPatience = 10 * time.Second
	// memoryRetry is the pause before a worker that had no memory for a model is
	// asked again, once there seems to be enough.
	memoryRetry = 30 * time.Second
)

// plan is which workers shall hold what, by the state at one index.
type plan struct {
	index uint64
	made  bool
	// wanted are a worker's models, in order of their ids.
	wanted map[string][]*logpb.Model
	// missing lack a copy for which a worker has to be chosen.
	missing []*logpb.Model
	// records are a worker's holdings, in order of the models' ids.
	records map[string][]*logpb.Holding
}

// makePlan works out the plan anew when the state has changed.
func (k *coordinator) makePlan(s *fsm.State) {
	if k.plan.made && k.plan.index == s.Index() {
		return
	}
	k.plan = plan{index: s.Index(), made: true, wanted: map[string][]*logpb.Model{}, records: map[string][]*logpb.Holding{}}
	for _, m := range s.Models() {
		for _, h := range s.Holdings(m.Id) {
			k.plan.records[h.Worker] = append(k.plan.records[h.Worker], h)
		}
		for _, w := range s.Targets(m) {
			k.plan.wanted[w.Name] = append(k.plan.wanted[w.Name], m)
		}
		if k.blamed[m.Id] && m.Blame == "" {
			k.pardon(m.Id)
		}
		k.blamed[m.Id] = m.Blame != ""
		if s.Missing(m) > 0 {
			k.plan.missing = append(k.plan.missing, m)
		}
	}
}

// wants says whether the worker shall hold the model.
func (p *plan) wants(worker string, id uint64) bool {
	_, found := slices.BinarySearchFunc(p.wanted[worker], id, func(m *logpb.Model, id uint64) int { return cmp.Compare(m.Id, id) })
	return found
}

// load has the worker load what it shall hold, and unload what it shall not.
func (k *coordinator) load(s *fsm.State, w *connection) {
	limit := k.term.c.tunables.Load().LoadsPerWorker
	if w.inService(s) {
		for _, m := range k.plan.wanted[w.name] {
			if w.loading >= limit {
				break
			}
			if w.held[m.Id] != nil {
				continue
			}
			failed := s.Holding(m.Id, w.name).GetStatus() == logpb.HoldingStatus_HOLDING_STATUS_FAILED
			if !failed && w.due(m.Id) && k.mayLoad(s, w, m) {
				k.loadModel(s, w, m)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.held)) {
		if h := w.held[id]; h.status != logpb.HoldingStatus_HOLDING_STATUS_PENDING && w.due(id) && k.unwanted(s, w, id) {
			k.unloadModel(w, id, h)
		}
	}
}

// due says whether a load or unload may be tried now; putOff puts it off.
func (w *connection) due(id uint64) bool { return !time.Now().Before(w.notBefore[id]) }
func (w *connection) putOff(id uint64)   { w.notBefore[id] = time.Now().Add(actionRetry) }

// mayLoad says whether the worker may begin to load the model now. A model that
// nobody has loaded yet is loaded by one worker first: it may be one that kills
// workers.
func (k *coordinator) mayLoad(s *fsm.State, w *connection, m *logpb.Model) bool {
	if m.Info == nil {
		for _, o := range k.connections {
			if h := o.held[m.Id]; o != w && o.registered && h != nil &&
				s.Holding(m.Id, o.name).GetStatus() != logpb.HoldingStatus_HOLDING_STATUS_FAILED &&
				(h.loading && time.Since(h.began) < canaryPatience || h.loaded()) {
				return false // its answer, or the commit of that, is on its way
			}
		}
	}
	t := trial{model: m.Id}
	if k.suspects.killed(t, w.name) {
		for _, o := range k.connections {
			if !k.suspects.killed(t, o.name) && o.inService(s) && k.plan.wants(o.name, m.Id) && s.Holding(m.Id, o.name).GetStatus() == logpb.HoldingStatus_HOLDING_STATUS_PENDING &&
				!o.held[m.Id].loaded() {
				return false // that one is to try it
			}
		}
	}
	return k.mayTry(w, t)
}

// unwanted says whether the worker shall give a model up: nobody wants it, an
// operator has emptied the worker, or there are more copies than are wanted and
// the others can serve.
func (k *coordinator) unwanted(s *fsm.State, w *connection, id uint64) bool {
	m := s.Model(id)
	record := s.Worker(w.name)
	switch {
	case m == nil || record.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_EVICTED:
		return true
	case k.plan.wants(w.name, id) || record.GetStatus() != logpb.WorkerStatus_WORKER_STATUS_READY || m.Copies == 0 || m.Blame != "" || m.Retiring || s.Missing(m) > 0:
		return false
	}
	for _, t := range s.Targets(m) {
		if s.Holding(id, t.Name).GetStatus() != logpb.HoldingStatus_HOLDING_STATUS_LOADED || !k.up(t.Name, id) {
			return false
		}
	}
	return true
}

// up says whether the scheduler has a worker with a model.
func (k *coordinator) up(worker string, id uint64) bool {
	w := k.connections[worker]
	return w != nil && w.up && contains(w.upModels, id)
}

func contains(sorted []uint64, id uint64) bool {
	_, found := slices.BinarySearch(sorted, id)
	return found
}

func (k *coordinator) loadModel(state *fsm.State, w *connection, m *logpb.Model) {
	h := &held{status: logpb.HoldingStatus_HOLDING_STATUS_PENDING, loading: true, began: time.Now(), usedThen: k.roomOf(state, w).used}
	w.held[m.Id] = h
	w.loading++
	s := w.session
	action := &sessionpb.Action{ModelId: m.Id, Body: &sessionpb.Action_LoadModel{LoadModel: &sessionpb.LoadModel{
		Source: m.Source, Engine: m.Engine, Digest: m.Info.GetDigest(), Name: m.Name, Version: m.Version, Largest: m.Largest,
	}}}
	s.do(action, func(r *sessionpb.Result) {
		k.mailbox.post(func() {
			if r == nil || w.session != s {
				return
			}
			w.loading--
			h.loading = false
			passing := passingLoad(r.Code)
			k.tried(w, trial{model: m.Id}, !passing)
			if passing {
				delete(w.held, m.Id)
				w.putOff(m.Id)
				return
			}
			h.loadNs = int64(time.Since(h.began))
			if r.Code == sessionpb.ResultCode_RESULT_CODE_OK {
				h.status, h.info = logpb.HoldingStatus_HOLDING_STATUS_LOADED, r.Info
				return
			}
			h.status, h.err, h.fault = logpb.HoldingStatus_HOLDING_STATUS_FAILED, r.Message, holdingFault(r.Code)
			w.notBefore[m.Id] = time.Now().Add(memoryRetry)
			k.log.Warn("a worker could not load a model", "worker", w.name, "model", m.Name, "code", r.Code, "message", r.Message)
		})
	})
}

// passingLoad says whether a load failed for a reason that is not the model's.
func passingLoad(c sessionpb.ResultCode) bool {
	switch c {
	case sessionpb.ResultCode_RESULT_CODE_NOT_REGISTERED, sessionpb.ResultCode_RESULT_CODE_STALE, sessionpb.ResultCode_RESULT_CODE_LOST,
		sessionpb.ResultCode_RESULT_CODE_SHUTTING_DOWN, sessionpb.ResultCode_RESULT_CODE_CANCELLED:
		return true
	default:
		return false
	}
}

// holdingFault is a worker's code as the state keeps it.
func holdingFault(c sessionpb.ResultCode) logpb.HoldingFault {
	switch c {
	case sessionpb.ResultCode_RESULT_CODE_HOST_MEMORY_EXHAUSTED:
		return logpb.HoldingFault_HOLDING_FAULT_NO_MEMORY
	case sessionpb.ResultCode_RESULT_CODE_UNKNOWN_ENGINE:
		return logpb.HoldingFault_HOLDING_FAULT_NO_ENGINE
	case sessionpb.ResultCode_RESULT_CODE_BAD_SOURCE:
		return logpb.HoldingFault_HOLDING_FAULT_BAD_SOURCE
	case sessionpb.ResultCode_RESULT_CODE_DIGEST_MISMATCH:
		return logpb.HoldingFault_HOLDING_FAULT_DIGEST
	default:
		return logpb.HoldingFault_HOLDING_FAULT_OTHER
	}
}

func (k *coordinator) unloadModel(w *connection, id uint64, h *held) {
	if h.status == logpb.HoldingStatus_HOLDING_STATUS_FAILED {
		delete(w.held, id)
		return
	}
	h.status = logpb.HoldingStatus_HOLDING_STATUS_PENDING
	s := w.session
	s.do(&sessionpb.Action{ModelId: id, Body: &sessionpb.Action_UnloadModel{UnloadModel: &sessionpb.UnloadModel{}}}, func(r *sessionpb.Result) {
		k.mailbox.post(func() {
			if r == nil || w.session != s {
				return
			}
			switch r.Code {
			case sessionpb.ResultCode_RESULT_CODE_OK, sessionpb.ResultCode_RESULT_CODE_UNKNOWN_MODEL:
				delete(w.held, id)
			default: // in use
				h.status = logpb.HoldingStatus_HOLDING_STATUS_LOADED
				w.putOff(id)
			}
		})
	})
}
