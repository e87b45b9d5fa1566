package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// odd is EDF whose decisions are tampered with.
type odd struct {
	scheduler.Policy
	tamper func(*scheduler.Decisions)
}

func (o odd) Step(now scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions) {
	o.Policy.Step(now, events, out)
	o.tamper(out)
}

func TestBreachesOfTheContractAreFound(t *testing.T) {
	infer := func(change func(*scheduler.Action)) func(*scheduler.Decisions) {
		return func(d *scheduler.Decisions) {
			for i := range d.Actions {
				if d.Actions[i].Kind == scheduler.Infer {
					change(&d.Actions[i])
				}
			}
		}
	}
	for want, tamper := range map[string]func(*scheduler.Decisions){
		"which is not in hand": func(d *scheduler.Decisions) { d.Completions = append(d.Completions, d.Completions...) },
		"which is not there":   infer(func(a *scheduler.Action) { a.Worker = "w9" }),
		"device 3 of w1":       infer(func(a *scheduler.Action) { a.Device = 3 }),
		"rows in":              infer(func(a *scheduler.Action) { a.Rows++ }),
		"for model 99":         infer(func(a *scheduler.Action) { a.Model = 99 }),
		"of model":             infer(func(a *scheduler.Action) { a.Model = 3 - a.Model }),
		"request 12345":        infer(func(a *scheduler.Action) { a.Requests = append(a.Requests, 12345) }),
		"abandons action":      func(d *scheduler.Decisions) { d.Abandoned = append(d.Abandoned, 99999) },
		"woken":                func(d *scheduler.Decisions) { d.Wake = 1 },
	} {
		s := standard(1, 2, Workload{Name: "load", Arrivals: Poisson{100}})
		_, err := Run(s, func() scheduler.Policy { return odd{ours(), tamper} })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q: %v", want, err)
		}
	}
}

func TestLoadsThatDoNotFitAreRefused(t *testing.T) {
	s := standard(1, 4, Workload{Name: "load", SLO: time.Second, Arrivals: Poisson{100}})
	s.Workers[0].Devices[0].Pages = 14 // two models
	// A policy that forgets to evict.
	greedy := func(d *scheduler.Decisions) {
		for i := range d.Actions {
			if d.Actions[i].Kind == scheduler.EvictWeights {
				d.Actions[i].Kind = scheduler.LoadWeights
			}
		}
	}
	r, err := Run(s, func() scheduler.Policy { return odd{ours(), greedy} })
	if err != nil {
		t.Fatal(err)
	}
	conserved(t, r)
	if r.Devices[0].Loads != 2 || r.RefusedActions == 0 {
		t.Errorf("%+v", r.Devices[0])
	}
}

// idle is a policy that never decides anything.
type idle struct{}

func (idle) Step(scheduler.Instant, []scheduler.Event, *scheduler.Decisions) {}

func TestARunEndsWithAPolicyThatDoesNothing(t *testing.T) {
	s := standard(1, 1, Workload{Name: "load", Arrivals: Poisson{100}})
	r, err := Run(s, func() scheduler.Policy { return idle{} })
	if err != nil {
		t.Fatal(err)
	}
	if r.Total.Failed != r.Total.Requests || r.Total.Reasons[0].Reason != unfinished {
		t.Errorf("%+v", r.Total)
	}
}

// planner sends one batch with a window, to see what workers make of it.
type planner struct {
	earliest, latest time.Duration
	outcome          *scheduler.Outcome
	ended            *scheduler.Instant
}

func (p *planner) Step(now scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions) {
	for _, e := range events {
		switch e := e.(type) {
		case scheduler.Submit:
			out.Actions = append(out.Actions,
				scheduler.Action{ID: 1, Kind: scheduler.LoadWeights, Worker: "w1", Model: 1},
				scheduler.Action{ID: 2, Kind: scheduler.Infer, Worker: "w1", Model: 1, Rows: 1, Requests: []scheduler.RequestID{e.Request.ID},
					Earliest: now.Add(p.earliest), Latest: now.Add(p.latest)})
		case scheduler.Finished:
			if e.Result.Action == 2 {
				*p.outcome, *p.ended = e.Result.Outcome, now
			}
		}
	}
}

// A look that was planned before a worker died must not keep later ones away.
func TestWorkersKeepTheWindowAfterAFailure(t *testing.T) {
	for _, freeze := range []bool{false, true} {
		s := standard(1, 1, Workload{Name: "two", Arrivals: Trace{[]Arrival{{0, 0}, {time.Second, 0}}}})
		s.Network.Jitter = 0
		s.Failures = []Failure{{Worker: "w1", At: 3 * time.Millisecond, For: 100 * time.Millisecond, Freeze: freeze}}
		s.Models[0].Profiles[0].WeightsLoad = 2 * time.Second // the weights come too late
		var outcome scheduler.Outcome
		var ended scheduler.Instant
		if _, err := Run(s, func() scheduler.Policy {
			return &planner{latest: 5 * time.Millisecond, outcome: &outcome, ended: &ended}
		}); err != nil {
			t.Fatal(err)
		}
		if want := time.Second + us(5000+1000) + 1; outcome != scheduler.Refused || ended.Sub(epoch) != want {
			t.Errorf("freeze %v: %v after %v, want a refusal after %v", freeze, outcome, ended.Sub(epoch), want)
		}
	}
}

func TestWorkersKeepTheWindow(t *testing.T) {
	for _, test := range []struct {
		earliest, latest time.Duration
		outcome          scheduler.Outcome
		ended            time.Duration
	}{
		// The way there, a load of 8.372 ms, 3.322 ms, the way back.
		{0, time.Second, scheduler.OK, us(1000 + 8372 + 3322 + 1000)},
		{20 * time.Millisecond, time.Second, scheduler.OK, us(20_000 + 3322 + 1000)},
		// It awaits its weights until its window has closed.
		{0, 5 * time.Millisecond, scheduler.Refused, us(5000+1000) + 1},
	} {
		s := standard(1, 1, Workload{Name: "one", Arrivals: Trace{[]Arrival{{0, 0}}}})
		s.Network.Jitter = 0
		var outcome scheduler.Outcome
		var ended scheduler.Instant
		if _, err := Run(s, func() scheduler.Policy {
			return &planner{earliest: test.earliest, latest: test.latest, outcome: &outcome, ended: &ended}
		}); err != nil {
			t.Fatal(err)
		}
		if outcome != test.outcome || ended.Sub(epoch) != test.ended {
			t.Errorf("%+v: %v after %v", test, outcome, ended.Sub(epoch))
		}
	}
}
