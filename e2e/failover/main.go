//go:build linux

// Command failover measures what faults of controllers cost: how long no control
// write is acknowledged, and what becomes of inference requests at the
// controllers that survive. Clusters of real processes, each on a host of its own
// in a network of its own, with their data in memory; every fault also with
// raft's default timeouts for comparison.
//
// Run it by `make bench-failover`, as root. Every trial is appended to a file, so
// that a run which was interrupted goes on where it stopped.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/orrery-project/orrery/e2e/bench"
)

// options are the flags.
type options struct {
	bench.Flags
	rows     []row
	baseline bool
}

func main() {
	bench.Main("failover", parse, func(o options) bool { return o.SummaryOnly }, run)
}

func parse(arguments []string) (o options, err error) {
	f := flag.NewFlagSet("failover", flag.ContinueOnError)
	o.Define(f, 300, rowNames())
	f.BoolVar(&o.baseline, "baseline", true, "also measure with raft's default timeouts, as often")
	if err := o.Parse(f, arguments); err != nil {
		return o, err
	}
	o.rows, err = bench.Choose(&o.Flags, rows(), func(r row) string { return r.name })
	return o, err
}

// run makes the trials that are missing and prints the table.
func run(o options) error {
	return bench.Run(&o.Flags,
		func(ctx context.Context, b *bench.Book[result]) error { return measure(ctx, o, &book{b, o.Rate}) },
		func(b *bench.Book[result]) error { return summarise(os.Stdout, o, &book{b, o.Rate}) })
}
