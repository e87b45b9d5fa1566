package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
)

// lastMoment is an instant in a startup at which the leader dies.
type lastMoment struct {
	name string
	// until does what has to be done, and waits until the leader is to die.
	until func(r *startupRun)
	// early and late say whether it died too early or too late.
	early, late func(r *startupRun, d *death) bool
	// after does what has to be done when it is dead.
	after func(r *startupRun)
}

var lastMoments = []lastMoment{
	{
		"Waiting", func(*startupRun) {},
		func(r *startupRun, _ *death) bool { return !r.saw(r.leader, "waiting") },
		func(r *startupRun, _ *death) bool { return r.saw(r.leader, "loading") },
		(*startupRun).ask, // there is no leader
	},
	{
		"Loading", func(r *startupRun) {
			r.ask()
			r.until("some loads", func() bool { return r.loads() >= 3 })
		},
		func(_ *startupRun, d *death) bool { return d.loads == 0 },
		func(_ *startupRun, d *death) bool { return d.loads == startupCopies },
		nil,
	},
	{
		"Countdown", func(r *startupRun) {
			r.ask()
			r.until("all loads", func() bool { return r.loads() == startupCopies })
			half := time.Now().Add(500 * time.Millisecond)
			r.until("half the countdown", func() bool { return time.Now().After(half) })
		},
		func(_ *startupRun, d *death) bool { return d.loads < startupCopies },
		func(r *startupRun, _ *death) bool { return r.saw(r.leader, "profiling") },
		nil,
	},
	{
		"Profiling", func(r *startupRun) {
			r.ask()
			r.until("some profiles", func() bool { return len(r.measured(r.others[0])) > 0 })
		},
		func(_ *startupRun, d *death) bool { return len(d.measured) == 0 },
		func(_ *startupRun, d *death) bool { return len(d.measured) == startupKeys },
		nil,
	},
	{
		"HandOver", func(r *startupRun) {
			r.ask()
			r.until("the hand-over", func() bool { return r.saw(r.leader, "serving") })
		},
		func(_ *startupRun, d *death) bool { return len(d.measured) < startupKeys },
		func(*startupRun, *death) bool { return false },
		nil,
	},
}

// TestLeaderKilledDuringStartup kills the leader in each phase of the startup,
// and at the hand-over. What comes out is what comes out when nobody is killed.
func TestLeaderKilledDuringStartup(t *testing.T) {
	var want []string
	t.Run("Undisturbed", func(t *testing.T) {
		r := newStartupRun(t, devcluster.Options{})
		r.ask()
		want = r.finish()
		r.nothingTwice(&death{})
		// Models; copies with those that failed; profiles, of which two models
		// share one; workers.
		if n := len(want); n != 6+(startupCopies+2)+(startupKeys+1)+2 {
			t.Fatalf("%d things have come out:\n%s", n, strings.Join(want, "\n"))
		}
	})
	if t.Failed() {
		return
	}
	for _, m := range lastMoments {
		t.Run(m.name, func(t *testing.T) {
			r := newStartupRun(t, devcluster.Options{})
			m.until(r)
			d := r.killLeader()
			if early, late := m.early(r, d), m.late(r, d); early || late {
				t.Errorf("the fault did not bite: too early %v, too late %v", early, late)
			}
			if m.after != nil {
				m.after(r)
			}
			r.expect(want, d)
		})
	}
	t.Run("Querying", func(t *testing.T) { killedWhileQuerying(t, want) })
	t.Run("ClientsReset", func(t *testing.T) { resetDuringStartup(t, want) })
}

// killedWhileQuerying has the controllers found their cluster anew, and kills
// whoever leads first, a moment after it has begun to. The phase lasts for some
// milliseconds, in the first of which nobody else knows yet who is in the
// cluster: so it may take a few attempts. The last one counts in any case: then
// the one that died comes back, and leads again.
func killedWhileQuerying(t *testing.T, want []string) {
	const attempts = 8
	r := newStartupRun(t, devcluster.Options{WorkersLater: true})
	delay := 2 * time.Millisecond
	for attempt := 1; ; attempt++ {
		r.foundAnew()
		led := time.Now()
		r.until("the moment", func() bool { return time.Since(led) >= delay })
		d := r.killLeader()
		late, next := r.saw(r.leader, "waiting"), r.successor()
		t.Logf("attempt %d: %s died %v after its election; phase waiting: %v; its successor: %s", attempt, r.leader.Name, delay, late, next)
		switch {
		case attempt == attempts:
			t.Errorf("the fault did not bite in %d attempts", attempt)
		case late:
			delay = max(0, delay-time.Millisecond)
			continue
		case next == "":
			delay += time.Millisecond
			continue
		}
		for _, w := range r.Workers {
			if err := w.Start(); err != nil {
				t.Fatal(err)
			}
		}
		r.ask()
		r.expect(want, d)
		return
	}
}

// foundAnew has the controllers lose all that they know, and waits until one of
// them leads.
func (r *startupRun) foundAnew() {
	r.t.Helper()
	for _, p := range r.Controllers {
		if err := errors.Join(p.Kill(), os.RemoveAll(filepath.Join(r.Dir(), p.Name, "data")), os.Truncate(p.Log, 0)); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, p := range r.Controllers {
		if err := p.Start(); err != nil {
			r.t.Fatal(err)
		}
	}
	r.until("a leader", func() bool {
		for _, p := range r.Controllers {
			if r.loggedLines(p, "entering leader state") > 0 {
				r.isLed(p)
				return true
			}
		}
		return false
	})
}

// successor is who leads when the leader is dead, or empty when after a few
// election timeouts nobody does.
func (r *startupRun) successor() (name string) {
	r.t.Helper()
	give := time.Now().Add(3 * time.Second)
	r.until("a successor", func() bool {
		for _, p := range r.others {
			if r.loggedLines(p, "]  leading: ") > 0 {
				name = p.Name
			}
		}
		return name != "" || time.Now().After(give)
	})
	return name
}

// resetDuringStartup resets connections on the clients' port while models are
// loaded: before they have said anything, in the middle of a request, and with
// one that is buffered.
func resetDuringStartup(t *testing.T, want []string) {
	const clients = 20
	r := newStartupRun(t, devcluster.Options{})
	before := term(t, r.leader)
	r.ask()
	r.until("the loads", func() bool { return r.saw(r.leader, "loading") })
	vanished := 0
	for _, p := range r.Controllers {
		for i := range clients {
			f := fate{reset: true, after: time.Duration(1+i) * time.Millisecond}
			if i%2 == 0 {
				f = fate{reset: true, bytes: 10 + 60*i}
			}
			if err := vanishUnary(within(t, time.Second), p.Addresses["inference"], f, emulatedRequest("alpha")); err != nil {
				vanished++
			}
		}
	}
	if all := clients * len(r.Controllers); r.saw(r.leader, "serving") || vanished < all {
		t.Errorf("the fault did not bite: of %d clients %d vanished before their answers", all, vanished)
	}
	r.expect(want, &death{})
	if now := term(t, r.leader); now != before {
		t.Errorf("the term is %v, and was %v", now, before)
	}
	awaitNothingHeld(t, r.cluster)
}
