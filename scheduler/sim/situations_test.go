package sim

import (
	"math"
	"strings"
	"testing"
	"time"
)

func situation(t *testing.T, name string, p Preset) Scenario {
	t.Helper()
	p.Seed, p.Profiles, p.Kind = 1, []Model{resnet50()}, "V100"
	s, err := Experiment(name, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOurOwnExperiments(t *testing.T) {
	for name, want := range map[string]struct {
		devices, models, pages int
		load                   float64
	}{
		"poisson":     {1, 4, presetPages, 0.8},
		"bursts":      {1, 4, presetPages, 0.7},
		"many-models": {2, 411, 1372, 0.7},
		"slowdown":    {20, 40, presetPages, 0.6},
		"lost":        {4, 8, presetPages, 0.9},
		"tenants":     {1, 4, presetPages, 5.4},
		"priorities":  {1, 4, presetPages, 1.5},
	} {
		s := situation(t, name, Preset{})
		if len(s.Workers) != want.devices || len(s.Models) != want.models || s.Workers[0].Devices[0].Pages != want.pages || s.Duration != time.Minute {
			t.Errorf("%s: %d devices of %d pages, %d models, %v", name, len(s.Workers), s.Workers[0].Devices[0].Pages, len(s.Models), s.Duration)
		}
		within(t, name+": the load", s.Rate()/s.Ceiling(), want.load, 1e-6)
		if scaled := situation(t, name, Preset{Rate: 100}); math.Abs(scaled.Rate()-100) > 1e-6 {
			t.Errorf("%s: %v/s, want 100", name, scaled.Rate())
		}
	}
	if s := situation(t, "slowdown", Preset{Duration: 10 * time.Second}); len(s.Slowdowns) != 4 || s.Slowdowns[3].At != 3*time.Second {
		t.Errorf("%+v", s.Slowdowns)
	}
	if FaultAt(2*time.Second) != 2*time.Second/3 {
		t.Error("the fault of a short run is not within it")
	}
}

func TestTheCeilingAfterFaults(t *testing.T) {
	s := situation(t, "slowdown", Preset{})
	one := s.Ceiling() / 20
	for at, devices := range map[time.Duration]float64{0: 20, 20*time.Second - 1: 20, 20 * time.Second: 16 + 4.0/3} {
		within(t, "the ceiling with slow devices", s.CeilingAt(at), devices*one, 1e-6)
	}
	s.Slowdowns = append(s.Slowdowns, Slowdown{Worker: "w1", At: 30 * time.Second, Factor: 1}, Slowdown{Worker: "w9", At: 40 * time.Second, Factor: 2})
	within(t, "the ceiling when one is as before", s.CeilingAt(30*time.Second), (17+1)*one, 1e-6)
	within(t, "the ceiling with a slow one more", s.CeilingAt(time.Minute), 17.5*one, 1e-6)

	s = situation(t, "lost", Preset{})
	s.Failures = append(s.Failures, Failure{Worker: "w2", At: 30 * time.Second, For: 5 * time.Second})
	for at, devices := range map[time.Duration]float64{19 * time.Second: 4, 20 * time.Second: 3, 30 * time.Second: 2, 35 * time.Second: 3} {
		within(t, "the ceiling with lost devices", s.CeilingAt(at), devices*one, 1e-6)
	}
}

func TestRecovery(t *testing.T) {
	report := func(good ...int) *Report {
		r := &Report{DurationSeconds: float64(len(good))}
		for i, g := range append(good, 0) { // what is answered after the end counts for nothing
			r.Series = append(r.Series, Second{Second: i, Requests: 100, Good: g})
		}
		return r
	}
	for _, test := range []struct {
		ceiling float64
		good    []int
		want    int
		ok      bool
	}{
		{1000, []int{100, 100, 100, 100}, 0, true},
		{1000, []int{100, 50, 96, 97, 100}, 2, true},
		{1000, []int{100, 100, 50, 100, 50, 100}, 4, true},
		{1000, []int{100, 100, 50, 50}, 3, false},
		{60, []int{100, 40, 59, 60}, 1, true},
	} {
		if got, ok := report(test.good...).RecoveredAfter(time.Second, 0.97, test.ceiling); got != test.want || ok != test.ok {
			t.Errorf("%v: %d, %v", test.good, got, ok)
		}
	}
	within(t, "what was achieved", report(100, 40, 50, 0).Achieved(time.Second, 3*time.Second, 60), 0.75, 1e-6)
}

// Pooled models have the same requests, and their batches are fuller.
func TestPooledModels(t *testing.T) {
	s := situation(t, "poisson", Preset{Rate: 700, Duration: 20 * time.Second})
	apart, pooled := play(t, s), play(t, s.Pooled())
	if apart.Total.Requests != pooled.Total.Requests || pooled.MeanBatchRows <= apart.MeanBatchRows || len(pooled.Models) != 1 || len(s.Models) != 4 {
		t.Errorf("%d and %d requests, %v and %v rows a batch", apart.Total.Requests, pooled.Total.Requests, apart.MeanBatchRows, pooled.MeanBatchRows)
	}
	for name, inFlight := range map[string]int{"6.1": 240, "6.4": 192} {
		p := situation(t, name, Preset{}).Pooled()
		if got := p.Workloads[len(p.Workloads)-1].Arrivals.(Closed).InFlight; got != inFlight || !strings.HasSuffix(p.Name, "pooled") {
			t.Errorf("%s: %d in flight, %s", name, got, p.Name)
		}
	}
	day := Functions{[][]float64{{1, 2}, {3, 4}}}.pooled(2).(Functions)
	if len(day.Minutes) != 2 || day.Minutes[1][0] != 7 {
		t.Errorf("%v", day)
	}
	holds := standard(1, 3)
	holds.Workers[0].Holds = []int{1, 2}
	if p := holds.Pooled(); len(p.Workers[0].Holds) != 1 || p.Workers[0].Holds[0] != 0 || len(holds.Workers[0].Holds) != 2 {
		t.Errorf("%v", p.Workers[0].Holds)
	}
}

func TestTables(t *testing.T) {
	const text = "model,weights_MB,weights_load_ms,b1_ms,b4_ms,note\nsmall,,,1,,x\nlarge,120,5,2,6.5,\nempty,1,1,,,\nbad,,,x,,\n"
	table, err := ReadTable("t", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := table.Model("large")
	if p := m.Profiles[0]; err != nil || m.WeightsBytes != 120e6 || p.WeightsLoad != us(5000) || len(p.Execution) != 2 || p.Execution[1].Time != us(6500) {
		t.Errorf("%+v, %v", m, err)
	}
	// What is left out is what the emulated engine takes it for.
	m, err = table.Model("small")
	if p := m.Profiles[0]; err != nil || m.WeightsBytes != 16<<20 || p.WeightsLoad.Round(time.Microsecond) != us(1398) {
		t.Errorf("%+v, %v", m, err)
	}
	for name, want := range map[string]string{"none": "it has small, large", "empty": "no execution time", "bad": `"x" is not a number`} {
		if _, err := table.Model(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "model\n", "a,b\n1,2\n", "model\n\"\n"} {
		if _, err := ReadTable("t", strings.NewReader(text)); err == nil {
			t.Errorf("%q was taken for a table", text)
		}
	}
}
