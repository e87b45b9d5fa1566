//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/orrery-project/orrery/scheduler/sim"
)

// workload is what all policies play.
type workload struct {
	// name is what -only chooses by, label what its rows are called.
	name, label string
	scenarios   func(kit) ([]sim.Scenario, error)
	figures     []figure
	// bound: the models pooled as one show what can be had at most.
	bound bool
}

// kit is what scenarios are made of.
type kit struct {
	model sim.Model
	span  time.Duration
	seed  uint64
}

// experiment makes one by its name, for the span unless the preset has a duration.
func (k kit) experiment(name string, p sim.Preset) (sim.Scenario, error) {
	p.Seed, p.Profiles, p.Kind = k.seed, []sim.Model{k.model}, "gpu"
	if p.Duration == 0 {
		p.Duration = k.span
	}
	return sim.Experiment(name, p)
}

// one is the scenarios of a workload that has one.
func one(make func(kit) (sim.Scenario, error)) func(kit) ([]sim.Scenario, error) {
	return func(k kit) ([]sim.Scenario, error) {
		s, err := make(k)
		return []sim.Scenario{s}, err
	}
}

// at is an experiment at a share of its ceiling.
func at(load float64, name string, p sim.Preset) func(kit) (sim.Scenario, error) {
	return func(k kit) (sim.Scenario, error) {
		s, err := k.experiment(name, p)
		if err != nil {
			return s, err
		}
		return s.Scaled(load * s.Ceiling() / s.Rate()), nil
	}
}

// tables are all workloads.
func tables() []table {
	return []table{
		{"1 device, 4 models, Poisson, SLO 100 ms", append(poisson(inTime(), 50, 80, 95),
			poisson(ofCeiling(), 110, 200, 1000)...)},
		{"6.1: 1 device, 15 models, closed loops of 16", closedLoops(25, 50, 100, 250)},
		{"6.3: 6 devices, ever longer SLOs", tighter()},
		{"6.4: 6 devices, 6 models at 200/s with an SLO of 100 ms, beside batch work", besideBatches()},
		{"2 devices with room for 196 models each, loads of the ceiling, the second half", manyModels()},
		{"devices that change, SLO 100 ms", slower()},
		{"1 device, 4 models, 2 tenants", neighbours()},
		{"1 device, 4 models, 2 priorities", ranks()},
		{"1 device, 4 models, gamma with a coefficient of variation of 4", bursty()},
	}
}

// poisson is loads in percent of the ceiling, each with a figure before the
// others.
func poisson(first figure, loads ...float64) (all []workload) {
	for _, load := range loads {
		figures := []figure{first, late(), p50(), p99(), batchRows()}
		all = append(all, workload{
			name: fmt.Sprintf("poisson-%.0f", load), label: fmt.Sprintf("%.0f %% of the ceiling", load),
			scenarios: one(at(load/100, "poisson", sim.Preset{})), figures: figures, bound: true,
		})
	}
	return all
}

func closedLoops(slos ...int) (all []workload) {
	for _, slo := range slos {
		all = append(all, workload{
			name: fmt.Sprintf("6.1-%dms", slo), label: fmt.Sprintf("SLO %d ms", slo),
			scenarios: one(func(k kit) (sim.Scenario, error) {
				return k.experiment("6.1", sim.Preset{SLO: time.Duration(slo) * time.Millisecond, Duration: k.span / 2})
			}),
			figures: []figure{goodput(), late(), batchRows()}, bound: true,
		})
	}
	return all
}
