package main

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/scheduler"
	"github.com/orrery-project/orrery/scheduler/sim"
)

// fromFile makes what a scenario file describes.
func (f *simulateFlags) fromFile(c *cobra.Command, p *simulationPlan) error {
	file, err := configs.LoadScenario(f.scenario)
	if err != nil {
		return err
	}
	given := c.Flags().Changed
	if given("seed") {
		file.Seed = f.seed
	}
	if given("duration") {
		file.Duration = f.duration
	}
	if given("warmup") {
		file.Warmup = f.warmup
	}
	if !given("policy") && !given("compare") {
		p.policies = file.Policies
	}
	if !given("timeline-from") {
		f.timelineFrom = file.Timeline.From
	}
	if !given("timeline-for") {
		f.timeline_ = file.Timeline.For
	}
	p.options = scheduler.Options{ScheduleAhead: file.ScheduleAhead, NetworkLag: file.NetworkLag}
	p.base, err = (&scenarioFile{Scenario: file, path: f.scenario}).convert()
	return err
}

// scenarioFile is a scenario as it is written.
type scenarioFile struct {
	*configs.Scenario
	path string
	// models are the indices of the models of each name.
	models map[string][]int
}

func (f *scenarioFile) convert() (sim.Scenario, error) {
	s := sim.Scenario{
		Name: f.Name, Seed: f.Seed, Duration: f.Duration, Warmup: f.Warmup,
		Network:         sim.Network{Delay: f.Network.Delay, Jitter: f.Network.Jitter},
		ExecutionJitter: f.ExecutionJitter, ExecutionOverhead: f.ExecutionOverhead, Silence: f.Silence,
	}
	if err := f.addModels(&s); err != nil {
		return s, err
	}
	for i, w := range f.Workers {
		holds, err := f.modelsNamed(fmt.Sprintf("workers[%d].models", i), w.Models)
		if err != nil {
			return s, err
		}
		for n := range w.Count {
			device := sim.Device{Kind: w.Kind, Pages: w.Pages, PageBytes: int64(w.Page), Slowdown: w.Slowdown}
			s.Workers = append(s.Workers, sim.Worker{
				Name: numbered(w.Name, n, w.Count), Devices: slices.Repeat([]sim.Device{device}, w.Devices), Holds: holds, Speed: w.Speed,
			})
		}
	}
	for i, l := range f.Workloads {
		load, err := f.workload(fmt.Sprintf("workloads[%d]", i), l, len(s.Models))
		if err != nil {
			return s, err
		}
		s.Workloads = append(s.Workloads, load)
	}
	for _, x := range f.Failures {
		s.Failures = append(s.Failures, sim.Failure{Worker: x.Worker, At: x.At, For: x.For, Freeze: x.Freeze})
	}
	for _, x := range f.Slowdowns {
		s.Slowdowns = append(s.Slowdowns, sim.Slowdown{Worker: x.Worker, Device: x.Device, At: x.At, Factor: x.Factor})
	}
	for _, x := range f.LeaderChanges {
		s.LeaderChanges = append(s.LeaderChanges, sim.LeaderChange{At: x.At, Gap: x.Gap})
	}
	return s, nil
}

// numbered is the name of one of several workers: w2; that of a single one stays.
func numbered(name string, index, of int) string {
	if of == 1 {
		return name
	}
	return fmt.Sprintf("%s%d", name, index+1)
}

// beside is a path that is written relative to the file.
func (f *scenarioFile) beside(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(f.path), path)
}

func (f *scenarioFile) addModels(s *sim.Scenario) error {
	table, err := readProfiles(f.beside(f.Scenario.Profiles))
	if err != nil {
		return err
	}
	f.models = map[string][]int{}
	for i, m := range f.Models {
		if f.models[m.Name] != nil {
			return fmt.Errorf("%s: models[%d]: there are two models %q", f.path, i, m.Name)
		}
		model := sim.Model{MaxRows: m.MaxRows, Alone: !m.Batched, Pinned: m.Pinned}
		rows := maps.Clone(m.Profiles)
		if rows == nil {
			rows = map[string]string{}
		}
		if m.Profile != "" {
			rows[""] = m.Profile
		}
		for _, kind := range slices.Sorted(maps.Keys(rows)) {
			read, err := table.Model(rows[kind])
			if err != nil {
				return fmt.Errorf("%s: models[%d]: %w", f.path, i, err)
			}
			read.Profiles[0].Kind = kind
			model.Profiles, model.WeightsBytes = append(model.Profiles, read.Profiles...), max(model.WeightsBytes, read.WeightsBytes)
		}
		for n := range m.Copies {
			model.Name = m.Name
			if m.Copies > 1 {
				model.Name = fmt.Sprintf("%s-%d", m.Name, n+1)
				f.models[model.Name] = []int{len(s.Models)}
			}
			f.models[m.Name] = append(f.models[m.Name], len(s.Models))
			s.Models = append(s.Models, model)
		}
	}
	return nil
}

// modelsNamed are the indices of models, nil for no names.
func (f *scenarioFile) modelsNamed(where string, names []string) (all []int, err error) {
	for _, name := range names {
		found := f.models[name]
		if found == nil {
			return nil, fmt.Errorf("%s: %s: there is no model %q", f.path, where, name)
		}
		all = append(all, found...)
	}
	return all, nil
}

func (f *scenarioFile) workload(where string, l configs.ScenarioWorkload, models int) (w sim.Workload, err error) {
	w = sim.Workload{
		Name: l.Name, Zipf: l.Zipf, Growth: l.Growth, SLO: l.SLO, Priority: l.Priority, Tenant: l.Tenant, Rows: l.Rows, Start: l.Start, Stop: l.Stop,
	}
	if w.Models, err = f.modelsNamed(where+".models", l.Models); err != nil {
		return w, err
	}
	asked := cmp.Or(len(w.Models), models)
	switch l.Arrivals {
	case "closed":
		w.Arrivals = sim.Closed{InFlight: l.InFlight, Think: l.Think}
	case "poisson":
		w.Arrivals = sim.Poisson{Rate: l.Rate}
	case "gamma":
		w.Arrivals = sim.Gamma{Rate: l.Rate, CV: l.CV}
	case "trace":
		w.Arrivals, err = readArrivals(f.beside(l.File), l.Speed)
	case "functions":
		w.Arrivals, err = readDay(f.beside(l.File), asked, l.Speed)
	case "synthetic-functions":
		minutes := int(f.Duration.Minutes()) + 1
		w.Arrivals, err = sim.SyntheticFunctions(f.Seed, 10*asked, asked, minutes, l.Rate)
	}
	return w, err
}
