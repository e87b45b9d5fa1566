//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

const (
	// warmUp is how long the load runs before the fault, at least; the fault
	// comes up to phaseSpread later, so that it meets heartbeats at any phase.
	warmUp      = time.Second
	phaseSpread = 300 * time.Millisecond
	// realShare of the load must be answered before the fault, and every worker
	// must have been sent some of it, within realTimeout.
	realShare   = 0.9
	realTimeout = 20 * time.Second
	// backTimeout is how long a worker that is back may stay without work.
	backTimeout = 20 * time.Second
	// linger is how long the load goes on after all is whole again.
	linger = 300 * time.Millisecond
)

// errNoBite is a fault that nobody has noticed.
var errNoBite = errors.New("the fault did not bite")

// trial is one fault of a cluster under load.
type trial struct {
	*stage
	options options
	row     row
	random  *rand.Rand
	result  *result
	load    *bench.Kept
	sends   *sends
	stalls  *bench.Stalls
	cpu     bench.CPU
	// log is where the leader's log ended when the fault began, at fault.
	log   bench.Mark
	fault time.Time
	// measured says that the figures are there: what comes after is a finding.
	measured bool
}

// runTrial makes one trial. What keeps it from counting is in the result's
// Invalid; the error is what makes going on useless.
func runTrial(ctx context.Context, o options, s *stage, r row, result *result) error {
	t := &trial{stage: s, options: o, row: r, random: bench.RandomFor(o.Seed, r.name, result.Trial), result: result, stalls: bench.WatchStalls()}
	defer t.stalls.End()
	result.Load1 = bench.LoadAverage()
	var err error
	if !r.crowd {
		err = t.prepare(ctx)
	}
	if err == nil {
		err = r.course(ctx, t)
	}
	if err == nil {
		result.Whole = true
		err = bench.Pause(ctx, linger)
	}
	t.finish()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch {
	case err == nil:
	case t.measured && !errors.Is(err, errNoBite):
		t.note("%v", err)
	default:
		result.Invalid = err.Error()
	}
	return nil
}

// prepare starts the load on a cluster that is whole, and whose workers are
// trusted.
func (t *trial) prepare(ctx context.Context) error {
	if err := t.awaitWhole(ctx); err != nil {
		return err
	}
	if err := t.awaitTrust(ctx); err != nil {
		return err
	}
	return t.startLoad(ctx)
}

// startLoad starts the load at all controllers, half by unary calls and half by
// our client's streams, and waits until it is real.
func (t *trial) startLoad(ctx context.Context) error {
	entries, err := bench.Entries(t.cluster.Controllers)
	if err != nil {
		return err
	}
	t.sends = watchSends(t.leader(), t.members())
	t.load = bench.StartKept(bench.LoadOptions{Model: mainModel, Rate: t.options.Rate, Deadline: t.row.deadline, Entries: entries})
	for began := time.Now(); ; {
		since := time.Now()
		if err := bench.Pause(ctx, warmUp); err != nil {
			return err
		}
		share, all := t.load.Share(since), t.sends.all(t.members(), since)
		if share >= realShare && (all || t.row.crowd) {
			break
		}
		if time.Since(began) > realTimeout {
			return fmt.Errorf("the load is not real: %.0f %% of %d requests/s are answered in %v; every worker takes part: %v", 100*share, t.load.Rate, warmUp, all)
		}
	}
	if v, err := t.leading(ctx); err != nil || v != t.now {
		return fmt.Errorf("%s lost the leadership before the fault (%v, %w)", t.now.Leader, v, err)
	}
	return bench.Pause(ctx, time.Duration(t.random.Float64()*float64(phaseSpread)))
}

// members are all workers' names.
func (s *stage) members() (names []string) {
	for _, p := range s.cluster.Workers {
		names = append(names, p.Members...)
	}
	return names
}

// begin is to be called right before the fault, and again by rows that have
// several.
func (t *trial) begin() error {
	marks, err := bench.MarkLogs([]*devcluster.Process{t.leader()})
	if err != nil {
		return err
	}
	t.stalls.Reset()
	t.log, t.cpu, t.fault = marks[0], bench.ReadCPU(), time.Now()
	return nil
}

// taken finds when the leader took one of some workers out of the schedule since
// the fault, for each the first time, and returns the last of these; ok says that
// it was told of all.
func (t *trial) taken(workers ...string) (after time.Duration, ok bool) {
	missing := map[string]bool{}
	for _, w := range workers {
		missing[w] = true
	}
	for e := range t.log.Since() {
		if w := e.Value("worker"); missing[w] && e.Says(bench.WorkerLost) {
			delete(missing, w)
			after = max(after, e.At.Sub(t.fault))
		}
	}
	return max(after, 0), len(missing) == 0
}

// awaitTaken waits until the leader has noticed.
func (t *trial) awaitTaken(ctx context.Context, patience time.Duration, workers ...string) error {
	for began := time.Now(); ; {
		if _, ok := t.taken(workers...); ok {
			return nil
		}
		if time.Since(began) > patience {
			return fmt.Errorf("%w: %v later %s has not taken %s out of the schedule", errNoBite, patience, t.now.Leader, workers[0])
		}
		if err := bench.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// until waits until some time after the fault.
func (t *trial) until(ctx context.Context, after time.Duration) error {
	return bench.Pause(ctx, time.Until(t.fault.Add(after)))
}

func (t *trial) tell(name string, d time.Duration) { t.result.Figures[name] = bench.MS(d) }

func (t *trial) note(format string, args ...any) {
	t.result.Notes = append(t.result.Notes, fmt.Sprintf(format, args...))
}

// finish ends the load and works the figures out.
func (t *trial) finish() {
	if !t.fault.IsZero() {
		t.result.Idle, _ = bench.ReadCPU().Since(t.cpu)
		t.result.Stall = bench.MS(t.stalls.Longest())
	}
	if t.load != nil {
		t.result.Requests.Add(t.load.Outcomes(), t.fault)
	}
	if t.sends != nil {
		t.sends.end()
	}
}
