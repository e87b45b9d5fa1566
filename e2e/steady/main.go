//go:build linux

// Command steady looks for elections that no fault explains. A cluster of real
// processes serves, first while other processes want all processors, then at a
// share of the load that was found to be its limit. Whatever term begins
// meanwhile is a false one.
//
// Run it by `make bench-steady`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// options are the flags.
type options struct {
	binary string
	phases []string
	// busy and load are how long those phases take, step how long each rate of
	// the limit phase is kept up; every is how often a phase tells.
	busy, load, step, every time.Duration
	spinners                int
	// busyRate is that of the busy phase, startRate the first of the limit phase;
	// limit, if not 0, takes that phase's place.
	busyRate, startRate, limit int
	share                      float64
	deadline                   time.Duration
	library                    bool
	keys                       map[string]string
	logs                       string
}

// phases are all there are, in order.
func phases() []string { return []string{"busy", "limit", "load"} }

func main() {
	if len(os.Args) > 1 && os.Args[1] == spinCommand {
		os.Exit(spinMain(os.Args[2:]))
	}
	bench.PlainMain("steady", parse, run)
}

func parse(arguments []string) (options, error) {
	var o options
	f := flag.NewFlagSet("steady", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "bin/orrery", "the orrery to measure")
	names := f.String("phases", strings.Join(phases(), ","), "phases to run, separated by commas")
	f.DurationVar(&o.busy, "busy", 10*time.Minute, "how long the busy phase takes")
	f.DurationVar(&o.load, "load", 10*time.Minute, "how long the load phase takes")
	f.DurationVar(&o.step, "step", 10*time.Second, "how long each rate of the limit phase is kept up")
	f.DurationVar(&o.every, "every", time.Minute, "how often a phase tells how it goes")
	f.IntVar(&o.spinners, "spinners", 2*runtime.NumCPU(), "busy processes of the busy phase")
	f.IntVar(&o.busyRate, "busy-rate", 50, "inference requests a second in the busy phase")
	f.IntVar(&o.startRate, "start-rate", 2000, "requests a second that the limit phase begins with")
	f.IntVar(&o.limit, "limit", 0, "requests a second to take as the limit instead of finding it")
	f.Float64Var(&o.share, "share", 0.8, "share of the limit that the load phase sends")
	f.DurationVar(&o.deadline, "deadline", 3*time.Second, "of each inference request")
	f.BoolVar(&o.library, "library", false, "use raft's default timeouts instead of Orrery's")
	f.StringVar(&o.logs, "logs", "", "existing folder to keep the processes' logs in; empty: they are not kept")
	o.keys = bench.KeysFlag(f)
	if err := bench.ParseFlags(f, arguments); err != nil {
		return o, err
	}
	for _, name := range strings.Split(*names, ",") {
		if !slices.Contains(phases(), name) {
			return o, fmt.Errorf("-phases %s: the phases are %s", *names, strings.Join(phases(), ","))
		}
		o.phases = append(o.phases, name)
	}
	if o.runs("load") && o.limit == 0 && !o.runs("limit") {
		return o, errors.New("the load phase needs a limit: run the limit phase too, or give -limit")
	}
	if o.busy < time.Second || o.load < time.Second || o.step < time.Second || o.every < time.Second {
		return o, errors.New("-busy, -load, -step and -every: at least 1s")
	}
	if o.spinners < 1 || o.busyRate < 1 || o.startRate < 1 || o.limit < 0 || o.share <= 0 || o.deadline <= 0 {
		return o, errors.New("-spinners, -busy-rate, -start-rate, -share and -deadline must be more than 0")
	}
	var err error
	if o.binary, err = bench.Built(o.binary); err != nil {
		return o, err
	}
	if o.library {
		for key, value := range bench.LibraryTimeouts() {
			o.keys[key] = value
		}
	}
	return o, nil
}

func (o options) runs(phase string) bool { return slices.Contains(o.phases, phase) }

// String is what the figures depend on.
func (o options) String() string {
	text := fmt.Sprintf("%d CPUs, deadline %v, timeouts of Orrery", runtime.NumCPU(), o.deadline)
	if o.library {
		text = strings.ReplaceAll(text, "of Orrery", "of the library")
	}
	for _, key := range slices.Sorted(maps.Keys(o.keys)) {
		text += fmt.Sprintf(", %s %s", key, o.keys[key])
	}
	return text
}

// lifetime bounds a run, whatever happens.
func (o options) lifetime() time.Duration {
	return 5*time.Minute + o.busy + o.load + mostSteps*(o.step+settle+o.deadline)
}

// run makes the phases and prints the table. The error says which demand is not
// met.
func run(o options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.lifetime())
	defer cancel()
	fmt.Printf("steady: %s, %v; load average %.2f\n", o.binary, o, bench.LoadAverage())
	s, err := openStage(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(o.logs)) }()

	var done []figures
	if o.runs("busy") {
		f, err := busy(ctx, o, s)
		if err != nil {
			return fmt.Errorf("busy: %w", err)
		}
		done = append(done, f)
	}
	limit := o.limit
	if o.runs("limit") && limit == 0 {
		if limit, err = findLimit(ctx, o, s); err != nil {
			return errors.Join(fmt.Errorf("limit: %w", err), summarise(os.Stdout, o, done))
		}
	}
	if o.runs("load") {
		f, err := s.keepUp(ctx, phase{
			name: "load", duration: o.load, every: o.every, model: fastModel, rate: max(1, int(o.share*float64(limit))),
			deadline: o.deadline, controlWrites: true,
		})
		if err != nil {
			return errors.Join(fmt.Errorf("load: %w", err), summarise(os.Stdout, o, done))
		}
		done = append(done, f)
	}
	return summarise(os.Stdout, o, done)
}
