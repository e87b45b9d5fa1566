package startup

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const s = time.Second

// step is an event at an instant, and what it has to lead to.
type step struct {
	at    Instant
	event Event
	want  []Effect
}

func enter(to Phase) Enter { return Enter{From: to - 1, To: to} }

func effects(e ...Effect) []Effect { return e }

func TestMachine(t *testing.T) {
	for _, test := range []struct {
		name    string
		phase   Phase
		serving bool
		born    Instant
		begin   []Effect
		steps   []step
	}{
		{"the whole way", Querying, false, 0, nil, []step{
			{1 * s, Tick{}, nil},
			{2 * s, WorkersQueried{}, effects(enter(Waiting))},
			{2 * s, PhaseCommitted{Waiting}, nil},
			{100 * s, LoadRequested{}, nil},
			{100 * s, PhaseCommitted{Loading}, effects(Wake{110 * s})},
			{100 * s, LoadProgress{3}, nil},
			{130 * s, LoadProgress{0}, effects(Wake{140 * s})},
			{140 * s, Tick{}, effects(enter(Profiling))},
			{141 * s, PhaseCommitted{Profiling}, effects(Profile{})},
			{142 * s, ProfileProgress{6, 0}, nil},
			{150 * s, ProfileProgress{6, 5}, nil},
			{151 * s, ProfileProgress{6, 6}, effects(enter(Serving))},
			{151 * s, PhaseCommitted{Serving}, effects(Serve{})},
			{200 * s, Tick{}, nil},
		}},
		{"no countdown without a load request", Waiting, false, 0, nil, []step{
			{1000 * s, Tick{}, nil},
			{2000 * s, LoadProgress{0}, nil},
			{3000 * s, WorkersQueried{}, nil},
		}},
		{"each request restarts the countdown", Loading, false, 0, effects(Wake{10 * s}), []step{
			{4 * s, LoadRequested{}, effects(Wake{14 * s})},
			{10 * s, Tick{}, effects(Wake{14 * s})},
			{13*s + 999*time.Millisecond, LoadRequested{}, effects(Wake{23*s + 999*time.Millisecond})},
			{14 * s, Tick{}, effects(Wake{23*s + 999*time.Millisecond})},
			{23*s + 999*time.Millisecond, Tick{}, effects(enter(Profiling))},
		}},
		{"it does not run while a load is pending", Loading, false, 0, effects(Wake{10 * s}), []step{
			{9 * s, LoadProgress{1}, nil},
			{3600 * s, Tick{}, nil},
			{3601 * s, LoadProgress{1}, nil},
		}},
		{"it begins in full when the last pending load settles", Loading, false, 0, effects(Wake{10 * s}), []step{
			{1 * s, LoadProgress{2}, nil},
			{50 * s, LoadProgress{1}, nil},
			{60 * s, LoadProgress{0}, effects(Wake{70 * s})},
			{65 * s, LoadProgress{0}, effects(Wake{70 * s})},
			{70 * s, Tick{}, effects(enter(Profiling))},
		}},
		{"nothing is asked for twice", Loading, false, 0, effects(Wake{10 * s}), []step{
			{10 * s, Tick{}, effects(enter(Profiling))},
			{11 * s, Tick{}, nil},
			{30 * s, LoadProgress{0}, nil},
			{31 * s, PhaseCommitted{Profiling}, effects(Profile{})},
		}},
		{"a refused Enter is tried again at the next event", Loading, false, 0, effects(Wake{10 * s}), []step{
			{10 * s, Tick{}, effects(enter(Profiling))},
			{11 * s, EnterRefused{}, nil},
			{12 * s, Tick{}, effects(enter(Profiling))},
		}},
		{"a refused Enter does not stop the countdown", Loading, false, 0, effects(Wake{10 * s}), []step{
			{10 * s, Tick{}, effects(enter(Profiling))},
			{11 * s, LoadRequested{}, nil},
			{12 * s, EnterRefused{}, effects(Wake{21 * s})},
			{21 * s, Tick{}, effects(enter(Profiling))},
		}},
		{"the log's own change settles an Enter", Waiting, false, 0, nil, []step{
			{1 * s, PhaseCommitted{Loading}, effects(Wake{11 * s})},
			{1 * s, PhaseCommitted{Loading}, effects(Wake{11 * s})},
			{11 * s, Tick{}, effects(enter(Profiling))},
		}},
		{"a load during profiling goes back to loading", Profiling, false, 0, effects(Profile{}), []step{
			{1 * s, ProfileProgress{6, 3}, nil},
			{2 * s, LoadRequested{}, nil},
			{2 * s, PhaseCommitted{Loading}, effects(Wake{12 * s})},
			{2 * s, LoadProgress{1}, nil},
			{3 * s, ProfileProgress{6, 6}, nil}, // of the phase before
			{4 * s, LoadProgress{0}, effects(Wake{14 * s})},
			{14 * s, Tick{}, effects(enter(Profiling))},
			{14 * s, PhaseCommitted{Profiling}, effects(Profile{})},
			{15 * s, Tick{}, nil},
			{16 * s, ProfileProgress{12, 12}, effects(enter(Serving))},
		}},
		{"no serving while a load is pending", Profiling, false, 0, effects(Profile{}), []step{
			{1 * s, LoadProgress{1}, nil},
			{2 * s, ProfileProgress{6, 6}, nil},
			{3 * s, LoadProgress{0}, nil}, // what it has loaded may have to be measured
			{3 * s, ProfileProgress{8, 6}, nil},
			{4 * s, ProfileProgress{8, 8}, effects(enter(Serving))},
		}},
		{"a new leader counts down in full on its own clock", Loading, false, 500 * s, effects(Wake{510 * s}), []step{
			{509 * s, Tick{}, effects(Wake{510 * s})},
			{510 * s, Tick{}, effects(enter(Profiling))},
		}},
		{"a new leader goes on with profiling", Profiling, false, 500 * s, effects(Profile{}), []step{
			{501 * s, Tick{}, nil},
			{501 * s, ProfileProgress{6, 4}, nil}, // four are in the log
			{502 * s, ProfileProgress{6, 6}, effects(enter(Serving))},
		}},
		{"a new leader serves at once", Serving, true, 500 * s, effects(Serve{}), []step{
			{501 * s, Tick{}, nil},
			{502 * s, PhaseCommitted{Serving}, nil},
			{503 * s, LoadRequested{}, nil}, // a late load
		}},
		{"reopened", Serving, true, 0, effects(Serve{}), []step{
			{1 * s, PhaseCommitted{Loading}, effects(Wake{11 * s})},
			{11 * s, Tick{}, effects(enter(Profiling))},
			{11 * s, PhaseCommitted{Profiling}, effects(Profile{})},
			{12 * s, ProfileProgress{1, 1}, effects(enter(Serving))},
			{12 * s, PhaseCommitted{Serving}, effects(Serve{})},
		}},
		{"a new leader of a cluster that was reopened", Loading, true, 500 * s, effects(Serve{}, Wake{510 * s}), []step{
			{505 * s, LoadRequested{}, effects(Wake{515 * s})},
			{515 * s, Tick{}, effects(enter(Profiling))},
			{515 * s, PhaseCommitted{Profiling}, effects(Profile{})},
			{516 * s, ProfileProgress{1, 1}, effects(enter(Serving))},
			{516 * s, PhaseCommitted{Serving}, effects(Serve{})},
		}},
		{"reopened and closed without a load", Waiting, true, 0, effects(Serve{}), []step{
			{100 * s, Tick{}, nil},
			{200 * s, PhaseCommitted{Serving}, effects(Serve{})},
		}},
		{"all loads failed: nothing to profile", Loading, false, 0, effects(Wake{10 * s}), []step{
			{1 * s, LoadProgress{1}, nil},
			{2 * s, LoadProgress{0}, effects(Wake{12 * s})},
			{12 * s, Tick{}, effects(enter(Profiling))},
			{12 * s, PhaseCommitted{Profiling}, effects(Profile{})},
			{12 * s, ProfileProgress{0, 0}, effects(enter(Serving))},
			{12 * s, PhaseCommitted{Serving}, effects(Serve{})},
		}},
		{"no worker: loads stay pending", Querying, false, 0, nil, []step{
			{0, WorkersQueried{}, effects(enter(Waiting))},
			{0, PhaseCommitted{Waiting}, nil},
			{1 * s, PhaseCommitted{Loading}, effects(Wake{11 * s})},
			{1 * s, LoadProgress{1}, nil},
			{1000 * s, Tick{}, nil},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, got := New(Options{}, test.phase, test.serving, test.born)
			if diff := cmp.Diff(test.begin, got); diff != "" {
				t.Fatalf("New (-want +got):\n%s", diff)
			}
			for i, step := range test.steps {
				got := m.Step(step.event, step.at)
				if diff := cmp.Diff(step.want, got); diff != "" {
					t.Fatalf("step %d, %T%+v at %v (-want +got):\n%s", i, step.event, step.event, step.at, diff)
				}
			}
		})
	}
}

func TestCountdown(t *testing.T) {
	m, _ := New(Options{LoadIdle: 4 * s}, Waiting, false, 0)
	check := func(now Instant, left time.Duration, running bool) {
		t.Helper()
		if l, r := m.Countdown(now); l != left || r != running {
			t.Errorf("at %v: %v, %v; want %v, %v", now, l, r, left, running)
		}
	}
	check(1*s, 4*s, false)
	m.Step(PhaseCommitted{Loading}, 2*s)
	check(3*s, 3*s, true)
	check(99*s, 0, true)
	m.Step(LoadProgress{1}, 4*s)
	check(5*s, 4*s, false)
	m.Step(LoadProgress{0}, 6*s)
	check(7*s, 3*s, true)
}

func TestWaitingFor(t *testing.T) {
	m, _ := New(Options{}, Querying, false, 0)
	for _, step := range []struct {
		event Event
		want  string
	}{
		{Tick{}, "the workers to say what they have loaded"},
		{WorkersQueried{}, "a majority of the controllers to commit phase waiting"},
		{PhaseCommitted{Waiting}, "the first LoadModelFromDisk request"},
		{PhaseCommitted{Loading}, "no new load request for 10s"},
		{LoadProgress{3}, "3 loads that are pending"},
		{LoadProgress{1}, "1 load that is pending"},
		{PhaseCommitted{Profiling}, "1 load that is pending"},
		{LoadProgress{0}, "the first report of the profiling"},
		{ProfileProgress{6, 4}, "2 of 6 measurements"},
		{PhaseCommitted{Serving}, ""},
	} {
		m.Step(step.event, 0)
		if got := m.WaitingFor(); got != step.want {
			t.Errorf("after %T: waiting for %q, want %q", step.event, got, step.want)
		}
	}
}

// Whatever happens, profiling never comes before a full quiet LoadIdle, and
// serving never while a load is pending or a profile is missing; and once
// everything is quiet, it does come.
func TestOrderOfThePhases(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 80).Draw(t, "events") {
			w.random()
		}
		w.calmDown()
	})
}

// world keeps its own books of what the machine was told.
type world struct {
	t       *rapid.T
	m       *Machine
	now     Instant
	phase   Phase
	quiet   Instant // since when no load was asked for, pending or settled
	pending int
	done    bool   // all profiles
	asked   *Enter // outstanding
	wake    Instant
	serves  int
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, phase: Phase(rapid.IntRange(1, 5).Draw(t, "phase")), now: 1000 * s, quiet: 1000 * s}
	m, first := New(Options{}, w.phase, w.phase == Serving, w.now)
	w.m = m
	w.carryOut(first)
	return w
}

func (w *world) step(e Event) {
	w.carryOut(w.m.Step(e, w.now))
	if w.m.Phase() != w.phase {
		w.t.Fatalf("phase is %v, %v was committed", w.m.Phase(), w.phase)
	}
}

func (w *world) carryOut(effects []Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case Enter:
			w.checkEnter(e)
			w.asked = &e
		case Profile:
			if w.phase != Profiling {
				w.t.Fatalf("profiling is started in phase %v", w.phase)
			}
		case Serve:
			if w.phase != Serving {
				w.t.Fatalf("the scheduler is started in phase %v", w.phase)
			}
			w.serves++
		case Wake:
			if e.At <= w.now {
				w.t.Fatalf("wake at %v is not after %v", e.At, w.now)
			}
			w.wake = e.At
		}
	}
}

func (w *world) checkEnter(e Enter) {
	switch {
	case w.asked != nil:
		w.t.Fatalf("%v is asked for while %v is outstanding", e, *w.asked)
	case e.From != w.phase || e.To != e.From+1:
		w.t.Fatalf("%v is asked for in phase %v", e, w.phase)
	case e.To == Loading:
		w.t.Fatalf("loading is asked for; only a load request begins it")
	case e.To == Profiling && w.pending > 0, e.To == Serving && w.pending > 0:
		w.t.Fatalf("%v is asked for with %d loads pending", e.To, w.pending)
	case e.To == Profiling && w.now-w.quiet < DefaultLoadIdle:
		w.t.Fatalf("profiling is asked for after %v of quiet", w.now-w.quiet)
	case e.To == Serving && !w.done:
		w.t.Fatalf("serving is asked for while profiles are missing")
	}
}

func (w *world) commit(p Phase) {
	if p != w.phase {
		w.phase, w.quiet, w.done = p, w.now, false
	}
	w.asked = nil
	w.step(PhaseCommitted{p})
}

func (w *world) progress(pending int) {
	if w.pending > 0 || pending > 0 {
		w.quiet = w.now
	}
	w.done = w.done && (w.pending == 0 || pending > 0)
	w.pending = pending
	w.step(LoadProgress{Pending: pending})
}

func (w *world) profiled(wanted, done int) {
	w.done = w.phase == Profiling && wanted == done
	w.step(ProfileProgress{wanted, done})
}

func (w *world) random() {
	w.now += Instant(rapid.Int64Range(0, int64(12*s)).Draw(w.t, "pass"))
	switch rapid.IntRange(0, 7).Draw(w.t, "event") {
	case 0:
		w.step(Tick{})
	case 1:
		w.quiet = w.now
		w.step(LoadRequested{})
	case 2:
		w.progress(rapid.IntRange(0, 2).Draw(w.t, "pending"))
	case 3:
		wanted := rapid.IntRange(0, 3).Draw(w.t, "wanted")
		w.profiled(wanted, rapid.IntRange(0, wanted).Draw(w.t, "done"))
	case 4:
		w.step(WorkersQueried{})
	case 5, 6:
		if w.asked != nil {
			w.commit(w.asked.To)
		} else if w.phase == Waiting || w.phase == Profiling {
			w.quiet = w.now
			w.commit(Loading)
		}
	case 7:
		if w.asked != nil {
			w.asked = nil
			w.step(EnterRefused{})
		}
	}
}

// calmDown lets everything settle; then serving has to be reached.
func (w *world) calmDown() {
	w.step(WorkersQueried{})
	if w.asked != nil {
		w.commit(w.asked.To)
	}
	if w.phase == Waiting {
		w.commit(Loading)
	}
	w.progress(0)
	for range 5 {
		if w.asked != nil {
			w.commit(w.asked.To)
		}
		if w.phase == Profiling {
			w.profiled(2, 2)
			continue
		}
		w.now = max(w.now, w.wake)
		w.step(Tick{})
	}
	if w.phase != Serving || w.serves == 0 {
		w.t.Fatalf("stuck in phase %v, waiting for %s", w.phase, w.m.WaitingFor())
	}
}
