package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/scheduler"
	"github.com/orrery-project/orrery/scheduler/sim"
)

// simulateFlags are the flags of orrery simulate.
type simulateFlags struct {
	scenario, experiment string

	devices, models, pages int
	profile, profiles      string

	rate, cv, zipf float64
	loads          []float64
	closed, rows   int
	trace, day     string
	speed          float64
	slos           []time.Duration

	policy                    string
	compare                   []string
	scheduleAhead, networkLag time.Duration

	seeds                   int
	seed                    uint64
	duration, warmup        time.Duration
	network, jitter         time.Duration
	executionJitter         float64
	fail, freeze, slow      []string
	leaders                 []string
	output, page            string
	capacity                float64
	timelineFrom, timeline_ time.Duration
}

func (a *app) simulateCommand() *cobra.Command {
	f := &simulateFlags{}
	c := &cobra.Command{
		Use:   "simulate",
		Short: "Play a scheduling policy over a fleet that does not exist",
		Long: `Simulates clients, a controller, a network and workers, and plays the scheduler of
this very program over them: hours of traffic in seconds. Everything follows from the
seed. Devices take the times of a table (--profiles; built in are those of
models/profiles.csv); the default is one device like a V100 and four copies of
ResNet50, of which it can do 736 requests/s.

All figures are simulated, and say so. A request counts as good when it is answered
within its deadline; one that is refused does not. Latency is from the request's
arrival at the controller to its answer there.

Values with commas make a table: every SLO with every load and every policy, each
with --seeds seeds. --load is in percent of the ceiling, the most that the devices
can do in full batches. Faults are written as

  --fail w1@10s       worker w1 dies after 10 s;   w1@10s+5s: and is back 5 s later
  --freeze w1@10s+5s  it stands still instead
  --slow w1@10s*3     from then on it takes three times as long; w1/0 is one device
  --new-leader 30s    another controller leads, with a fresh policy, after 400 ms
                      without any; 30s+2s: after 2 s

Experiments are those published for Clockwork (OSDI 2020), 6.1 to 6.6, and some of our
own; docs/simulator.md has their parameters. What the flags can't say is written in a
file (--scenario); configs/scenario.yaml lists all that it can hold.`,
		Example: `  orrery simulate --rate 500 --slo 50ms
  orrery simulate --load 50,80,95,110,200 --seeds 10 --compare edf --html loads.html
  orrery simulate --devices 4 --models 12 --load 60 --fail w1@10s+5s --new-leader 20s
  orrery simulate --experiment 6.1 --slo 25ms,50ms,100ms,250ms
  orrery simulate --slo 100ms --find-capacity 99
  orrery simulate --scenario configs/scenario.yaml -o json`,
		Args: arguments(cobra.NoArgs),
	}
	f.define(c, cmp.Or(a.variable(configs.EnvOutput), "table"))
	c.RunE = func(c *cobra.Command, _ []string) error { return a.simulate(c, f) }
	return c
}

func (f *simulateFlags) define(c *cobra.Command, output string) {
	g := c.Flags()
	g.StringVar(&f.scenario, "scenario", "", "YAML `FILE` with a fleet and workloads, instead of the flags that make them")
	g.StringVar(&f.experiment, "experiment", "", "`NAME` of an experiment: "+strings.Join(sim.Experiments(), ", "))

	g.IntVar(&f.devices, "devices", 0, "devices, each on a worker of its own: w1, w2, … (default 1, or the experiment's)")
	g.IntVar(&f.models, "models", 0, "models, all copies of the profile (default 4, or the experiment's)")
	g.IntVar(&f.pages, "pages", 1400, "pages of 16 MiB on each device for weights")
	g.StringVar(&f.profile, "profile", "resnet50_v2", "`ROW` of the table of profiles")
	g.StringVar(&f.profiles, "profiles", "", "CSV `FILE` with the table, as for the emulated engine (default the one built in)")

	g.Float64Var(&f.rate, "rate", 0, "requests/s of all models together, a Poisson process")
	g.Float64SliceVar(&f.loads, "load", nil, "`PERCENT,…` of the devices' ceiling instead of a rate")
	g.Float64Var(&f.cv, "cv", 1, "coefficient of variation of the times between requests; above 1 they come in bursts")
	g.Float64Var(&f.zipf, "zipf", 0, "exponent of the models' popularity; 0: all alike")
	g.IntVar(&f.closed, "closed", 0, "`K` requests in flight for each model, instead of a rate")
	g.StringVar(&f.trace, "trace", "", "CSV `FILE` of arrivals, instead of a rate: seconds[,model], or an Azure LLM trace")
	g.StringVar(&f.day, "functions", "", "CSV `FILE` in the Azure Functions 2019 format, instead of a rate")
	g.Float64Var(&f.speed, "speed", 1, "how many times as often as in the file requests come")
	g.DurationSliceVar(&f.slos, "slo", nil, "`DURATION,…` from arrival to deadline; 0s: none (default 100ms)")
	g.IntVar(&f.rows, "rows", 1, "rows of each request")

	g.StringVar(&f.policy, "policy", scheduler.DefaultPolicy, "scheduling policy: "+strings.Join(scheduler.Policies(), ", "))
	g.StringSliceVar(&f.compare, "compare", nil, "`POLICY,…` to be played side by side")
	g.DurationVar(&f.scheduleAhead, "schedule-ahead", 0, "how much work a device is given in advance (default the policy's)")
	g.DurationVar(&f.networkLag, "network-lag", 0, "what the policy sets aside for the way to a worker and back (default the policy's)")

	g.IntVar(&f.seeds, "seeds", 1, "how many seeds to play, from --seed on")
	g.Uint64Var(&f.seed, "seed", 1, "what all chance follows from")
	g.DurationVar(&f.duration, "duration", 0, "how long clients send (default 30s, or that of the experiment or the file of arrivals)")
	g.DurationVar(&f.warmup, "warmup", 0, "part of it that is not in the figures")
	g.DurationVar(&f.network, "network", time.Millisecond, "time to a worker, and as much back")
	g.DurationVar(&f.jitter, "jitter", 200*time.Microsecond, "how much each of the two varies to either side")
	g.Float64Var(&f.executionJitter, "execution-jitter", 0, "share by which executions vary to either side")
	g.StringSliceVar(&f.fail, "fail", nil, "`WORKER@TIME[+TIME],…` that die, and are back")
	g.StringSliceVar(&f.freeze, "freeze", nil, "`WORKER@TIME[+TIME],…` that stand still")
	g.StringSliceVar(&f.slow, "slow", nil, "`WORKER[/DEVICE]@TIME*FACTOR,…` that become slower")
	g.StringSliceVar(&f.leaders, "new-leader", nil, "`TIME[+GAP],…` when another controller leads")

	for _, name := range []string{"slo", "load"} {
		g.Lookup(name).DefValue = "" // else the help would say that it is []
	}

	g.Float64Var(&f.capacity, "find-capacity", 0, "find the highest load at which so many `PERCENT` are answered in time")
	g.StringVarP(&f.output, "output", "o", output, "table or json ("+configs.EnvOutput+")")
	g.StringVar(&f.page, "html", "", "`FILE` for a page with plots")
	g.DurationVar(&f.timelineFrom, "timeline-from", 0, "from when on the page shows what each device did")
	g.DurationVar(&f.timeline_, "timeline-for", time.Second, "for how long it does")
}

func (a *app) simulate(c *cobra.Command, f *simulateFlags) error {
	if err := f.check(c); err != nil {
		return usageError{err, c.CommandPath()}
	}
	p, err := f.plan(c)
	if err != nil {
		return err
	}
	if f.capacity > 0 {
		return a.findCapacity(c.Context(), f, p)
	}
	rows, err := p.play(c.Context())
	if err != nil {
		return err
	}
	if f.page != "" {
		if err := writePage(f.page, rows); err != nil {
			return err
		}
	}
	if f.output == "json" {
		return simulatedJSON(a.out, rows)
	}
	simulatedTables(a.out, rows)
	if f.page != "" {
		fmt.Fprintf(a.out, "\n%s has the plots.\n", f.page)
	}
	return nil
}

// writePage writes the page with plots.
func writePage(path string, rows []simulated) error {
	page, err := simulatedPage(rows)
	if err != nil {
		return err
	}
	return os.WriteFile(path, page, 0o644)
}
