package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/orrery-project/orrery/internal/netlab"
)

// Flags are those that all benchmarks of faults have.
type Flags struct {
	Binary, Results string
	Trials, Rate    int
	Seed            uint64
	Limit           time.Duration
	// Logs is a folder, or empty.
	Logs string
	// Keys are further keys of the controllers' configurations.
	Keys        map[string]string
	SummaryOnly bool
	rows        string
}

// Define defines the flags, with the defaults of a benchmark that has these
// rows.
func (o *Flags) Define(f *flag.FlagSet, rate int, rows []string) {
	f.StringVar(&o.Binary, "binary", "bin/orrery", "the orrery to measure")
	f.StringVar(&o.Results, "results", "bin/"+f.Name()+".jsonl", "file that trials are appended to, and taken from")
	f.IntVar(&o.Trials, "trials", 10, "trials of each row")
	f.StringVar(&o.rows, "rows", "", "rows to run, separated by commas; all: "+strings.Join(rows, ","))
	f.IntVar(&o.Rate, "rate", rate, "inference requests a second")
	f.Uint64Var(&o.Seed, "seed", 1, "what random choices follow from")
	f.DurationVar(&o.Limit, "limit", 6*time.Hour, "time after which the run stops")
	f.StringVar(&o.Logs, "logs", "", "existing folder to keep the processes' logs in; empty: they are not kept")
	o.Keys = KeysFlag(f)
	f.BoolVar(&o.SummaryOnly, "summary", false, "only print the table of the trials in the results file")
}

// Parse reads the command line and says what is wrong with it.
func (o *Flags) Parse(f *flag.FlagSet, arguments []string) (err error) {
	if err := ParseFlags(f, arguments); err != nil {
		return err
	}
	if o.Trials < 1 || o.Rate < 10 || o.Rate > 5000 {
		return fmt.Errorf("-trials %d -rate %d: at least 1 trial, and 10 to 5000 requests a second", o.Trials, o.Rate)
	}
	if o.SummaryOnly {
		return nil
	}
	o.Binary, err = Built(o.Binary)
	return err
}

// ParseFlags reads a command line that has flags alone.
func ParseFlags(f *flag.FlagSet, arguments []string) error {
	if err := f.Parse(arguments); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("there are no arguments but flags, and %q is none", f.Arg(0))
	}
	return nil
}

// Built is the absolute path of the orrery to measure, which has to be there.
func Built(binary string) (string, error) {
	path, err := filepath.Abs(binary)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: build it by `make build`, or name one by -binary", err)
	}
	return path, nil
}

// Choose are those of all rows that -rows names, by their names; all when it
// names none.
func Choose[R any](o *Flags, all []R, name func(R) string) (some []R, err error) {
	if o.rows == "" {
		return all, nil
	}
	wanted := strings.Split(o.rows, ",")
	var names []string
	for _, r := range all {
		names = append(names, name(r))
		if slices.Contains(wanted, name(r)) {
			some = append(some, r)
		}
	}
	if len(wanted) != len(some) {
		return nil, fmt.Errorf("-rows %s: the rows are %s", o.rows, strings.Join(names, ","))
	}
	return some, nil
}

// PlainMain is the main of a benchmark. It ends the process: with status 2 when the
// command line is wrong, 1 when the run fails.
func PlainMain[O any](name string, parse func([]string) (O, error), run func(O) error) {
	os.Exit(report(name, run, options(name, parse)))
}

// options are what the command line says; what is wrong with it ends the process.
func options[O any](name string, parse func([]string) (O, error)) O {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(2)
	}
	return o
}

// report runs a benchmark, and returns the status to end with.
func report[O any](name string, run func(O) error, o O) int {
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		return 1
	}
	return 0
}

// Main is PlainMain for a benchmark that runs in networks of its own.
func Main[O any](name string, parse func([]string) (O, error), summaryOnly func(O) bool, run func(O) error) {
	o := options(name, parse)
	work := func() int { return report(name, run, o) }
	if summaryOnly(o) {
		os.Exit(work())
	}
	status, err := netlab.Main(work)
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
	}
	os.Exit(status)
}

// Run opens the results file, measures, within the limit and until a signal
// comes, unless only the summary is wanted, and then summarises.
func Run[R Told](o *Flags, measure func(context.Context, *Book[R]) error, summarise func(*Book[R]) error) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	b, err := OpenBook[R](o.Results, o.Binary, o.SummaryOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if !o.SummaryOnly {
		err = measure(ctx, b)
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("stopped before the end; the same command goes on from here: %w", context.Cause(ctx))
		}
	}
	return errors.Join(err, summarise(b))
}

// RandomFor makes the choices of one trial repeatable.
func RandomFor(seed uint64, what string, trial int) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", what, trial)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}
