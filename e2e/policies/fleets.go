//go:build linux

package main

import (
	"fmt"
	"math"

	"github.com/orrery-project/orrery/scheduler/sim"
)

// tighter is 6.3: with each number of models and rate, the tightest SLO that is
// kept, and what is kept at each one between hopeless and easy.
func tighter() (all []workload) {
	for _, c := range []struct {
		models int
		rate   float64
	}{{12, 600}, {12, 1200}, {12, 2400}, {48, 1200}} {
		figures := []figure{tightest()}
		for step := 2; step <= 7; step++ {
			figures = append(figures, ofStep(step))
		}
		all = append(all, workload{
			name: fmt.Sprintf("6.3-%d-%.0f", c.models, c.rate), label: fmt.Sprintf("%d models, %.0f/s", c.models, c.rate),
			scenarios: one(func(k kit) (sim.Scenario, error) {
				return k.experiment("6.3", sim.Preset{Models: c.models, Rate: c.rate, Duration: k.span / 6})
			}),
			figures: figures, bound: true,
		})
	}
	return all
}

// tightShare is how many have to be in time for an SLO to be kept.
const tightShare = 0.99

// tightest is the SLO, in multiples of the time for one row, from which on all
// are kept.
func tightest() figure {
	return figure{fmt.Sprintf("least SLO at which %.0f %% are in time", 100*tightShare), multiple, func(r *result) float64 {
		s, groups := &r.scenarios[0], r.reports[0].Workloads
		slo := math.Inf(1)
		for i := len(groups) - 1; i >= 0 && groups[i].Attainment >= tightShare; i-- {
			slo = s.Workloads[i].SLO.Seconds()
		}
		return slo / s.Models[0].Profiles[0].Execution[0].Time.Seconds()
	}}
}

// ofStep is what is in time at one of the SLOs of 6.3.
func ofStep(step int) figure {
	slo := 2.9 * math.Pow(1.5, float64(step))
	return figure{fmt.Sprintf("in time at %.1f ms", slo), percent, func(r *result) float64 {
		return r.reports[0].Workloads[step].Attainment
	}}
}

// besideBatches is 6.4, with and without batch work beside.
func besideBatches() (all []workload) {
	for _, c := range []struct{ models, inFlight int }{{0, 0}, {12, 16}, {48, 4}} {
		w := workload{
			name: fmt.Sprintf("6.4-%d", c.models), label: fmt.Sprintf("%d batch models in loops of %d", c.models, c.inFlight),
			scenarios: one(func(k kit) (sim.Scenario, error) {
				s, err := k.experiment("6.4", sim.Preset{Models: c.models, InFlight: c.inFlight})
				if c.models == 0 && err == nil {
					s.Workloads = s.Workloads[:1]
				}
				return s, err
			}),
			figures: []figure{
				group(0, "sensitive", "sensitive: in time", percent, attainment),
				group(0, "sensitive", "p50", milliseconds, median), group(0, "sensitive", "p99", milliseconds, p99Of),
			},
		}
		if c.models == 0 {
			w.label = "the sensitive alone"
		} else {
			w.figures = append(w.figures, group(0, "batch", "batch: goodput", perSecond, func(g *sim.Group) float64 { return g.GoodRowsPerSecond }))
		}
		all = append(all, w)
	}
	return all
}

// manyModels is as many models as the devices have room for, and more. Where all
// are asked alike there is seldom more than one request to a batch: then two
// devices can do 602 a second, which 70 % of the ceiling exceed.
func manyModels() (all []workload) {
	for _, c := range []struct {
		models     int
		zipf, load float64
	}{{390, 0, 70}, {390, 1.1, 70}, {411, 0, 30}, {411, 0, 70}, {411, 1.1, 70}, {4000, 0, 70}, {4000, 1.1, 70}} {
		popularity, label := "even", "all alike"
		if c.zipf > 0 {
			popularity, label = "zipf", fmt.Sprintf("Zipf %.1f", c.zipf)
		}
		all = append(all, workload{
			name: fmt.Sprintf("many-%d-%s-%.0f", c.models, popularity, c.load), label: fmt.Sprintf("%d models, %s, %.0f %%", c.models, label, c.load),
			figures: []figure{inTime(), goodput(), batchRows(), loads(), coldStarts()}, bound: true,
			scenarios: one(func(k kit) (sim.Scenario, error) {
				p := sim.Preset{Models: c.models}
				if c.models == 390 {
					p.Duration = 2 * k.span // a span to load them all, and one more
				}
				s, err := at(c.load/100, "many-models", p)(k)
				if err == nil {
					s.Workloads[0].Zipf = c.zipf
				}
				return s, err
			}),
		})
	}
	return all
}

// slower is devices that become slow, and lost a device that goes, at loads in
// percent.
func slower() (all []workload) {
	for _, load := range []float64{60, 95} {
		all = append(all, workload{
			name: fmt.Sprintf("slowdown-%.0f", load), label: fmt.Sprintf("4 of 20 become 3 × slower, %.0f %%", load),
			scenarios: one(at(load/100, "slowdown", sim.Preset{})), figures: []figure{recovery(), achieved(), inTime(), late()}, bound: true,
		})
	}
	return append(all, workload{
		name: "lost-90", label: "1 of 4 is lost, 90 %", scenarios: one(at(0.9, "lost", sim.Preset{})),
		figures: []figure{recovery(), achieved(), inTime(), late()}, bound: true,
	})
}

// neighbours is two tenants, one of whom floods in the second run.
func neighbours() []workload {
	figures := []figure{}
	for run, title := range []string{"a at 40 %: b in time", "a at 500 %: b in time"} {
		figures = append(figures, group(run, "b", title, percent, attainment), group(run, "b", "p50", milliseconds, median),
			group(run, "b", "p99", milliseconds, p99Of))
	}
	ratio := figure{"ratio of the p99", plain, func(r *result) float64 { return figures[5].of(r) / figures[2].of(r) }}
	return []workload{{name: "tenants", label: "b offers 40 % of the ceiling", figures: append(figures[:6:6], ratio),
		scenarios: func(k kit) ([]sim.Scenario, error) {
			flood, err := k.experiment("tenants", sim.Preset{})
			if err != nil {
				return nil, err
			}
			calm := flood
			calm.Workloads = append([]sim.Workload{}, flood.Workloads...)
			calm.Workloads[0].Arrivals = calm.Workloads[1].Arrivals
			return []sim.Scenario{calm, flood}, nil
		}}}
}

func ranks() []workload {
	return []workload{{name: "priorities", label: "150 % of the ceiling", scenarios: one(at(1.5, "priorities", sim.Preset{})),
		figures: []figure{
			group(0, "first", "priority 1, a third: in time", percent, attainment),
			group(0, "second", "priority 2: in time", percent, attainment), ofCeiling(),
		}}}
}

func bursty() []workload {
	return []workload{{name: "bursts", label: "70 % of the ceiling", bound: true, scenarios: one(at(0.7, "bursts", sim.Preset{})),
		figures: []figure{inTime(), late(), p50(), p99(), batchRows()}}}
}
