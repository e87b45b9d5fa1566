package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// copiesOf is a model's part on each of its workers: those that shall hold it,
// and those that do all the same.
func copiesOf(s *fsm.State, m *logpb.Model) []*controlpb.Copy {
	copies := map[string]*controlpb.Copy{}
	for _, w := range s.Targets(m) {
		copies[w.Name] = &controlpb.Copy{Worker: w.Name, Status: logpb.HoldingStatus_HOLDING_STATUS_PENDING}
	}
	for _, h := range s.Holdings(m.Id) {
		copies[h.Worker] = &controlpb.Copy{Worker: h.Worker, Status: h.Status, Error: h.Error, LoadNs: h.LoadNs}
	}
	out := make([]*controlpb.Copy, 0, len(copies))
	for _, name := range slices.Sorted(maps.Keys(copies)) {
		out = append(out, copies[name])
	}
	return out
}

// count is how many copies have a status.
func count(copies []*controlpb.Copy, status logpb.HoldingStatus) (n uint32) {
	for _, c := range copies {
		if c.Status == status {
			n++
		}
	}
	return n
}

// modelStatus is all that the replicated state knows of a model.
func modelStatus(s *fsm.State, m *logpb.Model) *controlpb.ModelStatus {
	status := &controlpb.ModelStatus{Model: m, Copies: copiesOf(s, m), Profiles: s.ProfilesOf(m)}
	status.Reason, status.Advice = whyNotServed(s, m)
	return status
}

// whyNotServed says why the model can't be served, and what would help. Empty:
// as far as the replicated state knows it can.
func whyNotServed(s *fsm.State, m *logpb.Model) (reason, advice string) {
	copies := copiesOf(s, m)
	loaded := count(copies, logpb.HoldingStatus_HOLDING_STATUS_LOADED)
	pending := count(copies, logpb.HoldingStatus_HOLDING_STATUS_PENDING)
	switch {
	case len(s.Workers()) == 0:
		return "no worker is registered", "start one: `orrery workerd --config worker.yaml`"
	case len(copies) == 0:
		return "no registered worker is ready, has an engine for it and the labels that it asks for",
			"see `orrery worker list`"
	case loaded == 0 && pending > 0:
		return fmt.Sprintf("%d of the workers that shall hold it have not loaded it yet", pending),
			"wait, or see `orrery worker list` for workers that are away"
	case loaded == 0:
		return "no worker could load it: " + copies[0].Error, "mend the cause, then unload and load it again"
	case len(s.ProfilesOf(m)) == 0:
		return "it has not been profiled yet", "wait until the cluster serves"
	}
	return "", ""
}

// settled says whether every worker that shall hold the model has loaded it or
// failed to. With no worker at all a load waits for one.
func settled(s *fsm.State, m *logpb.Model) bool {
	copies := copiesOf(s, m)
	if len(copies) == 0 {
		return readyWorkers(s) > 0
	}
	return count(copies, logpb.HoldingStatus_HOLDING_STATUS_PENDING) == 0
}

func readyWorkers(s *fsm.State) (n int) {
	for _, w := range s.Workers() {
		if w.Status == logpb.WorkerStatus_WORKER_STATUS_READY {
			n++
		}
	}
	return n
}

// cluster is the cluster's record as this replica has it.
func (c *Controller) cluster() (record *logpb.Cluster) {
	c.options.Replica.Read(func(s *fsm.State) { record = s.Cluster() })
	return record
}

// live is what the leader knows and the log does not.
func (k *coordinator) live(ctx context.Context) (*peerpb.LiveResponse, error) {
	answer := make(chan *peerpb.LiveResponse, 1)
	if !k.mailbox.post(func() {
		r := &peerpb.LiveResponse{}
		for _, name := range slices.Sorted(maps.Keys(k.connections)) {
			r.Workers = append(r.Workers, k.connections[name].live())
		}
		k.term.c.options.Replica.Read(func(s *fsm.State) { r.Startup = k.startup.status(s) })
		answer <- r
	}) {
		return nil, errs.New(errs.NotLeader, "%s does not lead any more", k.term.c.options.Name)
	}
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// live is what the leader knows of one worker.
func (w *connection) live() *controlpb.WorkerLive {
	l := &controlpb.WorkerLive{Name: w.name, Error: w.problem()}
	if w.report != nil {
		l.Incarnation = w.report.Worker.GetIncarnation()
	}
	if w.session == nil {
		return l
	}
	v := w.session.vitals()
	l.Connected, l.LastHeartbeatAgoNs, l.QueueLength = true, int64(v.heardAgo), v.queued
	l.ClockOffsetNs, l.RoundTripNs = int64(v.offset), int64(v.roundTrip)
	l.FreePages = uint64(v.freePages)
	for _, d := range w.report.Worker.GetDevices() {
		l.Pages += uint64(d.Pages)
	}
	return l
}
