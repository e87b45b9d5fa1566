//go:build linux

// Command startup measures how a cluster of many models comes to serve, and how
// it comes to serve again when its leader dies. Real processes: three controllers
// and, in one process, many emulated workers, each of which holds all models. No
// two models are equal, so each has to be measured.
//
// Run it by `make bench-startup`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// options are the flags.
type options struct {
	binary string
	// models are loaded by all of the workers, by so many calls at a time.
	models, workers, parallel int
	// kills are how often the leader is killed, sample how many models are asked
	// each time.
	kills, sample int
	loadIdle      time.Duration
	// rest is how long the cluster is left alone when it serves.
	rest time.Duration
	logs string
}

func main() {
	bench.PlainMain("startup", parse, run)
}

func parse(arguments []string) (o options, err error) {
	f := flag.NewFlagSet("startup", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "bin/orrery", "the orrery to measure")
	f.IntVar(&o.models, "models", 1000, "models, all of them different")
	f.IntVar(&o.workers, "workers", 20, "workers, all of which load all models")
	f.IntVar(&o.parallel, "parallel", 100, "load requests that are made at a time")
	f.IntVar(&o.kills, "kills", 5, "times that the leader is killed")
	f.IntVar(&o.sample, "sample", 100, "models that are asked when the leader is killed")
	f.DurationVar(&o.loadIdle, "load-idle", 2*time.Second, "startup.load_idle of the controllers")
	f.DurationVar(&o.rest, "rest", 10*time.Second, "how long the cluster is left alone when it serves, to see what that costs")
	f.StringVar(&o.logs, "logs", "", "existing folder to keep the processes' logs in; empty: they are not kept")
	if err := bench.ParseFlags(f, arguments); err != nil {
		return o, err
	}
	if o.models < 1 || o.workers < 1 || o.parallel < 1 || o.sample < 1 || o.sample > o.models || o.kills < 0 || o.loadIdle <= 0 || o.rest <= 0 {
		return o, errors.New("-models, -workers, -parallel, -sample, -load-idle and -rest must be more than 0, and -sample at most -models")
	}
	o.binary, err = bench.Built(o.binary)
	return o, err
}

// lifetime bounds a run, whatever happens.
const lifetime = 30 * time.Minute

// run measures and prints the table. The error says which target was missed.
func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, lifetime)
	defer cancel()
	f, err := measure(ctx, o)
	if err != nil {
		return err
	}
	f.print(os.Stdout)
	return f.missed(target)
}

// measure takes one cluster through its startup and the kills.
func measure(ctx context.Context, o options) (f figures, err error) {
	f.options = o
	s, err := openStage(ctx, o)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.close(o.logs)) }()
	watch := bench.WatchBusy(s.cluster)
	if f.load, err = s.load(ctx); err != nil {
		return f, fmt.Errorf("load: %w", err)
	}
	if f.profiling, err = s.profile(ctx); err != nil {
		return f, fmt.Errorf("profile: %w", err)
	}
	f.busy = watch.Busy()
	if f.restCPU, err = s.rest(ctx); err != nil {
		return f, err
	}
	if f.sizes, err = s.weigh(ctx); err != nil {
		return f, fmt.Errorf("sizes: %w", err)
	}
	for n := range o.kills {
		one, err := s.kill(ctx, n)
		if err != nil {
			return f, fmt.Errorf("kill %d: %w", n+1, err)
		}
		f.successions = append(f.successions, one)
	}
	return f, nil
}
