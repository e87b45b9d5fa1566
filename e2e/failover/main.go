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
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/netlab"
)

// options are the flags.
type options struct {
	binary, results string
	trials          int
	rows            []row
	rate            int
	seed            uint64
	limit           time.Duration
	logs            string
	baseline        bool
	// keys are further keys of the controllers' configurations.
	keys        map[string]string
	summaryOnly bool
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(2)
	}
	work := func() int {
		if err := run(o); err != nil {
			fmt.Fprintln(os.Stderr, "failover:", err)
			return 1
		}
		return 0
	}
	if o.summaryOnly {
		os.Exit(work())
	}
	status, err := netlab.Main(work)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
	}
	os.Exit(status)
}

func parse(arguments []string) (options, error) {
	var o options
	f := flag.NewFlagSet("failover", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "bin/orrery", "the orrery to measure")
	f.StringVar(&o.results, "results", "bin/failover.jsonl", "file that trials are appended to, and taken from")
	f.IntVar(&o.trials, "trials", 10, "trials of each row, and as many of its baseline")
	names := f.String("rows", "", "rows to run, separated by commas; all: "+strings.Join(rowNames(), ","))
	f.IntVar(&o.rate, "rate", 300, "inference requests a second")
	f.Uint64Var(&o.seed, "seed", 1, "what random choices follow from")
	f.DurationVar(&o.limit, "limit", 6*time.Hour, "time after which the run stops")
	f.StringVar(&o.logs, "logs", "", "existing folder to keep the processes' logs in; empty: they are not kept")
	o.keys = bench.KeysFlag(f)
	f.BoolVar(&o.baseline, "baseline", true, "also measure with raft's default timeouts")
	f.BoolVar(&o.summaryOnly, "summary", false, "only print the table of the trials in the results file")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("there are no arguments but flags, and %q is none", f.Arg(0))
	}
	if o.trials < 1 || o.rate < 10 || o.rate > 5000 {
		return o, fmt.Errorf("-trials %d -rate %d: at least 1 trial, and 10 to 5000 requests a second", o.trials, o.rate)
	}
	for _, r := range rows() {
		if *names == "" || slices.Contains(strings.Split(*names, ","), r.name) {
			o.rows = append(o.rows, r)
		}
	}
	if wanted := strings.Split(*names, ","); *names != "" && len(wanted) != len(o.rows) {
		return o, fmt.Errorf("-rows %s: the rows are %s", *names, strings.Join(rowNames(), ","))
	}
	var err error
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return o, err
	}
	if _, err := os.Stat(o.binary); err != nil && !o.summaryOnly {
		return o, fmt.Errorf("%w: build it by `make build`, or name one by -binary", err)
	}
	return o, nil
}

// run makes the trials that are missing and prints the table.
func run(o options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()

	book, err := openBook(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.close()) }()
	if !o.summaryOnly {
		err = measure(ctx, o, book)
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("stopped before the end; the same command goes on from here: %w", context.Cause(ctx))
		}
	}
	return errors.Join(err, summarise(os.Stdout, o, book))
}
