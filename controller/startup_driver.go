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
	// shown is the last status, as of shownAt. It is never modified.
	shown   *controlpb.StartupStatus
	shownAt time.Time
}

func newStartupDriver(k *coordinator, s *fsm.State) *startupDriver {
	d := &startupDriver{k: k, epoch: time.Now(), lastModelID: s.LastModelID()}
	machine, effects := startup.New(startup.Options{LoadIdle: k.term.c.tunables.Load().LoadIdle}, machinePhase(s.Phase()), s.Serving(), 0)
	d.machine = machine
	d.apply(s, effects)
	return d
}

// machinePhase and logPhase: the machine counts phases from 1, the log from 0.
func machinePhase(p logpb.Phase) startup.Phase { return startup.Phase(p) + startup.Querying }
func logPhase(p startup.Phase) logpb.Phase     { return logpb.Phase(p - startup.Querying) }

// step tells the machine what has changed. The profiler has counted over the same
// state.
func (d *startupDriver) step(s *fsm.State) {
	d.lookAtPhase(s)
	if !d.queried && d.asked(s) {
		d.queried = true
		d.event(s, startup.WorkersQueried{})
	}
	if last := s.LastModelID(); last != d.lastModelID {
		d.lastModelID = last
		d.event(s, startup.LoadRequested{})
	}
	if loads := (startup.LoadProgress{Pending: pendingLoads(s)}); loads != d.loads {
		d.loads = loads
		d.event(s, loads)
	}
	d.event(s, startup.ProfileProgress{Wanted: d.k.profiler.wanted, Done: d.k.profiler.done})
	d.event(s, startup.Tick{})
}

// lookAtPhase tells the machine when the log has changed the phase.
func (d *startupDriver) lookAtPhase(s *fsm.State) {
	if phase := machinePhase(s.Phase()); phase != d.machine.Phase() {
		d.k.log.Info("startup", "phase", phase)
		d.entering = 0
		d.event(s, startup.PhaseCommitted{Phase: phase})
	}
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
				d.lookAtPhase(s)
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

// status is the startup as users see it. With a thousand models it takes ten
// milliseconds to gather, so those who watch share one for a moment.
func (d *startupDriver) status(s *fsm.State) *controlpb.StartupStatus {
	if d.shown != nil && d.shown.Phase == s.Phase() && time.Since(d.shownAt) < showInterval {
		return d.shown
	}
	d.shown, d.shownAt = d.gather(s), time.Now()
	return d.shown
}

func (d *startupDriver) gather(s *fsm.State) *controlpb.StartupStatus {
	status := startupStatus(s, &d.k.profiler)
	status.WaitingFor, status.LoadIdleNs = d.machine.WaitingFor(), int64(d.k.term.c.tunables.Load().LoadIdle)
	if readyWorkers(s) == 0 && !s.Serving() {
		status.WaitingFor = "a worker to join"
	}
	if left, running := d.machine.Countdown(time.Since(d.epoch)); running {
		status.CountdownNs = int64(left.Round(time.Second))
	}
	return status
}

// startupStatus is what the state tells of the startup, and the leader's profiler,
// if there is one.
func startupStatus(s *fsm.State, p *profiler) *controlpb.StartupStatus {
	status := &controlpb.StartupStatus{
		Phase: s.Phase(), CountdownNs: -1, Workers: uint32(readyWorkers(s)), Serving: s.Serving(),
		AdmitsLoads: s.Phase() != logpb.Phase_PHASE_SERVING || s.Cluster().GetSettings().GetLateLoads() == logpb.Settings_LATE_LOADS_ADMIT,
	}
	for _, m := range s.Models() {
		status.Models = append(status.Models, progress(s, p, m))
	}
	return status
}

// progress is how far a model has come.
func progress(s *fsm.State, p *profiler, m *logpb.Model) *controlpb.ModelProgress {
	copies := copiesOf(s, m)
	out := &controlpb.ModelProgress{
		Name: m.Name, Version: m.Version, Copies: uint32(len(copies)),
		Pending: count(copies, logpb.HoldingStatus_HOLDING_STATUS_PENDING),
		Loaded:  count(copies, logpb.HoldingStatus_HOLDING_STATUS_LOADED),
		Failed:  count(copies, logpb.HoldingStatus_HOLDING_STATUS_FAILED),
	}
	if m.Info == nil {
		return out
	}
	for _, v := range variantsOf(s, m) {
		key := profileKeyOf(m, v)
		out.ProfilesWanted++
		switch {
		case len(lacking(s.Profile(key.proto()), profileRows(m))) == 0:
			out.ProfilesDone++
		case p != nil && p.failures.final(key):
			out.ProfilesFailed++
		case p != nil && p.inHand[key] == m.Id:
			out.Profiling = true
		}
	}
	return out
}

// awaited says, for a person, what the startup waits for as far as a replica knows
// that does not lead.
func awaited(s *fsm.State, idle time.Duration) string {
	if readyWorkers(s) == 0 {
		return "a worker to join"
	}
	m, _ := startup.New(startup.Options{LoadIdle: idle}, machinePhase(s.Phase()), false, 0)
	m.Step(startup.LoadProgress{Pending: pendingLoads(s)}, 0)
	wanted, done := 0, 0
	for _, model := range s.Models() {
		p := progress(s, nil, model)
		wanted, done = wanted+int(p.ProfilesWanted), done+int(p.ProfilesDone)
	}
	if done < wanted { // or else the leader is about to go on
		m.Step(startup.ProfileProgress{Wanted: wanted, Done: done}, 0)
	}
	return m.WaitingFor()
}
