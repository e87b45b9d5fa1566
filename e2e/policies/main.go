//go:build linux

// Command policies plays the same workloads with every scheduling policy in the
// simulator, and prints what came of them as tables for docs/benchmarks.md. All
// its figures are simulated.
//
// Run it by `make bench-policies`; while a policy is being tuned, briefly:
//
//	go run ./e2e/policies -policies edf -seeds 2 -span 20s -only 'poisson|6.1'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/scheduler"
	"github.com/orrery-project/orrery/scheduler/sim"
)

// options are the flags.
type options struct {
	policies []string
	// bound is the policy of the column "bound", or empty.
	bound string
	seeds int
	seed  uint64
	span  time.Duration
	only  *regexp.Regexp
	jobs  int
	list  bool
	// model is what all models are copies of.
	model sim.Model
}

func main() {
	bench.PlainMain("policies", parse, run)
}

// row is the model that the workloads are made of: the first of the table.
const row = "resnet50_v2"

func parse(arguments []string) (o options, err error) {
	f := flag.NewFlagSet("policies", flag.ContinueOnError)
	policies := f.String("policies", "all", "policies to play, separated by commas; there are "+strings.Join(scheduler.Policies(), ","))
	f.StringVar(&o.bound, "bound", scheduler.DefaultPolicy, "policy that plays the pooled models; empty: none does")
	f.IntVar(&o.seeds, "seeds", 10, "seeds to play each workload with")
	f.Uint64Var(&o.seed, "seed", 1, "the first of them")
	f.DurationVar(&o.span, "span", time.Minute, "how long a workload is played; some take half or twice as long")
	only := f.String("only", "", "regular expression of the workloads' names; empty: all")
	f.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "how many to play at once")
	f.BoolVar(&o.list, "list", false, "only list the workloads")
	if err := bench.ParseFlags(f, arguments); err != nil {
		return o, err
	}
	if o.seeds < 1 || o.jobs < 1 || o.span < 6*time.Second || o.span > time.Hour {
		return o, fmt.Errorf("-seeds %d -jobs %d -span %v: at least 1 seed and 1 job, and a span from 6s to 1h", o.seeds, o.jobs, o.span)
	}
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	if o.policies = strings.Split(*policies, ","); *policies == "all" {
		o.policies = scheduler.Policies()
	}
	for _, name := range append([]string{o.bound}, o.policies...) {
		if _, err := scheduler.New(name, scheduler.Options{}); err != nil {
			return o, err
		}
	}
	table, err := sim.ReadTable("the built-in table", strings.NewReader(models.Profiles()))
	if err != nil {
		return o, err
	}
	o.model, err = table.Model(row)
	return o, err
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return play(ctx, o, os.Stdout, os.Stderr)
}

// play plays all that is wanted and prints each table when it is complete, and
// to progress what each workload took.
func play(ctx context.Context, o options, out, progress io.Writer) error {
	chosen := choose(tables(), o.only)
	if len(chosen) == 0 {
		return errors.New("no workload has such a name; -list lists them")
	}
	if o.list {
		for _, t := range chosen {
			for _, w := range t.workloads {
				fmt.Fprintf(out, "%-16s %s: %s\n", w.name, t.title, w.label)
			}
		}
		return nil
	}
	fmt.Fprintf(out, "Simulated: seeds %d to %d, %v.\n", o.seed, o.seed+uint64(o.seeds)-1, o.span)
	p := start(ctx, o, chosen)
	for i := range chosen {
		if err := p.print(ctx, &chosen[i], out, progress); err != nil {
			return errors.Join(err, p.wait())
		}
	}
	return p.wait()
}

// choose are the workloads whose names match, in their tables.
func choose(all []table, only *regexp.Regexp) (some []table) {
	for _, t := range all {
		matching := table{title: t.title}
		for _, w := range t.workloads {
			if only.MatchString(w.name) {
				matching.workloads = append(matching.workloads, w)
			}
		}
		if len(matching.workloads) > 0 {
			some = append(some, matching)
		}
	}
	return some
}
