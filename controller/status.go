package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
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

// modelStatus is all that is known of a model.
func modelStatus(s *fsm.State, m *logpb.Model, live liveWorkers) *controlpb.ModelStatus {
	o := obstacleTo(s, m, live)
	copies := copiesOf(s, m)
	for _, c := range copies {
		if why := idle(s.Worker(c.Worker), live); why != "" && c.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED {
			c.Error = "the worker " + why
		}
	}
	return &controlpb.ModelStatus{
		Model: m, Copies: copies, Profiles: s.ProfilesOf(m), Code: string(o.code), Reason: o.reason, Advice: o.advice,
	}
}

// settled says whether every worker that shall hold the model has loaded it or
// failed to. With no worker at all a load waits for one.
func settled(s *fsm.State, m *logpb.Model) bool {
	copies := copiesOf(s, m)
	if len(copies) == 0 && s.Missing(m) == 0 {
		return readyWorkers(s) > 0
	}
	return count(copies, logpb.HoldingStatus_HOLDING_STATUS_PENDING) == 0 && s.Missing(m) == 0
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
		k.term.c.options.Replica.Read(func(s *fsm.State) {
			r.Startup = k.startup.status(s)
			for _, name := range slices.Sorted(maps.Keys(k.connections)) {
				r.Workers = append(r.Workers, k.connections[name].live(modelNames(s)))
			}
		})
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

// live is what the leader knows of one worker. names are those of models.
func (w *connection) live(names func(id uint64) string) *controlpb.WorkerLive {
	now := time.Now()
	l := &controlpb.WorkerLive{Name: w.name, Error: w.problem(), Twin: w.twins.refused, OnTrial: w.health.onTrial(now)}
	if left := w.health.left(now); left > 0 {
		l.QuarantinedNs, l.QuarantineReason = int64(left), w.health.reason
	}
	if w.report != nil {
		l.Incarnation = w.incarnation()
	}
	if w.session == nil {
		return l
	}
	v := w.session.vitals()
	l.Connected, l.LastHeartbeatAgoNs, l.QueueLength = true, int64(v.heardAgo), v.beat.Queued
	l.ClockOffsetNs, l.RoundTripNs = int64(v.offset), int64(v.roundTrip)
	l.FreePages, l.Repairs, l.Leaving = uint64(v.beat.FreePages), w.repairs, v.leaving
	beats := map[uint32]*sessionpb.DeviceBeat{}
	for _, b := range v.beat.Devices {
		beats[b.Index] = b
	}
	for _, d := range w.report.Worker.GetDevices() {
		l.Pages += uint64(d.Pages)
		b := beats[d.Index]
		device := &controlpb.DeviceLive{
			Index: d.Index, Kind: d.Kind, Pages: d.Pages, FreePages: b.GetFreePages(), Queued: b.GetQueued(), ExecutingNs: b.GetExecutingNs(),
		}
		if id := b.GetExecutingModel(); id != 0 {
			device.Executing = names(id)
		}
		for _, id := range v.resident[d.Index] {
			device.Resident = append(device.Resident, names(id))
		}
		slices.Sort(device.Resident)
		l.Devices = append(l.Devices, device)
	}
	return l
}

// modelNames tells models of the state by their ids.
func modelNames(s *fsm.State) func(id uint64) string {
	return func(id uint64) string {
		m := s.Model(id)
		if m == nil {
			return fmt.Sprintf("model %d, which was unloaded", id)
		}
		return m.Name
	}
}

// showInterval is how old the view of the workers may become that others than the
// coordinator have.
const showInterval = 100 * time.Millisecond

// showWorkers lets others see who is connected, for the messages that say why
// nobody serves a model. It leaves out what takes long to gather.
func (k *coordinator) showWorkers() {
	now := time.Now()
	if now.Sub(k.shown) < showInterval {
		return
	}
	k.shown = now
	view := liveWorkers{}
	for name, w := range k.connections {
		l := &controlpb.WorkerLive{Name: name, Connected: w.session != nil, Leaving: w.report != nil && w.left == w.incarnation()}
		if left := w.health.left(now); left > 0 {
			l.QuarantinedNs, l.QuarantineReason = int64(left), w.health.reason
		}
		view[name] = l
	}
	k.view.Store(&view)
}

// workers is the view; nil before the first.
func (k *coordinator) workers() liveWorkers {
	if view := k.view.Load(); view != nil {
		return *view
	}
	return nil
}

// workerState is the one word for what a worker does.
func workerState(w *logpb.Worker, live liveWorkers) string {
	switch w.Status {
	case logpb.WorkerStatus_WORKER_STATUS_CORDONED:
		return "cordoned"
	case logpb.WorkerStatus_WORKER_STATUS_DRAINING:
		return "draining"
	case logpb.WorkerStatus_WORKER_STATUS_LOST:
		return "lost"
	case logpb.WorkerStatus_WORKER_STATUS_EVICTED:
		return "evicted"
	}
	l := live[w.Name]
	switch {
	case live == nil:
		return "ready"
	case l.GetQuarantinedNs() > 0:
		return "quarantined"
	case !l.GetConnected():
		return "away"
	}
	return "ready"
}
