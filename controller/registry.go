package controller

import (
	"errors"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// This file keeps the registry: who is in it, and with which status.

// errDeregistered ends the session of a worker that is not in the registry any
// more.
var errDeregistered = errors.New("the worker is not registered any more")

const (
	// registerInterval is the least time between two registrations of one worker.
	registerInterval = 2 * time.Second
	// closedEnough attempts in a row that found the worker's port closed say that
	// its process is gone, and not just silent.
	closedEnough = 2
	// leavePatience is how long a worker that was asked to leave may take to say
	// that it does.
	leavePatience = 5 * time.Second
)

// register commits the registration of a worker's incarnation, and tells the
// worker once it is committed: from then on it executes.
func (k *coordinator) register(s *fsm.State, w *connection) {
	if w.session == nil {
		return
	}
	record, said := s.Worker(w.name), w.report.Worker
	if w.registered && record.GetIncarnation() != said.Incarnation {
		// It was removed, or another one has been registered.
		w.registered = false
		w.session.end(errDeregistered)
		return
	}
	if w.committing || w.left == said.Incarnation {
		return
	}
	if record != nil && record.Incarnation == said.Incarnation && record.Status != logpb.WorkerStatus_WORKER_STATUS_LOST {
		if !w.registered {
			w.registered = true
			w.session.registered(said.Incarnation)
			k.greet(s, w)
		}
		return
	}
	now := time.Now()
	if w.health.quarantined(now) || now.Sub(w.registeredAt) < registerInterval || !w.health.mayCommit(now) || !k.sole(s, w) {
		return
	}
	w.registeredAt = now
	cmd := &logpb.Command{Body: &logpb.Command_RegisterWorker{RegisterWorker: &logpb.RegisterWorker{Worker: said}}}
	k.commitAbout(w, cmd, func(r *logpb.Result) {
		if r == nil {
			return
		}
		if err := refused(r); err != nil {
			k.log.Warn("worker was not registered", "worker", w.name, "error", err)
			return
		}
		clear(k.profiler.failures) // it may have been mended
		k.log.Info("worker registered", "worker", w.name, "incarnation", said.Incarnation, "address", said.SessionAddress)
	})
}

// commitAbout commits a command about one worker; done runs on the loop.
func (k *coordinator) commitAbout(w *connection, cmd *logpb.Command, done func(*logpb.Result)) {
	w.committing, w.health.committed = true, time.Now()
	k.commit(cmd, func(r *logpb.Result) {
		w.committing = false
		done(r)
	})
}

// retire takes a worker that is away out of what is waited for, and at last out
// of the registry: soon when it said that it would go, slowly when nothing is
// known.
func (k *coordinator) retire(s *fsm.State, w *connection) {
	record := s.Worker(w.name)
	if record == nil || w.committing || w.registered || !w.health.mayCommit(time.Now()) {
		return
	}
	t := k.term.c.tunables.Load()
	away, lostAfter := time.Since(w.since), t.LostAfter
	if w.session == nil && w.closedInRow >= closedEnough {
		lostAfter = t.DeadAfter
	}
	draining := record.Status == logpb.WorkerStatus_WORKER_STATUS_DRAINING
	switch {
	case w.left == record.Incarnation && w.session == nil && !keptByOperator(record.Status):
		k.removeWorker(w, record, "it has left")
	case w.session == nil && draining && away > lostAfter:
		k.removeWorker(w, record, "it went away while it drained")
	case away > t.ForgetAfter:
		k.removeWorker(w, record, "it has been away for too long")
	case away > lostAfter && record.Status == logpb.WorkerStatus_WORKER_STATUS_READY:
		cmd := &logpb.Command{Body: &logpb.Command_SetWorkerStatus{SetWorkerStatus: &logpb.SetWorkerStatus{
			Name: w.name, Incarnation: record.Incarnation, Status: logpb.WorkerStatus_WORKER_STATUS_LOST,
		}}}
		k.commitAbout(w, cmd, func(r *logpb.Result) {
			if r != nil && r.Reason == logpb.Reason_REASON_NONE {
				k.log.Warn("worker is lost: its copies are replaced", "worker", w.name, "away", away, "cause", w.problem())
			}
		})
	}
}

// keptByOperator says whether a worker that leaves stays in the registry: what an
// operator has decided about it outlives its restart.
func keptByOperator(s logpb.WorkerStatus) bool {
	return s == logpb.WorkerStatus_WORKER_STATUS_CORDONED || s == logpb.WorkerStatus_WORKER_STATUS_EVICTED
}

func (k *coordinator) removeWorker(w *connection, record *logpb.Worker, why string) {
	cmd := &logpb.Command{Body: &logpb.Command_RemoveWorker{RemoveWorker: &logpb.RemoveWorker{Name: w.name, Incarnation: record.Incarnation}}}
	k.commitAbout(w, cmd, func(r *logpb.Result) {
		if r != nil && r.Reason == logpb.Reason_REASON_NONE {
			k.log.Info("worker removed from the registry", "worker", w.name, "incarnation", record.Incarnation, "why", why)
		}
	})
}

// drain brings a worker that drains further: once others serve what it serves, or
// its time is over, it is asked to leave.
func (k *coordinator) drain(s *fsm.State, w *connection) {
	record := s.Worker(w.name)
	if !w.registered || record.GetStatus() != logpb.WorkerStatus_WORKER_STATUS_DRAINING {
		return
	}
	now := time.Now()
	if w.leaveAsked.IsZero() {
		overdue := record.DrainUntilUnixNs != 0 && now.UnixNano() >= record.DrainUntilUnixNs
		if !overdue && (len(k.toHandOver(s, w)) > 0 || w.session.outstanding() > 0) {
			return
		}
		k.log.Info("worker is drained and asked to leave", "worker", w.name, "deadline_passed", overdue)
		w.leaveAsked = now
		w.session.leave()
		return
	}
	if now.Sub(w.leaveAsked) > leavePatience && !w.committing {
		w.left = record.Incarnation // it hangs, or is of a release that can't be asked
		k.removeWorker(w, record, "it was drained, and does not leave by itself")
	}
}

// toHandOver are the models that a worker serves and nobody else does.
func (k *coordinator) toHandOver(s *fsm.State, w *connection) (ids []uint64) {
	for _, id := range k.holds(w) {
		if m := s.Model(id); m != nil && m.Blame == "" && !k.servedElsewhere(s, w, m) {
			ids = append(ids, id)
		}
	}
	return ids
}

// servedElsewhere says whether another worker in the schedule serves the model.
func (k *coordinator) servedElsewhere(s *fsm.State, w *connection, m *logpb.Model) bool {
	for _, h := range s.Holdings(m.Id) {
		o := k.connections[h.Worker]
		record := s.Worker(h.Worker)
		if o == nil || o == w || !o.up || record.GetStatus() != logpb.WorkerStatus_WORKER_STATUS_READY || !contains(o.upModels, m.Id) {
			continue
		}
		if profiledOn(s, record, m) {
			return true
		}
	}
	return false
}

// strike notes a failure of a worker, which may put it into quarantine, unless
// nobody else is left.
func (k *coordinator) strike(w *connection, reason string) {
	if k.othersServe(w) && w.health.strike(time.Now(), reason) {
		k.quarantined(w)
	}
}

// othersServe says whether another worker is in service.
func (k *coordinator) othersServe(w *connection) bool {
	now := time.Now()
	for _, o := range k.connections {
		if o != w && o.up && !o.health.quarantined(now) {
			return true
		}
	}
	return false
}

// forgive takes back a worker's last strike: it was not its fault.
func (k *coordinator) forgive(name string) {
	if w := k.connections[name]; w != nil {
		w.health.forgive(time.Now())
	}
}

// quarantined is called when a quarantine has begun.
func (k *coordinator) quarantined(w *connection) {
	k.term.c.workerMetrics.quarantines.Inc()
	k.log.Warn("worker keeps failing and gets no work for a while", "worker", w.name, "for", w.health.left(time.Now()), "reason", w.health.reason)
}
