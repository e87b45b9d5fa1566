package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/scheduler"
	"github.com/orrery-project/orrery/scheduler/sim"
)

// simulationPlan is what is to be played: each SLO with each load, each policy
// and each seed.
type simulationPlan struct {
	base     sim.Scenario
	policies []string
	options  scheduler.Options
	seeds    int
	// slos replace those of all workloads that have one; nil: they stay.
	slos []time.Duration
	// loads are in percent of the ceiling; nil: as the workloads say.
	loads []float64
	// remake, if not nil, makes the base for another SLO.
	remake func(slo time.Duration) (sim.Scenario, error)
}

// simulated is what came of one line of the plan: one run for each seed.
type simulated struct {
	policy string
	slo    time.Duration // 0: as the workloads say
	load   float64       // 0: as the workloads say
	runs   []*sim.Report
	real   realTime
}

// realTime is how long playing took.
type realTime struct {
	all, policy time.Duration
	decisions   uint64
	requests    uint64
}

// exclusive are flags that each say when requests come; only one can be given.
func exclusive() []string { return []string{"rate", "load", "closed", "trace", "functions"} }

// fleetFlags are those that make a fleet or its traffic, which a file or an
// experiment has of its own.
func fleetFlags() []string {
	return []string{"pages", "cv", "zipf", "trace", "functions", "speed", "rows"}
}

func (f *simulateFlags) plan(c *cobra.Command) (*simulationPlan, error) {
	p := &simulationPlan{
		policies: f.compare, seeds: f.seeds, loads: f.loads, slos: f.slos,
		options: scheduler.Options{ScheduleAhead: f.scheduleAhead, NetworkLag: f.networkLag},
	}
	if len(p.policies) == 0 {
		p.policies = []string{f.policy}
	}
	var err error
	switch {
	case f.scenario != "":
		err = f.fromFile(c, p)
	case f.experiment != "":
		err = f.fromExperiment(c, p)
	default:
		err = f.fromFlags(c, p)
	}
	if err != nil {
		return nil, err
	}
	if err := f.addFaults(&p.base); err != nil {
		return nil, err
	}
	for _, name := range p.policies { // a file may name others than check has seen
		if _, err := scheduler.New(name, p.options); err != nil {
			return nil, err
		}
	}
	if (len(p.loads) > 0 || f.capacity > 0) && p.base.Rate() == 0 {
		return nil, errors.New("--load and --find-capacity need requests that come by themselves, and closed loops don't")
	}
	p.base.Timeline = sim.Timeline{From: f.timelineFrom, For: f.timeline_, Limit: timelineSpans}
	return p, nil
}

// timelineSpans bounds the timeline of a page.
const timelineSpans = 4000

func (f *simulateFlags) check(c *cobra.Command) error {
	given := c.Flags().Changed
	var arrivals []string
	for _, name := range exclusive() {
		if given(name) {
			arrivals = append(arrivals, "--"+name)
		}
	}
	switch {
	case f.output != "table" && f.output != "json":
		return fmt.Errorf("--output is %q: it must be table or json", f.output)
	case len(arrivals) > 1:
		return fmt.Errorf("%s and %s exclude each other", arrivals[0], arrivals[1])
	case given("policy") && given("compare"):
		return errors.New("--policy and --compare exclude each other")
	case f.scenario != "" && f.experiment != "":
		return errors.New("--scenario and --experiment exclude each other")
	case f.seeds < 1 || f.seeds > 1000:
		return fmt.Errorf("--seeds is %d: it is from 1 to 1000", f.seeds)
	case given("find-capacity") && !(f.capacity > 0 && f.capacity <= 100):
		return fmt.Errorf("--find-capacity is %v: it is a percentage above 0, at most 100", f.capacity)
	case f.capacity > 0 && (len(f.loads) > 0 || f.page != ""):
		return errors.New("--find-capacity chooses the loads itself, and has no page")
	case f.devices < 0 || f.devices > 10_000 || f.models < 0 || f.models > 100_000:
		return fmt.Errorf("--devices is %d and --models is %d: they are from 1 to 10000 and 100000", f.devices, f.models)
	case f.rows < 1 || !(f.speed > 0):
		return errors.New("--rows is at least 1, --speed above 0")
	case f.timelineFrom < 0 || f.timeline_ < 0:
		return errors.New("--timeline-from and --timeline-for can't be negative")
	}
	if f.scenario+f.experiment == "" && len(arrivals) == 0 && f.capacity == 0 {
		return errors.New("say when requests come: by --rate, --load, --closed, --trace or --functions, or by --experiment or --scenario")
	}
	for _, name := range append(slices.Clone(f.compare), f.policy) {
		if _, err := scheduler.New(name, scheduler.Options{}); err != nil {
			return err
		}
	}
	if err := f.addFaults(&sim.Scenario{}); err != nil {
		return err
	}
	for _, load := range f.loads {
		if !(load > 0 && load <= 100_000) {
			return fmt.Errorf("--load has %v: it is in percent, above 0", load)
		}
	}
	other := f.scenario + f.experiment
	for _, name := range fleetFlags() {
		if other != "" && given(name) {
			return fmt.Errorf("--%s does not go with --scenario or --experiment", name)
		}
	}
	for _, name := range []string{"devices", "models", "profile", "profiles", "rate", "closed", "seed", "duration", "warmup",
		"network", "jitter", "execution-jitter", "policy", "schedule-ahead", "network-lag"} {
		if f.scenario != "" && given(name) && !slices.Contains([]string{"seed", "policy", "duration", "warmup"}, name) {
			return fmt.Errorf("--%s does not go with --scenario: write it in the file", name)
		}
	}
	return nil
}

// fromFlags makes the scenario that the flags describe.
func (f *simulateFlags) fromFlags(c *cobra.Command, p *simulationPlan) error {
	profile, err := f.profileModel()
	if err != nil {
		return err
	}
	models := max(1, f.models)
	if !c.Flags().Changed("models") {
		models = 4
	}
	load := sim.Workload{Name: "load", SLO: 100 * time.Millisecond, Rows: f.rows, Zipf: f.zipf}
	if len(p.slos) == 1 {
		load.SLO = p.slos[0]
	}
	p.base = sim.Scenario{
		Name: "simulation", Seed: f.seed, Duration: 30 * time.Second, Warmup: f.warmup, ExecutionJitter: f.executionJitter,
		Network: sim.Network{Delay: f.network, Jitter: f.jitter}, Models: sim.Copies([]sim.Model{profile}, models),
		Workers: sim.Fleet(max(1, f.devices), 1, sim.Device{Kind: "gpu", Pages: f.pages, PageBytes: 16 << 20}),
	}
	if c.Flags().Changed("duration") {
		p.base.Duration = f.duration
	}
	rate := f.rate
	if len(p.loads) > 0 || f.capacity > 0 && rate == 0 {
		rate = p.base.Ceiling() / float64(f.rows) // play scales it
	}
	switch {
	case f.closed != 0:
		load.Arrivals = sim.Closed{InFlight: f.closed}
	case f.trace != "":
		load.Arrivals, err = readArrivals(f.trace, f.speed)
	case f.day != "":
		load.Arrivals, err = readDay(f.day, models, f.speed)
	case f.cv != 1:
		load.Arrivals = sim.Gamma{Rate: rate, CV: f.cv}
	default:
		load.Arrivals = sim.Poisson{Rate: rate}
	}
	p.base.Workloads = []sim.Workload{load}
	if length := lengthOf(load.Arrivals); length > 0 && !c.Flags().Changed("duration") {
		p.base.Duration = length
	}
	return err
}

// lengthOf is how long what was read from a file goes on, in whole seconds; 0 for
// what has no end.
func lengthOf(a sim.Arrivals) time.Duration {
	switch a := a.(type) {
	case sim.Trace:
		return a.Arrivals[len(a.Arrivals)-1].At.Truncate(time.Second) + time.Second
	case sim.Functions:
		return time.Duration(len(a.Minutes)) * time.Minute
	}
	return 0
}

func (f *simulateFlags) fromExperiment(c *cobra.Command, p *simulationPlan) error {
	profile, err := f.profileModel()
	if err != nil {
		return err
	}
	p.remake = func(slo time.Duration) (sim.Scenario, error) {
		s, err := sim.Experiment(f.experiment, sim.Preset{
			Seed: f.seed, Duration: f.duration, SLO: slo, Rate: f.rate, Models: f.models, Devices: f.devices, InFlight: f.closed,
			Profiles: []sim.Model{profile}, Kind: "gpu",
		})
		given := c.Flags().Changed
		if given("network") || given("jitter") {
			s.Network = sim.Network{Delay: f.network, Jitter: f.jitter}
		}
		if given("warmup") {
			s.Warmup = f.warmup
		}
		s.ExecutionJitter = f.executionJitter
		return s, err
	}
	slo := time.Duration(0)
	if len(p.slos) > 0 {
		slo = p.slos[0]
	}
	p.base, err = p.remake(slo)
	return err
}

// simulationLine is one line of the plan.
type simulationLine struct {
	slo    time.Duration
	load   float64
	policy string
}

// lines are all lines of the plan; loads are left out where the caller chooses them.
func (p *simulationPlan) lines(loads []float64) (all []simulationLine) {
	slos := p.slos
	if len(slos) == 0 {
		slos = []time.Duration{0}
	}
	if len(loads) == 0 {
		loads = []float64{0}
	}
	for _, slo := range slos {
		for _, load := range loads {
			for _, policy := range p.policies {
				all = append(all, simulationLine{slo, load, policy})
			}
		}
	}
	return all
}

// play plays all there is.
func (p *simulationPlan) play(ctx context.Context) (all []simulated, err error) {
	for _, l := range p.lines(p.loads) {
		s, err := p.one(ctx, l.policy, l.slo, l.load)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// scenario is that of an SLO and a load, with the first seed.
func (p *simulationPlan) scenario(slo time.Duration, load float64) (s sim.Scenario, err error) {
	s = p.base
	switch {
	case len(p.slos) == 0:
	case p.remake != nil:
		if s, err = p.remake(slo); err != nil {
			return s, err
		}
		s.Failures, s.Slowdowns, s.LeaderChanges, s.Timeline = p.base.Failures, p.base.Slowdowns, p.base.LeaderChanges, p.base.Timeline
	default:
		s.Workloads = slices.Clone(s.Workloads)
		for i := range s.Workloads {
			if s.Workloads[i].SLO != 0 || slo == 0 {
				s.Workloads[i].SLO = slo
			}
		}
	}
	if load > 0 {
		s = s.Scaled(load / 100 * s.Ceiling() / s.Rate())
	}
	return s, nil
}

// one plays one line of the plan.
func (p *simulationPlan) one(ctx context.Context, policy string, slo time.Duration, load float64) (simulated, error) {
	out := simulated{policy: policy, slo: slo, load: load}
	s, err := p.scenario(slo, load)
	if err != nil {
		return out, err
	}
	first := s.Seed
	s.Stopped = func() bool { return ctx.Err() != nil }
	for i := range p.seeds {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		s.Seed = first + uint64(i)
		var watch stopwatch
		began := time.Now()
		report, err := sim.Run(s, func() scheduler.Policy {
			options := p.options
			options.Seed = s.Seed
			made, _ := scheduler.New(policy, options) // plan has checked the name
			return &timed{made, &watch}
		})
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		if err != nil {
			return out, fmt.Errorf("policy %s, seed %d: %w", policy, s.Seed, err)
		}
		report.Policy = policy
		out.runs = append(out.runs, report)
		out.real.all += time.Since(began)
		out.real.policy += watch.total
		out.real.decisions += report.Decisions
		for _, second := range report.Series {
			out.real.requests += uint64(second.Requests)
		}
	}
	return out, nil
}

// stopwatch adds up the real time that policies take.
type stopwatch struct{ total time.Duration }

// timed is a policy whose steps are timed.
type timed struct {
	scheduler.Policy
	watch *stopwatch
}

// Step implements scheduler.Policy.
func (t *timed) Step(now scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions) {
	began := time.Now()
	t.Policy.Step(now, events, out)
	t.watch.total += time.Since(began)
}
