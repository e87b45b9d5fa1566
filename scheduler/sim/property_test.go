package sim

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawScenario draws a short scenario in which much goes wrong.
func drawScenario(t *rapid.T) Scenario {
	millis := func(name string, least, most int) time.Duration {
		return time.Duration(rapid.IntRange(least, most).Draw(t, name)) * time.Millisecond
	}
	workers := rapid.IntRange(1, 4).Draw(t, "workers")
	models := rapid.IntRange(1, 6).Draw(t, "models")
	s := Scenario{
		Name: "random", Seed: rapid.Uint64().Draw(t, "seed"), Duration: 2 * time.Second,
		Network:         Network{Delay: time.Millisecond, Jitter: us(rapid.IntRange(0, 1000).Draw(t, "jitter"))},
		ExecutionJitter: rapid.SampledFrom([]float64{0, 0.01, 0.5}).Draw(t, "execution jitter"),
		Models:          Copies([]Model{resnet50(), fixed(5 * time.Millisecond)}, models),
		Timeline:        Timeline{For: time.Second, Limit: 50},
	}
	for i := range workers {
		var devices []Device
		for range rapid.IntRange(1, 2).Draw(t, "devices") {
			d := gpu(rapid.SampledFrom([]int{0, 7, 14, 20, 100}).Draw(t, "pages"))
			d.Slowdown = rapid.SampledFrom([]float64{1, 3}).Draw(t, "slowdown")
			devices = append(devices, d)
		}
		s.Workers = append(s.Workers, Worker{Name: fmt.Sprintf("w%d", i+1), Devices: devices})
	}
	worker := func() string { return s.Workers[rapid.IntRange(0, workers-1).Draw(t, "worker")].Name }
	for i := range rapid.IntRange(1, 3).Draw(t, "workloads") {
		w := Workload{Name: fmt.Sprint(i), Tenant: fmt.Sprint(i % 2), Rows: rapid.IntRange(0, 1).Draw(t, "rows"),
			SLO: rapid.SampledFrom([]time.Duration{0, 3 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, time.Second}).Draw(t, "slo")}
		switch rapid.IntRange(0, 2).Draw(t, "arrivals") {
		case 0:
			w.Arrivals = Poisson{rapid.Float64Range(1, 1000).Draw(t, "rate")}
		case 1:
			w.Arrivals = Gamma{rapid.Float64Range(1, 500).Draw(t, "rate"), rapid.Float64Range(0.3, 5).Draw(t, "cv")}
		case 2:
			w.Arrivals = Closed{InFlight: rapid.IntRange(1, 20).Draw(t, "in flight"), Think: millis("think", 0, 5)}
		}
		s.Workloads = append(s.Workloads, w)
	}
	for range rapid.IntRange(0, 3).Draw(t, "failures") {
		s.Failures = append(s.Failures, Failure{worker(), millis("at", 0, 2000), millis("for", 0, 900), rapid.Bool().Draw(t, "freeze")})
	}
	if rapid.Bool().Draw(t, "slower") {
		s.Slowdowns = append(s.Slowdowns, Slowdown{worker(), -1, millis("at", 0, 2000), rapid.Float64Range(0.3, 100).Draw(t, "factor")})
	}
	if rapid.Bool().Draw(t, "succession") {
		s.LeaderChanges = append(s.LeaderChanges, LeaderChange{millis("at", 0, 2000), millis("gap", 0, 500)})
	}
	return s
}

// Whatever happens: the policy keeps its contract, each request has one end, and
// the same seed gives the same report. The account of pages is checked by the
// run itself.
func TestAnyScenario(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScenario(t)
		play := func() (*Report, string) {
			r, err := Run(s, ours)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			return r, string(text)
		}
		r, text := play()
		if _, again := play(); again != text {
			t.Fatal("the same seed gives another report")
		}
		for _, g := range append(append(r.Models, r.Tenants...), r.Total) {
			if g.Good+g.Late+g.Refused+g.Failed != g.Requests {
				t.Fatalf("%d requests, but %+v", g.Requests, g)
			}
		}
		for _, c := range r.Total.Reasons {
			if c.Reason == unfinished {
				t.Fatalf("%d requests have no end", c.Requests)
			}
		}
		for _, d := range r.Devices {
			if d.Utilisation < 0 || d.Utilisation > 1.000001 {
				t.Fatalf("%+v", d)
			}
		}
		if len(r.Spans) > 50 {
			t.Fatalf("%d spans", len(r.Spans))
		}
	})
}
