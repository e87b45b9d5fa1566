// Package startup is what a leader does between winning its first election and
// serving: the phases querying → waiting → loading → profiling → serving as a
// state machine, (state, event, now) → (state, effects).
//
// It is pure: no clock, no goroutine, no I/O. The phase itself is replicated;
// the machine asks for a change by the effect Enter and believes it only when
// PhaseCommitted says so.
//
// A startup that was reopened goes through the phases from waiting on once more,
// while the cluster serves.
package startup

import (
	"fmt"
	"time"
)

// DefaultLoadIdle is how long no new load must have been asked for before
// profiling begins.
const DefaultLoadIdle = 10 * time.Second

// Instant is a point in time, as the time since an epoch that the caller
// chose and keeps.
type Instant = time.Duration

// Phase is a phase of the startup, as the cluster has agreed on it.
type Phase int

// The phases, in their order.
const (
	// Querying: the workers are asked what they have.
	Querying Phase = iota + 1
	// Waiting: for the first LoadModelFromDisk.
	Waiting
	// Loading: models are being loaded, or the next request may come.
	Loading
	// Profiling: the loaded models are measured.
	Profiling
	// Serving: the scheduler runs.
	Serving
)

// String is the phase's name.
func (p Phase) String() string {
	names := [...]string{"querying", "waiting", "loading", "profiling", "serving"}
	if p < Querying || int(p) > len(names) {
		return fmt.Sprintf("phase %d", int(p))
	}
	return names[p-1]
}

// Event is something that happened.
type Event interface{ event() }

type (
	// WorkersQueried: each worker of the registry has said what it has, or
	// was given up on.
	WorkersQueried struct{}
	// LoadRequested: a new wanted model was committed.
	LoadRequested struct{}
	// LoadProgress says how many copies are pending: their worker has neither
	// loaded them nor failed.
	LoadProgress struct{ Pending int }
	// ProfileProgress says how many profiles and checks of devices are wanted, and
	// how many of these are done; the work of earlier leaders counts.
	ProfileProgress struct{ Wanted, Done int }
	// PhaseCommitted: the log has changed the phase, by an Enter or because a
	// load was admitted.
	PhaseCommitted struct{ Phase Phase }
	// EnterRefused: the outstanding Enter was not committed, and won't be. It is
	// tried again at the next event.
	EnterRefused struct{}
	// Tick: time has passed.
	Tick struct{}
)

func (WorkersQueried) event()  {}
func (LoadRequested) event()   {}
func (LoadProgress) event()    {}
func (ProfileProgress) event() {}
func (PhaseCommitted) event()  {}
func (EnterRefused) event()    {}
func (Tick) event()            {}

// Effect is something that the caller is to do.
type Effect interface{ effect() }

type (
	// Enter asks the log for a change of phase. It is to be committed only
	// while the phase is From. Until PhaseCommitted or EnterRefused no other
	// change is asked for.
	Enter struct{ From, To Phase }
	// Profile starts the profiling of what is loaded and not profiled yet,
	// and has ProfileProgress reported.
	Profile struct{}
	// Serve hands over to the scheduler.
	Serve struct{}
	// Wake asks for a Tick at this instant; it replaces earlier ones.
	Wake struct{ At Instant }
)

func (Enter) effect()   {}
func (Profile) effect() {}
func (Serve) effect()   {}
func (Wake) effect()    {}

// Options are the settings of a Machine. Zero values mean the defaults.
type Options struct {
	// LoadIdle is how long no load must have been asked for, nor pending,
	// before profiling begins. Default DefaultLoadIdle.
	LoadIdle time.Duration
}

// Machine is the startup as one leader sees it. It is used by one goroutine
// at a time.
type Machine struct {
	loadIdle time.Duration
	phase    Phase
	asked    bool // an Enter is outstanding

	queried bool
	// quietSince is when the countdown began last.
	quietSince Instant
	pending    int
	// profiles is the progress of this phase of profiling; nil until the first
	// report since it began, and since the last pending load settled, so that
	// "nothing known" is not taken for "nothing to do".
	profiles *ProfileProgress
}

// New makes the machine of a leader that finds the cluster in a phase, and
// what it has to do at once. serving says that the cluster serves already: in
// another phase than Serving that means that the startup was reopened. The
// countdown starts afresh on this leader's clock; what loads and profiles are
// under way has to be reported.
func New(options Options, phase Phase, serving bool, now Instant) (*Machine, []Effect) {
	m := &Machine{loadIdle: options.LoadIdle, phase: phase, quietSince: now}
	if m.loadIdle <= 0 {
		m.loadIdle = DefaultLoadIdle
	}
	var effects []Effect
	if serving && phase != Serving {
		effects = append(effects, Serve{})
	}
	return m, m.next(now, append(effects, m.entered()...))
}

// Phase is the phase that was committed last.
func (m *Machine) Phase() Phase { return m.phase }

// Step takes in an event at instant now, which never goes back.
func (m *Machine) Step(event Event, now Instant) []Effect {
	var effects []Effect
	switch e := event.(type) {
	case WorkersQueried:
		m.queried = true
	case LoadRequested:
		m.quietSince = now
	case LoadProgress:
		if m.pending > 0 && e.Pending == 0 {
			m.quietSince = now
			m.profiles = nil // what was reported before knows nothing of what was loaded now
		}
		m.pending = e.Pending
	case ProfileProgress:
		// A report that was on its way when the phase changed is out of date.
		if m.phase == Profiling {
			m.profiles = &e
		}
	case EnterRefused:
		// Trying again at this very event would be a hot loop.
		m.asked = false
		return m.wake(nil, now)
	case PhaseCommitted:
		m.asked = false
		if e.Phase != m.phase {
			m.phase = e.Phase
			m.quietSince = now
			m.profiles = nil
			effects = m.entered()
		}
	}
	return m.next(now, effects)
}

// entered is what a phase begins with.
func (m *Machine) entered() []Effect {
	switch m.phase {
	case Profiling:
		return []Effect{Profile{}}
	case Serving:
		return []Effect{Serve{}}
	}
	return nil
}

// next adds the change of phase that is due, or when to look again.
func (m *Machine) next(now Instant, effects []Effect) []Effect {
	if m.asked {
		return effects
	}
	if m.finished(now) {
		m.asked = true
		return append(effects, Enter{From: m.phase, To: m.phase + 1})
	}
	return m.wake(effects, now)
}

func (m *Machine) wake(effects []Effect, now Instant) []Effect {
	if left, running := m.Countdown(now); running && left > 0 {
		effects = append(effects, Wake{At: now + left})
	}
	return effects
}

// finished says whether the phase has done what it is there for. Waiting ends
// by itself: the log enters loading with the first load.
func (m *Machine) finished(now Instant) bool {
	switch m.phase {
	case Querying:
		return m.queried
	case Loading:
		left, running := m.Countdown(now)
		return running && left == 0
	case Profiling:
		return m.pending == 0 && m.profiles != nil && m.profiles.Done >= m.profiles.Wanted
	default:
		return false
	}
}

// Countdown is the time left until profiling may begin. It runs in phase
// loading, which a load request has begun, while no load is pending; when it is
// not running, left is what it will start from.
func (m *Machine) Countdown(now Instant) (left time.Duration, running bool) {
	if m.phase != Loading || m.pending > 0 {
		return m.loadIdle, false
	}
	return max(0, m.quietSince+m.loadIdle-now), true
}

// WaitingFor says, for a person, what keeps the startup from going on; it is
// empty when nothing does.
func (m *Machine) WaitingFor() string {
	switch {
	case m.phase == Serving:
		return ""
	case m.asked:
		return fmt.Sprintf("a majority of the controllers to commit phase %s", m.phase+1)
	case m.phase == Querying:
		return "the workers to say what they have loaded"
	case m.phase == Waiting:
		return "the first LoadModelFromDisk request"
	case m.pending == 1:
		return "1 load that is pending"
	case m.pending > 1:
		return fmt.Sprintf("%d loads that are pending", m.pending)
	case m.phase == Loading:
		return fmt.Sprintf("no new load request for %v", m.loadIdle)
	case m.profiles == nil:
		return "the first report of the profiling"
	default:
		return fmt.Sprintf("%d of %d measurements", m.profiles.Wanted-m.profiles.Done, m.profiles.Wanted)
	}
}
