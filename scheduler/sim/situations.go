package sim

import "time"

// roomyPages are those of 196 models like ResNet50, of seven pages each.
const roomyPages = 196 * 7

// situations are experiments of our own, which policies are held against.
func situations() map[string]func(Preset) Scenario {
	return map[string]func(Preset) Scenario{
		"poisson": steady, "bursts": bursts, "many-models": manyModels, "slowdown": slowdown, "lost": lost,
		"tenants": tenants, "priorities": priorities,
	}
}

// situation is a fleet of like models and devices under load, for the preset's
// or so long.
func (p Preset) situation(devices, models int, duration time.Duration) Scenario {
	return Scenario{
		Duration: or(p.Duration, duration),
		Models:   Copies(p.Profiles, or(p.Models, models)), Workers: p.fleet(or(p.Devices, devices), 1),
	}
}

// load is the preset's rate, or such a share of what the fleet can do.
func (p Preset) load(s *Scenario, share float64) float64 { return or(p.Rate, share*s.Ceiling()) }

func (p Preset) slo() time.Duration { return or(p.SLO, 100*time.Millisecond) }

func steady(p Preset) Scenario {
	s := p.situation(1, 4, time.Minute)
	s.Workloads = []Workload{{Name: "poisson", SLO: p.slo(), Arrivals: Poisson{p.load(&s, 0.8)}}}
	return s
}

func bursts(p Preset) Scenario {
	s := p.situation(1, 4, time.Minute)
	s.Workloads = []Workload{{Name: "bursts", SLO: p.slo(), Arrivals: Gamma{p.load(&s, 0.7), 4}}}
	return s
}

func manyModels(p Preset) Scenario {
	s := p.situation(2, 411, time.Minute)
	s.Warmup = s.Duration / 2
	for _, w := range s.Workers {
		w.Devices[0].Pages = roomyPages
	}
	s.Workloads = []Workload{{Name: "all", SLO: p.slo(), Arrivals: Poisson{p.load(&s, 0.7)}}}
	return s
}

// FaultAt is when the fault of the situations that have one strikes: after a
// third of the time, when a second begins.
func FaultAt(duration time.Duration) time.Duration {
	if third := (duration / 3).Truncate(time.Second); third > 0 {
		return third
	}
	return duration / 3
}

func slowdown(p Preset) Scenario {
	s := p.situation(20, 40, time.Minute)
	s.Workloads = []Workload{{Name: "all", SLO: p.slo(), Arrivals: Poisson{p.load(&s, 0.6)}}}
	for _, w := range s.Workers[:(len(s.Workers)+4)/5] {
		s.Slowdowns = append(s.Slowdowns, Slowdown{Worker: w.Name, Device: -1, At: FaultAt(s.Duration), Factor: 3})
	}
	return s
}

func lost(p Preset) Scenario {
	s := p.situation(4, 8, time.Minute)
	s.Workloads = []Workload{{Name: "all", SLO: p.slo(), Arrivals: Poisson{p.load(&s, 0.9)}}}
	s.Failures = []Failure{{Worker: s.Workers[0].Name, At: FaultAt(s.Duration)}}
	return s
}

func tenants(p Preset) Scenario {
	s := p.situation(1, 4, time.Minute)
	rate := p.load(&s, 5.4)
	s.Workloads = []Workload{
		{Name: "a", Tenant: "a", SLO: p.slo(), Arrivals: Poisson{rate * 5 / 5.4}},
		{Name: "b", Tenant: "b", SLO: p.slo(), Arrivals: Poisson{rate * 0.4 / 5.4}},
	}
	return s
}

func priorities(p Preset) Scenario {
	s := p.situation(1, 4, time.Minute)
	rate := p.load(&s, 1.5)
	s.Workloads = []Workload{
		{Name: "first", Priority: 1, SLO: p.slo(), Arrivals: Poisson{rate / 3}},
		{Name: "second", Priority: 2, SLO: p.slo(), Arrivals: Poisson{rate * 2 / 3}},
	}
	return s
}
