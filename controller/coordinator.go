package controller

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

const (
	// registerInterval bounds the log entries that one worker can cause: one in
	// a crash loop is registered this often at most.
	registerInterval = time.Second
	// coordinatorTick is how often what depends on time alone is looked at.
	coordinatorTick = 100 * time.Millisecond
	// actionRetry is the pause after a load, an unload or a measurement that a
	// worker has put off.
	actionRetry = 200 * time.Millisecond
	// commitRetry is the pause after a command that could not be committed.
	commitRetry = 100 * time.Millisecond
)

// coordinator makes the actual follow the wanted: it keeps a session to every
// worker, registers them, has models loaded and measured, drives the startup,
// and tells the dispatcher what it may use.
//
// It is level-triggered. Whenever something may have changed it compares what
// the replicated state says with what the workers say, and does what is
// missing; so there is nothing to recover when a leader takes over in the
// middle.
type coordinator struct {
	term    *term
	log     hclog.Logger
	mailbox *mailbox
	wait    sync.WaitGroup
	ctx     context.Context

	// The rest belongs to the loop.
	began       time.Time
	connections map[string]*connection
	startup     *startupDriver
	feed        feed
	profiler    profiler
	// committing says that holdings are being committed.
	committing bool
}

func newCoordinator(t *term, log hclog.Logger) *coordinator {
	k := &coordinator{term: t, log: log, mailbox: newMailbox(), connections: map[string]*connection{}, began: time.Now()}
	k.feed = newFeed(k)
	k.profiler = newProfiler(k)
	return k
}

// run is the loop. It returns when all that it started has ended.
func (k *coordinator) run(ctx context.Context) {
	k.ctx = ctx
	defer k.wait.Wait()
	defer k.mailbox.close()
	ticker := time.NewTicker(coordinatorTick)
	defer ticker.Stop()
	replica := k.term.c.options.Replica
	replica.Read(func(s *fsm.State) { k.startup = newStartupDriver(k, s) })
	for {
		changed, members := replica.Changed(fsm.All), k.term.c.options.Gossip.Changed()
		replica.Read(k.reconcile)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-members:
		case <-ticker.C:
		case <-k.mailbox.ready:
		}
		k.mailbox.run()
	}
}

// reconcile does what is missing. It holds the state's read lock, and so must
// not wait for anything; commands are committed by goroutines.
func (k *coordinator) reconcile(s *fsm.State) {
	k.meet(s)
	for _, name := range slices.Sorted(maps.Keys(k.connections)) {
		w := k.connections[name]
		k.register(s, w)
		k.retire(s, w)
		if w.registered {
			k.load(s, w)
		}
	}
	k.commitHoldings(s)
	k.profiler.step(s)
	k.startup.step(s)
	k.feed.step(s)
}

// meet keeps a connection to everybody who is registered or in the gossip.
func (k *coordinator) meet(s *fsm.State) {
	addresses := map[string][]string{}
	add := func(name, address string) {
		if !slices.Contains(addresses[name], address) {
			addresses[name] = append(addresses[name], address)
		}
	}
	for _, m := range k.term.c.options.Gossip.Members() {
		if m.Role == "worker" {
			add(m.Name, m.Session)
		}
	}
	for _, w := range s.Workers() {
		add(w.Name, w.SessionAddress)
	}
	for name, known := range addresses {
		w := k.connections[name]
		if w == nil {
			ctx, cancel := context.WithCancel(k.ctx)
			w = &connection{name: name, cancel: cancel, addresses: known, since: time.Now()}
			k.connections[name] = w
			k.wait.Go(func() { k.keepConnected(ctx, w) })
		}
		w.setAddresses(known)
	}
	for name, w := range k.connections {
		if addresses[name] == nil && w.session == nil {
			w.cancel()
			delete(k.connections, name)
		}
	}
}

// commit commits a command on a goroutine of its own, then runs done on the
// loop, after a pause if that had no effect: the loop may ask for the same again
// at once. The result is nil when it was not committed, or nobody knows.
func (k *coordinator) commit(cmd *logpb.Command, done func(*logpb.Result)) {
	k.wait.Go(func() {
		result, err := k.term.c.propose(k.ctx, command(cmd))
		if err != nil {
			result = nil
		}
		if err != nil || result.Reason != logpb.Reason_REASON_NONE {
			_ = pause(k.ctx, commitRetry)
		}
		k.mailbox.post(func() { done(result) })
	})
}

// register commits the registration of a worker's incarnation, and tells the
// worker once it is committed: from then on it executes.
func (k *coordinator) register(s *fsm.State, w *connection) {
	if w.session == nil || w.committing {
		return
	}
	record, said := s.Worker(w.name), w.report.Worker
	if record != nil && record.Incarnation == said.Incarnation && record.Status != logpb.WorkerStatus_WORKER_STATUS_LOST {
		if !w.registered {
			w.registered = true
			w.session.registered(said.Incarnation)
		}
		return
	}
	if time.Since(w.registeredAt) < registerInterval {
		return
	}
	w.committing, w.registeredAt = true, time.Now()
	k.commit(&logpb.Command{Body: &logpb.Command_RegisterWorker{RegisterWorker: &logpb.RegisterWorker{Worker: said}}},
		func(r *logpb.Result) {
			w.committing = false
			if r == nil {
				return
			}
			if err := refused(r); err != nil {
				k.log.Warn("worker was not registered", "worker", w.name, "error", err)
				return
			}
			k.log.Info("worker registered", "worker", w.name, "incarnation", said.Incarnation)
		})
}

// retire takes a worker that has been away for long out of what is waited for,
// and at last out of the registry.
func (k *coordinator) retire(s *fsm.State, w *connection) {
	record := s.Worker(w.name)
	if w.session != nil || w.committing || record == nil {
		return
	}
	t := k.term.c.tunables.Load()
	away := time.Since(w.since)
	lost := record.Status == logpb.WorkerStatus_WORKER_STATUS_LOST
	var cmd *logpb.Command
	switch {
	case away > t.ForgetAfter:
		cmd = &logpb.Command{Body: &logpb.Command_RemoveWorker{RemoveWorker: &logpb.RemoveWorker{Name: w.name, Incarnation: record.Incarnation}}}
	case away > t.LostAfter && !lost:
		cmd = &logpb.Command{Body: &logpb.Command_SetWorkerStatus{SetWorkerStatus: &logpb.SetWorkerStatus{
			Name: w.name, Incarnation: record.Incarnation, Status: logpb.WorkerStatus_WORKER_STATUS_LOST,
		}}}
	default:
		return
	}
	w.committing = true
	k.commit(cmd, func(r *logpb.Result) {
		w.committing = false
		if r.GetReason() == logpb.Reason_REASON_NONE && r != nil {
			k.log.Warn("worker is away", "worker", w.name, "for", away, "forgotten", cmd.GetRemoveWorker() != nil)
		}
	})
}

// load has the worker load what it shall hold, and unload what nobody wants.
func (k *coordinator) load(s *fsm.State, w *connection) {
	limit := k.term.c.tunables.Load().LoadsPerWorker
	for _, m := range s.Models() {
		if w.loading >= limit {
			break
		}
		if w.held[m.Id] == nil && w.due(m.Id) && targeted(s, m, w.name) {
			k.loadModel(w, m)
		}
	}
	for id, h := range w.held {
		if s.Model(id) == nil && w.due(id) && h.status != logpb.HoldingStatus_HOLDING_STATUS_PENDING {
			k.unloadModel(w, id, h)
		}
	}
}

// due says whether a load or unload may be tried now; putOff puts it off.
func (w *connection) due(id uint64) bool { return !time.Now().Before(w.notBefore[id]) }
func (w *connection) putOff(id uint64)   { w.notBefore[id] = time.Now().Add(actionRetry) }

// targeted says whether the worker shall hold the model and has not failed to.
func targeted(s *fsm.State, m *logpb.Model, worker string) bool {
	if h := s.Holding(m.Id, worker); h.GetStatus() == logpb.HoldingStatus_HOLDING_STATUS_FAILED {
		return false
	}
	return slices.ContainsFunc(s.Targets(m), func(t *logpb.Worker) bool { return t.Name == worker })
}

func (k *coordinator) loadModel(w *connection, m *logpb.Model) {
	h := &held{status: logpb.HoldingStatus_HOLDING_STATUS_PENDING}
	w.held[m.Id] = h
	w.loading++
	s, began := w.session, time.Now()
	action := &sessionpb.Action{ModelId: m.Id, Body: &sessionpb.Action_LoadModel{LoadModel: &sessionpb.LoadModel{
		Source: m.Source, Engine: m.Engine, Digest: m.Info.GetDigest(), Name: m.Name, Version: m.Version,
	}}}
	s.do(action, func(r *sessionpb.Result) {
		k.mailbox.post(func() {
			if r == nil || w.session != s {
				return
			}
			w.loading--
			if passingLoad(r.Code) {
				delete(w.held, m.Id)
				w.putOff(m.Id)
				return
			}
			h.loadNs = int64(time.Since(began))
			if r.Code == sessionpb.ResultCode_RESULT_CODE_OK {
				h.status, h.info = logpb.HoldingStatus_HOLDING_STATUS_LOADED, r.Info
				return
			}
			h.status, h.err = logpb.HoldingStatus_HOLDING_STATUS_FAILED, r.Message
			k.log.Warn("a worker could not load a model", "worker", w.name, "model", m.Name, "code", r.Code, "message", r.Message)
		})
	})
}

// passingLoad says whether a load failed for a reason that is not the model's.
func passingLoad(c sessionpb.ResultCode) bool {
	switch c {
	case sessionpb.ResultCode_RESULT_CODE_NOT_REGISTERED, sessionpb.ResultCode_RESULT_CODE_STALE,
		sessionpb.ResultCode_RESULT_CODE_SHUTTING_DOWN, sessionpb.ResultCode_RESULT_CODE_CANCELLED:
		return true
	default:
		return false
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

// commitHoldings commits, in one entry, all differences between what workers
// hold and what the state says that they hold.
func (k *coordinator) commitHoldings(s *fsm.State) {
	if k.committing {
		return
	}
	var updates []*logpb.HoldingUpdate
	for _, name := range slices.Sorted(maps.Keys(k.connections)) {
		w := k.connections[name]
		if !w.registered {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(w.held)) {
			if u := difference(s, w, id); u != nil {
				updates = append(updates, u)
			}
		}
	}
	if len(updates) == 0 {
		return
	}
	k.committing = true
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
		ModelId: id, Worker: w.name, Incarnation: w.report.Worker.Incarnation,
		Status: h.status, Error: h.err, LoadNs: h.loadNs,
	}}
}

// problem is what a worker list says of a worker without a session.
func (w *connection) problem() string {
	if w.session != nil {
		return ""
	}
	if w.err != nil {
		return w.err.Error()
	}
	return "not connected yet"
}
