package scheduler

import "time"

// core is what all policies have in common: the books of requests, actions,
// devices and their pages; what becomes of requests whose worker is lost, late or
// dead; where weights are wanted. What runs next where is up to a strategy.
//
// It looks only at what an event has changed: a device that has got room (it is
// stirred), or a model that has got a request or a place to run. Between steps no
// device with room has anything that the strategy would run there now. So the cost
// of an event does not grow with the fleet.
type core struct {
	options  Options
	strategy strategy
	now      Instant
	out      *Decisions

	models   map[ModelID]*model
	requests map[RequestID]*request
	actions  map[ActionID]*action
	workers  []*worker // by name
	devices  []*device // of workers, in their order
	active   []*model  // with waiting requests
	keys     []Instant // by slot of the model: how urgent its head is; never: nothing waits
	slots    []int32   // that are free

	kinds bool    // the devices are of several kinds
	slow  Instant // when a device was last slower than its kind; 0: never

	attention
	weights
	suspects
	// overdue is when the first action of a lane can be overdue at the
	// earliest. 0: none is expected.
	overdue Instant
	// gone are the models that were removed: weights of theirs that turn out
	// to be on a device have to go, long after their records.
	gone map[ModelID]bool

	lastMiss Instant // when a request was last too late, or given up; 0: never
	// leastLag is the shortest of the workers' lags, until lagFresh.
	leastLag time.Duration
	lagFresh Instant

	lastSeq     uint64
	lastAction  ActionID
	requestPool []request
	idPool      []RequestID
}

// attention is what has to be looked at, in this step or when an alarm rings.
type attention struct {
	alarms   alarms
	roomy    bitset    // devices, by order, that have room
	declined bitset    // scratch: devices that run nothing of what is offered
	stirred  []*device // with room, and not looked at since
	moved    []*model  // may run where they could not before
	changed  struct {  // whose alarms have to be set
		models  []*model
		devices []*device
	}
	unfit  []*device // may no longer run what is bound to them
	ripe   []*model  // whose alarm has rung in this step
	paused []*place  // whose back-off ends
}

// strategy is what policies differ in. It decides on the books of the core, and
// leaves changing them to it.
type strategy interface {
	// admit judges a request that could be answered in time if nothing else had to
	// be done. It may rank it, and bind it to a device. ok: it may wait; else how it
	// ends.
	admit(p *core, r *request) (end Completion, ok bool)
	// choose is what a device that has room runs next; no rows: nothing now. When
	// time alone will change that, it says so by reconsider.
	choose(p *core, d *device) (*place, batch)
	// spreads says that free pages are used for further copies of what is in demand.
	spreads() bool
	// sent is told of each batch.
	sent(p *core, a *action)
}

var _ Policy = (*core)(nil)

func newCore(options Options, s strategy) *core {
	options = options.withDefaults()
	p := &core{
		options:  options,
		strategy: s,
		models:   make(map[ModelID]*model),
		requests: make(map[RequestID]*request),
		actions:  make(map[ActionID]*action),
		gone:     make(map[ModelID]bool),
	}
	p.lastDeath = -Instant(options.SuspectSettle)
	return p
}

// Step implements Policy.
func (p *core) Step(now Instant, events []Event, out *Decisions) {
	p.now, p.out = max(p.now, now), out
	out.Wake = 0
	for _, e := range events {
		p.take(e)
	}
	p.ring()
	p.abandonOverdue()
	p.tryOutSuspects()
	p.rebind()
	p.dispatch()
	p.ripen()
	p.makeRoom()
	p.placeWeights()
	if p.rebind() { // from weights that were evicted
		p.dispatch()
	}
	p.setAlarms()
	p.out = nil
}

func (p *core) take(e Event) {
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
		p.workersUp(e.Worker)
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
	case PolicyChanged:
		p.changePolicy(e.Policy)
	case Lend:
		p.lend(e.Worker, e.Device, e.Pages)
	}
}

func (p *core) start(s *State) {
	for _, m := range s.Models {
		p.modelAdded(&m)
	}
	for _, f := range s.Profiles {
		p.profileChanged(&f)
	}
	workers := make([]*Worker, len(s.Workers))
	for i := range s.Workers {
		workers[i] = &s.Workers[i]
	}
	p.workersUp(workers...)
}

// wakeAt asks for a step at t, unless that is not in the future: then only an
// event can change something.
func (p *core) wakeAt(t Instant) {
	if t > p.now && (p.out.Wake == 0 || t < p.out.Wake) {
		p.out.Wake = t
	}
}

// act appends an action that the worker is to do.
func (p *core) act(pl *place, a *action) {
	p.lastAction++
	a.ID, a.Worker, a.Device, a.Model = p.lastAction, pl.device.worker, pl.device.index, pl.model.ID
	a.Earliest = p.now
	a.place = pl
	p.actions[a.ID] = a
	if a.Kind == Infer {
		pl.device.execution.add(p.now, a, &pl.device.host.trip)
		p.watch(pl.device)
	} else {
		pl.device.transfer.add(p.now, a, &pl.device.host.trip)
	}
	p.touch(pl.device)
	p.out.Actions = append(p.out.Actions, a.Action)
}
