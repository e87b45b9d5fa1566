package scheduler

import (
	"cmp"
	"slices"
	"time"
)

// EDFOptions are the settings of EDF. Zero values mean the defaults.
type EDFOptions struct {
	// ScheduleAhead is how much expected work a device is given in advance; a
	// running and a queued batch are always allowed. A device that is later
	// than this (and than twice what it was to take) gets nothing new.
	// Default 10 ms.
	ScheduleAhead time.Duration
	// NetworkLag is set aside for the way to the worker and back. Default 1 ms.
	NetworkLag time.Duration
	// BestEffortAge is how long after its arrival a request without a
	// deadline ranks as one whose deadline is now. Default 30 s.
	BestEffortAge time.Duration
	// NoWorkerGrace is how long accepted requests wait when the last worker
	// that holds their model has gone. Default 1 s.
	NoWorkerGrace time.Duration
	// OverloadMemory is how long after a request was too late its model
	// counts as overloaded. Default 200 ms.
	OverloadMemory time.Duration
	// BackOff is the first pause before a model is tried again on a device
	// where it failed; it doubles up to MaxBackOff. Defaults 10 ms and 1 s.
	BackOff, MaxBackOff time.Duration
	// ResultGrace: a result is overdue when it is later than expected by this
	// and by three times what the action was to take. Default 400 ms.
	ResultGrace time.Duration
	// SuspectSettle is how long after the death of a worker what may have killed
	// it is not given to another one, and for how long a further death proves
	// nothing: they may have died together. Default 100 ms.
	SuspectSettle time.Duration
}

// EDF is the policy "earliest deadline first": a device that has room takes
// the model whose most urgent request it can still answer in time, and as many
// requests of the same shape class as that deadline allows.
//
// Under overload this alone would be a trap: the most urgent request is then
// always one that is nearly too late and leaves no time for a full batch. So
// while a model misses deadlines, the batch with the most rows a second goes
// first, and the requests in front of it are left to other devices or dropped.
//
// Request.Priority, Request.Tenant and Worker.Speed are not used yet.
type EDF struct {
	options EDFOptions
	now     Instant
	out     *Decisions

	models   map[ModelID]*model
	requests map[RequestID]*request
	actions  map[ActionID]*action
	workers  []*worker // by name
	devices  []*device // of workers, in their order
	active   []*model  // with waiting requests
	warm     []*model  // wanted on a device although nothing waits
	timers   timers
	roomy    rooms // scratch of dispatch

	// overdue is when the first action of a lane can be overdue at the
	// earliest. 0: none is expected.
	overdue Instant
	suspects
	// gone are the models that were removed: weights of theirs that turn out
	// to be on a device have to go, long after their records.
	gone map[ModelID]bool

	lastSeq    uint64
	lastAction ActionID
}

var _ Policy = (*EDF)(nil)

// NewEDF makes a policy that waits for Start.
func NewEDF(options EDFOptions) *EDF {
	options.ScheduleAhead = cmp.Or(options.ScheduleAhead, 10*time.Millisecond)
	options.NetworkLag = cmp.Or(options.NetworkLag, time.Millisecond)
	options.BestEffortAge = cmp.Or(options.BestEffortAge, 30*time.Second)
	options.NoWorkerGrace = cmp.Or(options.NoWorkerGrace, time.Second)
	options.OverloadMemory = cmp.Or(options.OverloadMemory, 200*time.Millisecond)
	options.BackOff = cmp.Or(options.BackOff, 10*time.Millisecond)
	options.MaxBackOff = max(options.BackOff, cmp.Or(options.MaxBackOff, time.Second))
	options.ResultGrace = cmp.Or(options.ResultGrace, 400*time.Millisecond)
	options.SuspectSettle = cmp.Or(options.SuspectSettle, 100*time.Millisecond)
	p := &EDF{
		options:  options,
		models:   make(map[ModelID]*model),
		requests: make(map[RequestID]*request),
		actions:  make(map[ActionID]*action),
		gone:     make(map[ModelID]bool),
	}
	p.lastDeath = -Instant(options.SuspectSettle)
	return p
}

// Step implements Policy.
func (p *EDF) Step(now Instant, events []Event, out *Decisions) {
	p.now, p.out = max(p.now, now), out
	out.Wake = 0
	for _, e := range events {
		p.take(e)
	}
	p.abandonOverdue()
	p.tryOutSuspects()
	p.dispatch()
	p.expire()
	p.settleOrphans()
	p.makeRoom()
	p.placeWeights()
	p.wakeForTime()
	p.out = nil
}

func (p *EDF) take(e Event) {
	switch e := e.(type) {
	case Start:
		p.start(e.State)
	case Submit:
		p.submit(e.Request)
	case Cancel:
		if r := p.requests[e.Request]; r != nil {
			p.complete(r, Completion{Reason: Cancelled})
		}
	case Finished:
		p.finished(e.Result)
	case WorkerUp:
		p.workerUp(e.Worker)
	case WorkerDown:
		p.workerDown(e.Name, e.Died)
	case Reported:
		p.reported(e.Worker)
	case Held:
		p.heldChanged(e.Worker, e.Models)
	case ModelAdded:
		p.modelAdded(e.Model)
	case ModelRemoved:
		p.modelRemoved(e.Model)
	case ModelReplaced:
		p.modelReplaced(e.Old, e.New)
	case ModelBlamed:
		p.modelBlamed(e.Model, e.Blamed)
	case ProfileChanged:
		p.profileChanged(e.Profile)
	case Prefetch:
		p.wantWarm(p.model(e.Model), e.Devices)
	case PolicyChanged: // there is one so far
	case Lend:
		p.lend(e.Worker, e.Device, e.Pages)
	}
}

func (p *EDF) start(s *State) {
	for _, m := range s.Models {
		p.modelAdded(&m)
	}
	for _, f := range s.Profiles {
		p.profileChanged(&f)
	}
	for _, w := range s.Workers {
		p.workerUp(&w)
	}
}

// Handover implements Policy.
func (p *EDF) Handover() []*Request {
	var waiting []*request
	for _, m := range p.active {
		for _, q := range m.queues {
			waiting = append(append(waiting, q.timed...), q.loose...)
		}
		waiting = append(waiting, m.suspects...)
		m.queues, m.suspects, m.waiting, m.rows, m.active, m.orphaned = nil, nil, 0, 0, -1, 0
	}
	p.active = nil
	slices.SortFunc(waiting, func(a, b *request) int { return cmp.Compare(a.seq, b.seq) })
	handed := make([]*Request, len(waiting))
	for i, r := range waiting {
		p.timers.drop(r)
		delete(p.requests, r.ID)
		r.over = true
		handed[i] = r.Request
	}
	return handed
}

// wakeAt asks for a step at t, unless that is not in the future: then only an
// event can change something.
func (p *EDF) wakeAt(t Instant) {
	if t > p.now && (p.out.Wake == 0 || t < p.out.Wake) {
		p.out.Wake = t
	}
}

// wakeForTime asks for the steps that are due when nothing but time passes:
// a request's own instant, room on a device, a device that has become late, a
// result that is overdue.
func (p *EDF) wakeForTime() {
	p.wakeAt(p.overdue)
	if len(p.timers) > 0 {
		p.wakeAt(p.timers[0].when)
	}
	if len(p.active) == 0 && len(p.warm) == 0 {
		return
	}
	ahead := p.options.ScheduleAhead
	for _, d := range p.devices {
		if len(d.execution.actions) > 1 {
			p.wakeAt(d.execution.free(p.now).Add(-ahead))
		}
		p.wakeAt(d.execution.lateAt(ahead))
		p.wakeAt(d.transfer.lateAt(ahead))
	}
}

// act appends an action that the worker is to do.
func (p *EDF) act(pl *place, a *action) {
	p.lastAction++
	a.ID, a.Worker, a.Device, a.Model = p.lastAction, pl.device.worker, pl.device.index, pl.model.ID
	a.Earliest = p.now
	a.place = pl
	p.actions[a.ID] = a
	if a.Kind == Infer {
		pl.device.execution.add(p.now, a)
		p.watch(pl.device)
	} else {
		pl.device.transfer.add(p.now, a)
	}
	p.out.Actions = append(p.out.Actions, a.Action)
}
