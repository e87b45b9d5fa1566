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

// This file is what the leader shows of its workers.

// live is what the leader knows and the log does not.
func (k *coordinator) live(ctx context.Context) (*peerpb.LiveResponse, error) {
	answer := make(chan *peerpb.LiveResponse, 1)
	if !k.mailbox.ask(func() {
		r := &peerpb.LiveResponse{Policy: k.term.policy.Load().used}
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
		device.ResidentIds = slices.Sorted(slices.Values(v.resident[d.Index]))
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
		l.OnTrial = w.health.onTrial(now)
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
	case l.Leaving:
		return "leaving"
	case l.OnTrial:
		return "trial"
	}
	return "ready"
}
