package controller

import (
	"time"

	"github.com/orrery-project/orrery/controller/startup"
	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// startupDriver joins the startup machine to the replicated state: it tells
// the machine what has changed, and does what the machine asks for.
type startupDriver struct {
	k       *coordinator
	machine *startup.Machine
	epoch   time.Time
	// queried has been told to the machine.
	queried bool
	// What the machine has been told last.
	lastModelID uint64
	loads       startup.LoadProgress
	// enters counts the changes of phase that were asked for; entering is the
	// one of them whose commit the machine waits for, 0 when it waits for none.
	enters, entering int
}

func newStartupDriver(k *coordinator, s *fsm.State) *startupDriver {
	d := &startupDriver{k: k, epoch: time.Now(), lastModelID: s.LastModelID()}
	machine, effects := startup.New(startup.Options{LoadIdle: k.term.c.tunables.Load().LoadIdle}, machinePhase(s.Phase()), 0)
	d.machine = machine
	d.apply(s, effects)
	return d
}

// machinePhase and logPhase: the machine counts phases from 1, the log from 0.
func machinePhase(p logpb.Phase) startup.Phase { return startup.Phase(p) + startup.Querying }
func logPhase(p startup.Phase) logpb.Phase     { return logpb.Phase(p - startup.Querying) }

// step tells the machine what has changed.
func (d *startupDriver) step(s *fsm.State) {
	if phase := machinePhase(s.Phase()); phase != d.machine.Phase() {
		d.k.log.Info("startup", "phase", phase)
		d.entering = 0
		d.event(s, startup.PhaseCommitted{Phase: phase})
	}
	if !d.queried && d.asked(s) {
		d.queried = true
		d.event(s, startup.WorkersQueried{})
	}
	if last := s.LastModelID(); last != d.lastModelID {
		d.lastModelID = last
		d.event(s, startup.LoadRequested{})
	}
	if loads := (startup.LoadProgress{Models: len(s.Models()), Pending: pendingLoads(s)}); loads != d.loads {
		d.loads = loads
		d.event(s, loads)
	}
	d.event(s, startup.ProfileProgress{Wanted: d.k.profiler.wanted, Done: d.k.profiler.done})
	d.event(s, startup.Tick{})
}

func (d *startupDriver) event(s *fsm.State, e startup.Event) {
	d.apply(s, d.machine.Step(e, time.Since(d.epoch)))
}

// apply does what the machine asks for. Its Wake is not needed: the
// coordinator looks several times a second.
func (d *startupDriver) apply(s *fsm.State, effects []startup.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case startup.Enter:
			d.enter(s, e)
		case startup.Profile:
			d.k.profiler.enabled = true
		case startup.Serve:
			d.k.profiler.enabled = true // of kinds of device that come later
			d.k.feed.serving = true
		}
	}
}

// enter commits a change of phase. It is refused when a load has slipped in.
func (d *startupDriver) enter(s *fsm.State, e startup.Enter) {
	d.enters++
	id := d.enters
	d.entering = id
	cmd := &logpb.Command{Body: &logpb.Command_SetPhase{SetPhase: &logpb.SetPhase{
		From: logPhase(e.From), To: logPhase(e.To), LastModelId: s.LastModelID(),
	}}}
	d.k.commit(cmd, func(r *logpb.Result) {
		committed := r != nil && r.Reason == logpb.Reason_REASON_NONE
		d.k.term.c.options.Replica.Read(func(s *fsm.State) {
			if committed {
				d.step(s)
			}
			if d.entering != id {
				return // the machine has seen the new phase
			}
			// Either it was refused, or a load that was admitted right after it
			// has taken the phase back before anybody looked.
			d.entering = 0
			d.event(s, startup.EnterRefused{})
		})
	})
}

// asked says whether every registered worker has said what it has, or could
// not be reached.
func (d *startupDriver) asked(s *fsm.State) bool {
	for _, record := range s.Workers() {
		if w := d.k.connections[record.Name]; w == nil || !w.answered {
			return false
		}
	}
	return true
}

// pendingLoads counts copies that are wanted and whose worker has not
// answered; a model waits also when there is no worker at all.
func pendingLoads(s *fsm.State) int {
	pending := s.Pending()
	if readyWorkers(s) == 0 {
		pending += len(s.Models())
	}
	return pending
}

// status is the startup as users see it.
func (d *startupDriver) status(s *fsm.State) *controlpb.StartupStatus {
	status := &controlpb.StartupStatus{
		Phase: logPhase(d.machine.Phase()), CountdownNs: -1, WaitingFor: d.machine.WaitingFor(),
		Models: progress(s), Workers: uint32(readyWorkers(s)),
	}
	if readyWorkers(s) == 0 && !s.Serving() {
		status.WaitingFor = "a worker to join"
	}
	if left, running := d.machine.Countdown(time.Since(d.epoch)); running {
		status.CountdownNs = int64(left.Round(time.Second))
	}
	return status
}

// progress is how far each model has come.
func progress(s *fsm.State) []*controlpb.ModelProgress {
	var out []*controlpb.ModelProgress
	for _, m := range s.Models() {
		copies := copiesOf(s, m)
		kinds := map[string]bool{}
		for _, h := range s.Holdings(m.Id) {
			if h.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
				for _, d := range s.Worker(h.Worker).GetDevices() {
					kinds[d.Kind] = true
				}
			}
		}
		out = append(out, &controlpb.ModelProgress{
			Name: m.Name, Version: m.Version, Copies: uint32(len(copies)),
			Pending:        count(copies, logpb.HoldingStatus_HOLDING_STATUS_PENDING),
			Loaded:         count(copies, logpb.HoldingStatus_HOLDING_STATUS_LOADED),
			Failed:         count(copies, logpb.HoldingStatus_HOLDING_STATUS_FAILED),
			ProfilesWanted: uint32(len(kinds)), ProfilesDone: uint32(len(s.ProfilesOf(m))),
		})
	}
	return out
}
