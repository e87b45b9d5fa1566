package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Preset is the parameters of an experiment. Zero values mean the published ones,
// which Experiment documents; not every experiment has all of them.
type Preset struct {
	Seed     uint64
	Duration time.Duration
	SLO      time.Duration
	// Rate is requests a second of all open workloads together.
	Rate float64
	// Models and Devices are how many.
	Models, Devices int
	// InFlight is that of each model of a closed loop.
	InFlight int
	// Profiles are those of the models in turn. There must be at least one.
	Profiles []Model
	// Kind of the devices.
	Kind string
}

// Page sizes and counts of the published experiments: 16 MiB, and room for about
// 200 models like ResNet50 of seven pages.
const (
	presetPageBytes = 16 << 20
	presetPages     = 1400
)

// published are the names of the experiments that were published for Clockwork.
func published() []string { return []string{"6.1", "6.2", "6.3", "6.4", "6.5", "6.6"} }

// Experiments are the names of all experiments.
func Experiments() []string {
	// order: sorted.
	return append(published(), slices.Sorted(maps.Keys(situations()))...)
}

// Experiment is an experiment by its name. Published are
//
//   - 6.1: one device; 15 models, each a closed loop of 16; SLO 100 ms (published
//     are 10, 25, 50, 100, 250 and 500 ms: give each); 30 s, 5 s of them warm-up.
//   - 6.2: one device; one model at 200 requests/s, and 1,000/s spread over a set
//     that grows by one model a second; SLO 100 ms; 3,600 models and 1 h, of which
//     Models and Duration take a part. Weights of 200 models fit.
//   - 6.3: six devices; 12 models (published also 48); Poisson of 1,200/s
//     (published also 600 and 2,400) in all; the SLO begins at 2.9 ms and grows by
//     half each 30 s, past 100 times: thirteen workloads, one after the other. SLO
//     is the first one, Duration that of a step.
//   - 6.4: six devices; 6 models at 200/s in all with an SLO of 100 ms; beside them
//     12 models in closed loops of 16 without a deadline (published also none, and
//     48 of 4). Models and InFlight are those of the closed loops, Rate that of the
//     others; 60 s, 5 s of them warm-up.
//   - 6.5: six devices on six workers; 61 × 66 = 4,026 models; SLO 100 ms; a
//     SYNTHETIC stand-in for the Azure trace with 40,000 functions and a tenth of
//     the published mean of 9,638/s; 10 min. The command replays a real file.
//   - 6.6: ten workers (published are 10 to 150: give Devices) of one device, ten
//     models; Poisson that begins at a quarter of the ceiling and grows by half
//     each minute, six workloads; SLO 100 ms. Rate is the first one, Duration that
//     of a step.
//
// Our own have devices on workers of their own, an SLO of 100 ms, and take 1 min:
//
//   - poisson: one device, 4 models, at 80 % of the ceiling.
//   - bursts: the same at 70 %, with a coefficient of variation of 4.
//   - many-models: two devices with room for 196 models each, 411 models, at 70 %;
//     the second half is measured.
//   - slowdown: twenty devices, 40 models, at 60 %; after a third of the time a
//     fifth of the devices takes three times as long.
//   - lost: four devices, 8 models, at 90 %; after a third of the time one dies.
//   - tenants: one device, 4 models; tenant a offers 500 % of the ceiling, ten times
//     its half of it, and tenant b 40 %.
//   - priorities: one device, 4 models, at 150 %: a third with priority 1, the
//     others with 2.
//
// All have a network of 1 ms ± 0.2 ms each way and no jitter of execution.
func Experiment(name string, p Preset) (Scenario, error) {
	if len(p.Profiles) == 0 {
		return Scenario{}, fmt.Errorf("experiment %s needs at least one profile", name)
	}
	if p.Models < 0 || p.Devices < 0 || p.InFlight < 0 || p.Rate < 0 || p.SLO < 0 || p.Duration < 0 {
		return Scenario{}, fmt.Errorf("experiment %s: no parameter can be negative", name)
	}
	maker := map[string]func(Preset) Scenario{
		"6.1": closedLoops, "6.2": growingSet, "6.3": tighterAndTighter, "6.4": besideBatchWork, "6.5": replay, "6.6": ramp,
	}[name]
	if maker == nil {
		maker = situations()[name]
	}
	if maker == nil {
		return Scenario{}, fmt.Errorf("there is no experiment %q; the experiments are %s", name, strings.Join(Experiments(), ", "))
	}
	s := maker(p)
	s.Name, s.Seed = "experiment "+name, p.Seed
	s.Network = Network{Delay: time.Millisecond, Jitter: 200 * time.Microsecond}
	return s, nil
}

// or is the value, or the default for 0.
func or[T comparable](value, missing T) T {
	var zero T
	if value == zero {
		return missing
	}
	return value
}

// Fleet makes so many workers w1, w2, … of so many devices each.
func Fleet(workers, devices int, d Device) (all []Worker) {
	for i := range workers {
		all = append(all, Worker{Name: fmt.Sprintf("w%d", i+1), Devices: slices.Repeat([]Device{d}, devices)})
	}
	return all
}

// Copies are n models with the profiles of some in turn. Those of the first are
// called resnet-1, resnet-2 and so on.
func Copies(of []Model, n int) (all []Model) {
	for i := range n {
		m := of[i%len(of)]
		m.Name = fmt.Sprintf("%s-%d", m.Name, i/len(of)+1)
		all = append(all, m)
	}
	return all
}

func (p Preset) fleet(workers, devices int) []Worker {
	return Fleet(workers, devices, Device{Kind: p.Kind, Pages: presetPages, PageBytes: presetPageBytes})
}

// indices are from, from+1, …, to-1.
func indices(from, to int) (all []int) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func closedLoops(p Preset) Scenario {
	return Scenario{
		Duration: or(p.Duration, 30*time.Second), Warmup: or(p.Duration, 30*time.Second) / 6,
		Models: Copies(p.Profiles, or(p.Models, 15)), Workers: p.fleet(or(p.Devices, 1), 1),
		Workloads: []Workload{{Name: "closed", SLO: or(p.SLO, 100*time.Millisecond), Arrivals: Closed{InFlight: or(p.InFlight, 16)}}},
	}
}

func growingSet(p Preset) Scenario {
	models := or(p.Models, 3600)
	rate := or(p.Rate, 1200)
	slo := or(p.SLO, 100*time.Millisecond)
	return Scenario{
		Duration: or(p.Duration, time.Duration(models)*time.Second),
		Models:   Copies(p.Profiles, models+1), Workers: p.fleet(or(p.Devices, 1), 1),
		Workloads: []Workload{
			{Name: "main", Models: []int{0}, SLO: slo, Arrivals: Poisson{rate / 6}},
			{Name: "growing", Models: indices(1, models+1), Growth: time.Second, SLO: slo, Arrivals: Poisson{rate * 5 / 6}},
		},
	}
}

func tighterAndTighter(p Preset) Scenario {
	const steps = 13 // 1.5¹² = 130
	step := or(p.Duration, 30*time.Second)
	s := Scenario{
		Duration: steps * step,
		Models:   Copies(p.Profiles, or(p.Models, 12)), Workers: p.fleet(or(p.Devices, 6), 1),
	}
	slo := or(p.SLO, 2900*time.Microsecond)
	for i := range steps {
		s.Workloads = append(s.Workloads, Workload{
			Name: fmt.Sprintf("SLO %.1f ms", ms(slo)), SLO: slo, Arrivals: Poisson{or(p.Rate, 1200)},
			Start: time.Duration(i) * step, Stop: time.Duration(i+1) * step,
		})
		slo = slo * 3 / 2
	}
	return s
}

func besideBatchWork(p Preset) Scenario {
	const sensitive = 6
	batch := or(p.Models, 12)
	duration := or(p.Duration, time.Minute)
	return Scenario{
		Duration: duration, Warmup: duration / 12,
		Models: Copies(p.Profiles, sensitive+batch), Workers: p.fleet(or(p.Devices, 6), 1),
		Workloads: []Workload{
			{Name: "sensitive", Models: indices(0, sensitive), SLO: or(p.SLO, 100*time.Millisecond), Arrivals: Poisson{or(p.Rate, 200)}},
			{Name: "batch", Models: indices(sensitive, sensitive+batch), Arrivals: Closed{InFlight: or(p.InFlight, 16)}},
		},
	}
}

func replay(p Preset) Scenario {
	const functions = 40_000
	models := or(p.Models, 61*66)
	duration := or(p.Duration, 10*time.Minute)
	minutes := int((duration + time.Minute - 1) / time.Minute)
	// It can't fail: there is a model, and there are functions.
	trace, _ := SyntheticFunctions(p.Seed, functions, models, minutes, or(p.Rate, 964))
	return Scenario{
		Duration: duration, Models: Copies(p.Profiles, models), Workers: p.fleet(or(p.Devices, 6), 1),
		Workloads: []Workload{{Name: "synthetic functions", SLO: or(p.SLO, 100*time.Millisecond), Arrivals: trace}},
	}
}

func ramp(p Preset) Scenario {
	const steps = 6
	step := or(p.Duration, time.Minute)
	s := Scenario{
		Duration: steps * step,
		Models:   Copies(p.Profiles, or(p.Models, 10)), Workers: p.fleet(or(p.Devices, 10), 1),
	}
	rate := or(p.Rate, s.Ceiling()/4)
	for i := range steps {
		s.Workloads = append(s.Workloads, Workload{
			Name: fmt.Sprintf("%.0f/s", rate), SLO: or(p.SLO, 100*time.Millisecond), Arrivals: Poisson{rate},
			Start: time.Duration(i) * step, Stop: time.Duration(i+1) * step,
		})
		rate *= 1.5
	}
	return s
}
