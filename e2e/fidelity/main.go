//go:build linux

// Command fidelity holds `orrery simulate` against real processes: the same
// requests, at the same moments, go to a cluster with emulated workers and to a
// simulation of it, and goodput and latency are compared.
//
// Run it by `make bench-fidelity`.
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
	span   time.Duration
	seed   uint64
	logs   string
}

func main() {
	bench.PlainMain("fidelity", parse, run)
}

func parse(arguments []string) (o options, err error) {
	f := flag.NewFlagSet("fidelity", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "bin/orrery", "the orrery to hold against its own simulation")
	f.DurationVar(&o.span, "span", 30*time.Second, "how long each load is sent")
	f.Uint64Var(&o.seed, "seed", 1, "what the moments of the requests follow from")
	f.StringVar(&o.logs, "logs", "", "existing folder to keep the processes' logs in; empty: they are not kept")
	if err := bench.ParseFlags(f, arguments); err != nil {
		return o, err
	}
	if o.span < time.Second || o.span > time.Hour {
		return o, fmt.Errorf("-span is %v: it is from 1s to 1h", o.span)
	}
	o.binary, err = bench.Built(o.binary)
	return o, err
}

// run measures, simulates and prints the table.
func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	all, err := measure(ctx, o, loads())
	if err != nil {
		return err
	}
	return summarise(os.Stdout, all)
}

// pair is a load as it was measured, and as it was simulated.
type pair struct {
	load
	real, simulated figures
	busy            bench.Busy
}

// measure plays the loads on one cluster, one after the other, and then simulates
// them: a simulation beside the cluster would disturb it.
func measure(ctx context.Context, o options, loads []load) (all []pair, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute+2*time.Duration(len(loads))*o.span)
	defer cancel()
	s, err := openStage(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, l := range loads {
		plan := l.plan(o)
		watch := bench.WatchBusy(s.cluster)
		real, err := s.play(ctx, plan)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", l.name, err)
		}
		all = append(all, pair{load: l, real: real, busy: watch.Busy()})
	}
	for i := range all {
		if all[i].simulated, err = s.simulate(ctx, all[i].load, all[i].real.lateness); err != nil {
			return nil, fmt.Errorf("simulate load %s: %w", all[i].name, err)
		}
	}
	return all, nil
}
