//go:build linux

// Command predict measures how well the scheduler predicts. A cluster of real
// processes runs a real model on the gomlx engine, and then an emulated one that
// takes as long as the real one was measured to take; each answer tells what was
// predicted of its batch and what the engine took. The emulated engine computes
// nothing: what its executions differ from the prediction by is the error of the
// clock and of the estimate alone.
//
// Run it by `make bench-predict`.
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
	// models is the folder of the real model; model its name.
	models, model string
	// requests are sent to each of the two models, rate of them a second.
	requests, rate int
	seed           uint64
	logs           string
}

func main() {
	bench.PlainMain("predict", parse, run)
}

func parse(arguments []string) (o options, err error) {
	f := flag.NewFlagSet("predict", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "bin/orrery", "the orrery to measure")
	f.StringVar(&o.models, "models", "models", "folder of the real model and its test images")
	f.StringVar(&o.model, "model", "fashion-cnn", "the real model: fashion-cnn or fashion-mlp")
	f.IntVar(&o.requests, "requests", 10_000, "requests to each of the two models")
	f.IntVar(&o.rate, "rate", 30, "requests a second; some have more rows than one")
	f.Uint64Var(&o.seed, "seed", 1, "what random choices follow from")
	f.StringVar(&o.logs, "logs", "", "existing folder to keep the processes' logs in; empty: they are not kept")
	if err := bench.ParseFlags(f, arguments); err != nil {
		return o, err
	}
	if o.requests < 1 || o.rate < 1 {
		return o, errors.New("-requests and -rate must be more than 0")
	}
	o.binary, err = bench.Built(o.binary)
	return o, err
}

// lifetime bounds a run, whatever happens.
func (o options) lifetime() time.Duration {
	return 5*time.Minute + 4*time.Duration(o.requests)*time.Second/time.Duration(o.rate)
}

// run measures and prints the table.
func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	all, err := measure(ctx, o)
	if err != nil {
		return err
	}
	return summarise(os.Stdout, all)
}

// measure runs the load on each model in turn.
func measure(ctx context.Context, o options) (all []series, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.lifetime())
	defer cancel()
	s, err := openStage(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(o.logs)) }()
	for _, t := range []func(context.Context) (target, error){s.realModel, s.emulatedModel} {
		to, err := t(ctx)
		if err != nil {
			return nil, err
		}
		fmt.Printf("%s: %d requests, %d/s\n", to.engine, o.requests, o.rate)
		watch := bench.WatchBusy(s.cluster)
		samples := s.send(ctx, o, to)
		all = append(all, series{engine: to.engine, sizes: s.sizes(), samples: samples, busy: watch.Busy()})
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return all, nil
}
