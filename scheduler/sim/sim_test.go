package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

func us(n int) time.Duration { return time.Duration(n) * time.Microsecond }

// resnet50 is the first row of models/profiles.csv.
func resnet50() Model {
	return Model{Name: "resnet50", WeightsBytes: 102_300_000, Profiles: []Profile{{
		WeightsLoad: us(8372), Execution: []scheduler.RowsTime{
			{Rows: 1, Time: us(3322)}, {Rows: 2, Time: us(5271)}, {Rows: 4, Time: us(7495)}, {Rows: 8, Time: us(12439)}, {Rows: 16, Time: us(21729)}}}}}
}

// fixed is a model whose requests run alone and take so long.
func fixed(d time.Duration) Model {
	return Model{Name: "fixed", WeightsBytes: 1, Alone: true, MaxRows: 1,
		Profiles: []Profile{{Execution: []scheduler.RowsTime{{Rows: 1, Time: d}}}}}
}

func gpu(pages int) Device { return Device{Kind: "V100", Pages: pages, PageBytes: 16 << 20} }

// standard is workers of a device each with copies of ResNet50, and a network.
func standard(workers, models int, loads ...Workload) Scenario {
	return Scenario{
		Name: "test", Seed: 1, Duration: 10 * time.Second, Network: Network{Delay: time.Millisecond, Jitter: us(200)},
		Models: Copies([]Model{resnet50()}, models), Workers: Fleet(workers, 1, gpu(1000)), Workloads: loads,
	}
}

func ours() scheduler.Policy { return named(scheduler.DefaultPolicy) }

func named(policy string) scheduler.Policy {
	p, err := scheduler.New(policy, scheduler.Options{})
	if err != nil {
		panic(err)
	}
	return p
}

// play runs a scenario, and checks what holds of every report.
func play(t *testing.T, s Scenario) *Report {
	t.Helper()
	r, err := Run(s, ours)
	if err != nil {
		t.Fatal(err)
	}
	conserved(t, r)
	return r
}

// conserved checks that each request has one end.
func conserved(t *testing.T, r *Report) {
	t.Helper()
	sum := func(groups []Group) (requests, ends uint64) {
		for _, g := range groups {
			requests, ends = requests+g.Requests, ends+g.Good+g.Late+g.Refused+g.Failed
		}
		return requests, ends
	}
	for name, groups := range map[string][]Group{"all": {r.Total}, "models": r.Models, "tenants": r.Tenants, "workloads": r.Workloads} {
		if requests, ends := sum(groups); requests != ends || requests != r.Total.Requests {
			t.Errorf("%s: %d requests, %d ends, %d in all", name, requests, ends, r.Total.Requests)
		}
	}
	for _, c := range r.Total.Reasons {
		if c.Reason == unfinished {
			t.Errorf("%d requests are unfinished", c.Requests)
		}
	}
	if r.Utilisation < 0 || r.Utilisation > 1.000001 {
		t.Errorf("utilisation %v", r.Utilisation)
	}
}

func within(t *testing.T, what string, got, want, percent float64) {
	t.Helper()
	if math.Abs(got-want) > want*percent/100 {
		t.Errorf("%s is %v, want %v ± %v %%", what, got, want, percent)
	}
}

func TestTheCeilingOfResNet50(t *testing.T) {
	s := standard(1, 4)
	within(t, "the ceiling", s.Ceiling(), 16/0.021729, 0.001)
	if got := math.Floor(s.Ceiling()); got != 736 {
		t.Errorf("the ceiling is %v", got)
	}
	s = standard(3, 4)
	s.Workers[0].Devices[0].Slowdown = 2
	within(t, "the ceiling of two and a half devices", s.Ceiling(), 2.5*16/0.021729, 0.001)
}

// With one device that runs one request at a time, independent arrivals and a
// fixed time D, the mean wait is ρD/2(1−ρ).
func TestWaitingIsThatOfAnMD1Queue(t *testing.T) {
	for _, load := range []float64{0.3, 0.5, 0.8} {
		d := 10 * time.Millisecond
		s := Scenario{
			Seed: 7, Duration: 2000 * time.Second, Warmup: 10 * time.Second,
			Models: []Model{fixed(d)}, Workers: Fleet(1, 1, gpu(10)),
			Workloads: []Workload{{Name: "poisson", Arrivals: Poisson{load / d.Seconds()}}},
		}
		r := play(t, s)
		want := ms(d) * (1 + load/(2*(1-load)))
		t.Logf("load %v: mean latency %.3f ms, by the formula %.3f ms", load, r.Total.Latency.Mean, want)
		within(t, fmt.Sprintf("the mean latency at load %v", load), r.Total.Latency.Mean, want, 4)
		within(t, "the utilisation", r.Utilisation, load, 2)
	}
}

func TestAClosedLoopReachesTheCeiling(t *testing.T) {
	s := standard(1, 1, Workload{Name: "closed", Arrivals: Closed{InFlight: 64}})
	s.Warmup = time.Second
	r := play(t, s)
	within(t, "goodput", r.Total.GoodputPerSecond, s.Ceiling(), 0.5)
	within(t, "batch rows", r.MeanBatchRows, 16, 0.1)
	within(t, "utilisation", r.Utilisation, 1, 0.5)
	// By Little's law: 64 in flight.
	within(t, "the mean latency", r.Total.Latency.Mean, 64/s.Ceiling()*1000, 1)
}

func TestALoneRequestTakesItsTimes(t *testing.T) {
	s := standard(1, 1, Workload{Name: "two", Arrivals: Trace{[]Arrival{{0, 0}, {time.Second, 0}}}})
	s.Network.Jitter = 0
	r := play(t, s)
	// Both: a millisecond each way and 3.322 ms. The first also a load of 8.372 ms and its way.
	within(t, "the second latency", r.Total.Latency.P50, 5.322, 0.5)
	within(t, "the first latency", r.Total.Latency.Max, 5.322+10.372, 0.001)
	if r.Total.ColdStarts != 1 || r.Devices[0].Loads != 1 || r.Total.Good != 2 {
		t.Errorf("%+v", r)
	}
}

func TestColdStartsAreThoseWithoutWeightsAnywhere(t *testing.T) {
	var arrivals []Arrival
	for i := range 10 {
		arrivals = append(arrivals, Arrival{time.Duration(i) * time.Second, i % 2})
	}
	s := standard(1, 2, Workload{Name: "in turn", Arrivals: Trace{arrivals}})
	if r := play(t, s); r.Total.ColdStarts != 2 {
		t.Errorf("with room for both: %d cold starts", r.Total.ColdStarts)
	}
	s.Workers[0].Devices[0].Pages = 7 // of one model
	r := play(t, s)
	if r.Total.ColdStarts != 10 || r.Devices[0].Loads != 10 || r.Devices[0].Evictions != 9 || r.Total.Good != 10 {
		t.Errorf("with room for one: %+v, %+v", r.Total, r.Devices)
	}
}

// Five models, and room for two: four of them take turns.
func TestAPinnedModelIsNeverCold(t *testing.T) {
	for _, policy := range []string{"edf", "orrery"} {
		s := standard(1, 5, Workload{Name: "all", Start: time.Second, Arrivals: Poisson{50}})
		s.Workers[0].Devices[0].Pages = 14
		cold := func() (pinned, others uint64) {
			r, err := Run(s, func() scheduler.Policy { return named(policy) })
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range r.Models {
				if m.Name == s.Models[4].Name {
					pinned = m.ColdStarts
				} else {
					others += m.ColdStarts
				}
			}
			return pinned, others
		}
		if fifth, others := cold(); fifth == 0 || others == 0 {
			t.Errorf("%s: %d and %d cold starts, although nothing is pinned", policy, fifth, others)
		}
		s.Models[4].Pinned = 1
		if pinned, others := cold(); pinned > 0 || others == 0 {
			t.Errorf("%s: %d cold starts of the pinned model, %d of the others", policy, pinned, others)
		}
		s.LeaderChanges = []LeaderChange{{At: 5 * time.Second, Gap: 300 * time.Millisecond}}
		if pinned, _ := cold(); pinned > 0 {
			t.Errorf("%s: %d cold starts of the pinned model when a leader comes", policy, pinned)
		}
	}
}

func TestTheSameSeedGivesTheSameReport(t *testing.T) {
	s := standard(2, 6,
		Workload{Name: "poisson", SLO: 100 * time.Millisecond, Tenant: "a", Zipf: 1.1, Arrivals: Poisson{900}},
		Workload{Name: "bursts", SLO: 50 * time.Millisecond, Tenant: "b", Rows: 2, Arrivals: Gamma{200, 3}},
		Workload{Name: "closed", Tenant: "b", Models: []int{5}, Arrivals: Closed{InFlight: 3, Think: 10 * time.Millisecond}})
	s.ExecutionJitter = 0.01
	s.Workers[0].Devices[0].Pages = 30
	s.Failures = []Failure{{Worker: "w1", At: 2 * time.Second, For: time.Second}, {Worker: "w2", At: 5 * time.Second, For: 2 * time.Second, Freeze: true}}
	s.LeaderChanges = []LeaderChange{{At: 4 * time.Second, Gap: 300 * time.Millisecond}}
	s.Timeline = Timeline{From: time.Second, For: time.Second, Limit: 100}
	text := func(seed uint64) []byte {
		s.Seed = seed
		out, err := json.Marshal(play(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := text(1)
	if !bytes.Equal(first, text(1)) {
		t.Error("the same seed gives another report")
	}
	if bytes.Equal(first, text(2)) {
		t.Error("another seed gives the same report")
	}
}

func TestAWorkerFailsAndComesBack(t *testing.T) {
	for _, freeze := range []bool{false, true} {
		s := standard(2, 4, Workload{Name: "poisson", SLO: 100 * time.Millisecond, Arrivals: Poisson{1600}})
		s.Failures = []Failure{{Worker: "w1", At: 3 * time.Second, For: 3 * time.Second, Freeze: freeze}}
		r := play(t, s)
		one := 16 / 0.021729
		before, during, after := float64(r.Series[2].Good), float64(r.Series[4].Good), float64(r.Series[8].Good)
		t.Logf("freeze %v: good in seconds 2, 4, 8: %v %v %v; %v", freeze, before, during, after, r.Total.Reasons)
		if before < 1.7*one || after < 1.7*one || during > one*1.03 || during < 0.8*one {
			t.Errorf("freeze %v: good in seconds 2, 4, 8: %v %v %v of %.0f a device", freeze, before, during, after, one)
		}
		if len(r.Notes) != 2 {
			t.Errorf("notes %v", r.Notes)
		}
	}
}

func TestWithoutWorkersNobodyAnswers(t *testing.T) {
	s := standard(1, 1, Workload{Name: "poisson", SLO: 100 * time.Millisecond, Arrivals: Poisson{100}})
	s.Failures = []Failure{{Worker: "w1", At: 0}}
	r := play(t, s)
	if r.Total.Good != 0 || r.Total.Refused == 0 || r.Total.Reasons[0].Reason != "NoWorker" {
		t.Errorf("%+v", r.Total)
	}
}

func TestALeaderIsSucceeded(t *testing.T) {
	s := standard(2, 4, Workload{Name: "poisson", SLO: time.Second, Arrivals: Poisson{700}},
		Workload{Name: "short", SLO: 50 * time.Millisecond, Arrivals: Poisson{100}})
	s.LeaderChanges = []LeaderChange{{At: 5 * time.Second, Gap: 400 * time.Millisecond}}
	r := play(t, s)
	long, short := r.Workloads[0], r.Workloads[1]
	if long.Good != long.Requests {
		t.Errorf("of those that have the time to wait: %+v", long)
	}
	if short.Failed < 20 || short.Failed > 60 || short.Reasons[0].Reason != noLeader {
		t.Errorf("of those that don't: %+v", short)
	}
	if r.Total.ColdStarts > 100 || r.Devices[0].Loads > 4 {
		t.Errorf("the successor loads what is there: %+v", r.Devices)
	}
}

func TestADeviceBecomesSlower(t *testing.T) {
	s := standard(1, 1, Workload{Name: "closed", Arrivals: Closed{InFlight: 64}})
	s.Slowdowns = []Slowdown{{Worker: "w1", Device: -1, At: 5 * time.Second, Factor: 3}}
	r := play(t, s)
	within(t, "goodput before", float64(r.Series[3].Good), s.Ceiling(), 3)
	within(t, "goodput after", float64(r.Series[8].Good), s.Ceiling()/3, 5)
}

func TestWarmupIsNotInTheFigures(t *testing.T) {
	s := standard(1, 1, Workload{Name: "poisson", Arrivals: Poisson{100}})
	all := play(t, s)
	s.Warmup = 5 * time.Second
	half := play(t, s)
	within(t, "the requests", float64(half.Total.Requests), float64(all.Total.Requests)/2, 10)
	within(t, "the goodput", half.Total.GoodputPerSecond, all.Total.GoodputPerSecond, 10)
	if half.Total.ColdStarts != 0 || all.Total.ColdStarts == 0 {
		t.Errorf("%d and %d cold starts", half.Total.ColdStarts, all.Total.ColdStarts)
	}
}

func TestBadScenariosAreRefused(t *testing.T) {
	load := Workload{Name: "load", Arrivals: Poisson{1}}
	for want, change := range map[string]func(*Scenario){
		"duration":  func(s *Scenario) { s.Duration = 0 },
		"warm-up":   func(s *Scenario) { s.Warmup = s.Duration },
		"network":   func(s *Scenario) { s.Network.Jitter = time.Second },
		"at least":  func(s *Scenario) { s.Workloads = nil },
		"model 4":   func(s *Scenario) { s.Workloads = []Workload{{Name: "x", Models: []int{4}, Arrivals: Poisson{1}}} },
		"rate":      func(s *Scenario) { s.Workloads[0].Arrivals = Poisson{math.NaN()} },
		"in flight": func(s *Scenario) { s.Workloads[0].Arrivals = Closed{} },
		"name of a": func(s *Scenario) { s.Failures = []Failure{{Worker: "w9"}} },
		"device 1":  func(s *Scenario) { s.Slowdowns = []Slowdown{{Worker: "w1", Device: 1, Factor: 2}} },
		"in order":  func(s *Scenario) { s.LeaderChanges = []LeaderChange{{At: 1, Gap: 5}, {At: 3}} },
		"own":       func(s *Scenario) { s.Workers = append(s.Workers, s.Workers[0]) },
		"ascend": func(s *Scenario) {
			s.Models[0].Profiles = []Profile{{Execution: []scheduler.RowsTime{{Rows: 2, Time: 1}, {Rows: 1, Time: 1}}}}
		},
		"no profile":  func(s *Scenario) { s.Models[0].Profiles = nil },
		"executions":  func(s *Scenario) { s.ExecutionJitter = 2 },
		"negative":    func(s *Scenario) { s.Workloads[0].SLO = -1 },
		"before it s": func(s *Scenario) { s.Workloads[0].Start, s.Workloads[0].Stop = 2, 1 },
	} {
		s := standard(1, 4, load)
		change(&s)
		if _, err := Run(s, ours); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q: %v", want, err)
		}
	}
}

func TestARunCanBeStopped(t *testing.T) {
	s := standard(1, 1, Workload{Name: "long", Arrivals: Poisson{1000}})
	s.Duration = 1000 * time.Hour
	asked := 0
	s.Stopped = func() bool { asked++; return asked == 3 }
	if _, err := Run(s, ours); err != ErrStopped || asked != 3 {
		t.Errorf("%v after %d questions", err, asked)
	}
}

func TestOverheadIsPartOfEachBatch(t *testing.T) {
	s := standard(1, 1, Workload{Name: "two", Arrivals: Trace{[]Arrival{{0, 0}, {time.Second, 0}}}})
	s.Network, s.ExecutionOverhead = Network{}, 600*time.Microsecond
	s.Workers[0].Devices[0].Slowdown = 2
	r := play(t, s)
	within(t, "the second latency", r.Total.Latency.P50, 2*3.322+0.6, 0.5)
}
