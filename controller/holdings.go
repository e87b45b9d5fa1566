package controller

import (
	"maps"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// This file commits what workers hold, and who shall hold what.

// commitHoldings commits, in one entry, all differences between what workers
// hold and what the state says that they hold, and who has been chosen to hold
// what.
func (k *coordinator) commitHoldings(s *fsm.State) {
	if k.committing {
		return
	}
	var updates []*logpb.HoldingUpdate
	var about []*connection
	for _, name := range slices.Sorted(maps.Keys(k.connections)) {
		w := k.connections[name]
		if !w.registered || !w.health.mayCommit(time.Now()) {
			continue
		}
		before := len(updates)
		for _, id := range slices.Sorted(maps.Keys(w.held)) {
			if u := difference(s, w, id); u != nil {
				updates = append(updates, u)
			}
		}
		updates = append(updates, k.gone(s, w)...)
		if len(updates) > before {
			about = append(about, w)
		}
	}
	updates = append(updates, k.choose(s)...)
	if len(updates) == 0 {
		return
	}
	if s.Cluster().GetVersion() < 3 {
		for _, u := range updates {
			u.Holding.Fault = logpb.HoldingFault_HOLDING_FAULT_NONE
		}
	}
	k.committing = true
	for _, w := range about {
		w.health.committed = time.Now()
	}
	k.commit(&logpb.Command{Body: &logpb.Command_UpdateHoldings{UpdateHoldings: &logpb.UpdateHoldings{Updates: updates}}},
		func(*logpb.Result) { k.committing = false })
}

// difference is the update that brings the state in line with what the worker
// holds, or nil.
func difference(s *fsm.State, w *connection, id uint64) *logpb.HoldingUpdate {
	h, record := w.held[id], s.Holding(id, w.name)
	if s.Model(id) == nil || h.status == logpb.HoldingStatus_HOLDING_STATUS_PENDING {
		return nil
	}
	if record != nil && record.Status == logpb.HoldingStatus_HOLDING_STATUS_FAILED {
		return nil // also when the state found fault with the digest
	}
	if record != nil && record.Status == h.status {
		return nil
	}
	return &logpb.HoldingUpdate{Info: h.info, Holding: &logpb.Holding{
		ModelId: id, Worker: w.name, Incarnation: w.incarnation(),
		Status: h.status, Error: h.err, LoadNs: h.loadNs, Fault: h.fault,
	}}
}

// gone are updates that forget what a worker does not hold and shall not hold
// either, and failures for want of memory that may be tried again.
func (k *coordinator) gone(s *fsm.State, w *connection) (updates []*logpb.HoldingUpdate) {
	for _, record := range k.plan.records[w.name] {
		h := w.held[record.ModelId]
		switch {
		case record.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED:
			if h == nil && !k.plan.wants(w.name, record.ModelId) {
				updates = append(updates, forget(record))
			}
		case record.Fault == logpb.HoldingFault_HOLDING_FAULT_NO_MEMORY && w.due(record.ModelId) && k.fitsNow(s, w, record.ModelId):
			delete(w.held, record.ModelId)
			updates = append(updates, forget(record))
		}
	}
	return updates
}

// fitsNow says whether a worker seems to have the memory for a model.
func (k *coordinator) fitsNow(s *fsm.State, w *connection, id uint64) bool {
	r := k.roomOf(s, w)
	if m := s.Model(id); m.GetInfo() != nil {
		return r.fits(m)
	}
	// Nobody knows how much it needs: when there is more than there was.
	h := w.held[id]
	return h == nil || r.used < h.usedThen
}

// roomOf counts what a worker holds, or is to hold.
func (k *coordinator) roomOf(s *fsm.State, w *connection) *room {
	r := &room{worker: s.Worker(w.name)}
	for _, record := range k.plan.records[w.name] {
		if record.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED {
			r.take(s.Model(record.ModelId))
		}
	}
	return r
}

// forget is the update that removes a holding.
func forget(h *logpb.Holding) *logpb.HoldingUpdate {
	return &logpb.HoldingUpdate{Remove: true, Holding: &logpb.Holding{ModelId: h.ModelId, Worker: h.Worker, Incarnation: h.Incarnation}}
}

// choose places the copies that are missing, and takes back the choice of workers
// that can't load now.
func (k *coordinator) choose(s *fsm.State) (updates []*logpb.HoldingUpdate) {
	for _, record := range s.Workers() {
		w := k.connections[record.Name]
		waits := record.Status == logpb.WorkerStatus_WORKER_STATUS_READY && (w == nil || !w.health.quarantined(time.Now()))
		if waits || w.isRegistered() && w.loading > 0 {
			continue
		}
		for _, h := range k.plan.records[record.Name] {
			if h.Status == logpb.HoldingStatus_HOLDING_STATUS_PENDING {
				updates = append(updates, forget(h))
			}
		}
	}
	if len(k.plan.missing) == 0 {
		return updates
	}
	all := newRooms(s, func(name string) (int, bool) {
		w := k.connections[name]
		if w == nil || !w.inService(s) {
			return 0, false
		}
		return w.session.outstanding(), true
	})
	for name, r := range all {
		r.begun = k.connections[name].begun()
	}
	for _, m := range k.plan.missing {
		for _, w := range all.place(s, m) {
			updates = append(updates, &logpb.HoldingUpdate{Holding: &logpb.Holding{ModelId: m.Id, Worker: w.Name, Incarnation: w.Incarnation}})
		}
	}
	return updates
}

// begun are the models that a worker loads or has loaded.
func (w *connection) begun() map[uint64]bool {
	begun := map[uint64]bool{}
	for id, h := range w.held {
		if h.loading || h.loaded() {
			begun[id] = true
		}
	}
	return begun
}
