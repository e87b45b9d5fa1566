//go:build linux

// Command workers measures what faults of workers cost: how soon a worker that
// died, froze or was cut off gets no more work, how soon one that is back gets
// some again, and what becomes of the inference requests meanwhile. Clusters of
// real processes with the emulated engine, each process on a host of its own in
// a network of its own, with their data in memory.
//
// Run it by `make bench-workers`, as root. Every trial is appended to a file, so
// that a run which was interrupted goes on where it stopped.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// options are the flags.
type options struct {
	bench.Flags
	rows []row
	// span is how long each phase of the long rows is.
	span time.Duration
	// loopback is for tests: no hosts but this one.
	loopback bool
	// perHost is how many workers each process of a crowd runs.
	perHost int
}

func main() {
	bench.Main("workers", parse, func(o options) bool { return o.SummaryOnly }, run)
}

func parse(arguments []string) (o options, err error) {
	f := flag.NewFlagSet("workers", flag.ContinueOnError)
	o.Define(f, defaultRate, rowNames())
	f.DurationVar(&o.span, "span", time.Minute, "length of the phases of crashloop, and of the crowd's rest")
	f.IntVar(&o.perHost, "crowd", 100, "workers in each of the crowd's two processes")
	if err := o.Parse(f, arguments); err != nil {
		return o, err
	}
	if o.span < time.Second || o.perHost < 2 || o.perHost > 1000 {
		return o, errors.New("-span is at least 1s, -crowd 2 to 1000")
	}
	o.rows, err = bench.Choose(&o.Flags, rows(), func(r row) string { return r.name })
	return o, err
}

// run makes the trials that are missing and prints the table.
func run(o options) error {
	return bench.Run(&o.Flags,
		func(ctx context.Context, b *bench.Book[result]) error { return measureAll(ctx, o, &book{b, o}) },
		func(b *bench.Book[result]) error { return summarise(os.Stdout, &book{b, o}) })
}
