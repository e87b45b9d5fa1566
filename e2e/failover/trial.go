//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

const (
	// warmUp is how long the load runs before the fault, at least; the fault
	// comes up to phaseSpread later, so that it meets heartbeats at any phase.
	warmUp      = 1500 * time.Millisecond
	phaseSpread = 500 * time.Millisecond
	// realShare of the load must be answered before the fault, within realTimeout.
	realShare   = 0.9
	realTimeout = 20 * time.Second
	// recovery is how long a fault may keep writes from going on.
	recovery = 20 * time.Second
	// steadyAcks in steadySpan, at every survivor, and then linger, are the end of
	// a fault.
	steadyAcks = 5
	steadySpan = 500 * time.Millisecond
	linger     = 500 * time.Millisecond
)

// errNoBite is a fault that nobody has noticed.
var errNoBite = errors.New("the fault did not bite")

// trial is one fault of a cluster under load.
type trial struct {
	*stage
	row    row
	random *rand.Rand
	// leader is the one before the fault; gone are those that the fault takes
	// away, the leader first; survivors the others.
	leader          *devcluster.Process
	gone, survivors []*devcluster.Process
	load            *bench.Kept
	writers         *bench.Writers
	stalls          *bench.Stalls
	spans           []span
	result          *result
}

// span is the time of one step of a fault.
type span struct {
	from, to time.Time
	part     part
}

// runTrial makes one trial. What keeps it from counting is in the result's
// Invalid; the error is what makes going on useless. The stage can be used again
// when the result is Whole.
func runTrial(ctx context.Context, o options, s *stage, r row, random *rand.Rand, result *result) error {
	t := &trial{stage: s, row: r, random: random, result: result, stalls: bench.WatchStalls()}
	defer t.stalls.End()
	result.Load1 = bench.LoadAverage()
	err := t.prepare(ctx, o)
	if err == nil {
		err = r.course(ctx, t)
	}
	if err == nil {
		result.Whole = true
		err = bench.Pause(ctx, steadySpan)
	}
	t.finish()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch {
	case err == nil:
	case len(t.spans) > 0 && !errors.Is(err, errNoBite):
		// The fault was measured; what came after is a finding.
		t.note("%v", err)
	default:
		result.Invalid = err.Error()
	}
	return nil
}

// prepare chooses who survives and starts the load.
func (t *trial) prepare(ctx context.Context, o options) error {
	if err := t.awaitWhole(ctx); err != nil {
		return err
	}
	t.leader, t.survivors = t.controller(t.now.Leader)
	t.random.Shuffle(len(t.survivors), func(i, j int) { t.survivors[i], t.survivors[j] = t.survivors[j], t.survivors[i] })
	t.gone = []*devcluster.Process{t.leader}
	for len(t.gone) < t.row.away {
		t.gone, t.survivors = append(t.gone, t.survivors[0]), t.survivors[1:]
	}
	at := t.survivors
	if t.row.everywhere {
		at = t.cluster.Controllers
	}
	entries, err := t.entries()
	if err != nil {
		return err
	}
	t.load = bench.StartKept(bench.LoadOptions{Model: modelName, Rate: o.Rate, Deadline: t.row.deadline, Entries: entries})
	if t.writers, err = startWriters(t.row.patience, at); err != nil {
		return err
	}
	term := t.now.Term
	if err := t.awaitReal(ctx); err != nil {
		return err
	}
	if v, err := bench.Whole(ctx, t.cluster); err != nil || v.Leader != t.leader.Name || v.Term != term {
		return fmt.Errorf("%s lost the leadership before the fault (%v, %w)", t.leader.Name, v, err)
	}
	return bench.Pause(ctx, time.Duration(t.random.Float64()*float64(phaseSpread)))
}

// entries are two at each survivor. Where none survives, clients that know all
// begin at one each.
func (t *trial) entries() (all []bench.Entry, err error) {
	if t.row.everywhere {
		for i := range t.cluster.Controllers {
			e, err := bench.Streamed(append(slices.Clone(t.cluster.Controllers[i:]), t.cluster.Controllers[:i]...)...)
			if err != nil {
				return nil, err
			}
			all = append(all, e)
		}
		return all, nil
	}
	return bench.Entries(t.survivors)
}

// awaitReal waits until nearly all of the load is answered, and writes are
// acknowledged.
func (t *trial) awaitReal(ctx context.Context) error {
	for began := time.Now(); ; {
		since := time.Now()
		if err := bench.Pause(ctx, warmUp); err != nil {
			return err
		}
		share, acks := t.load.Share(since), t.writers.Acknowledged(since, since)
		if share >= realShare && acks >= steadyAcks {
			return nil
		}
		if time.Since(began) > realTimeout {
			return fmt.Errorf("the load is not real: %.0f %% of %d requests/s are answered and %d writes acknowledged in %v",
				100*share, t.load.Rate, acks, warmUp)
		}
	}
}

// begin begins a step of the fault, which end ends.
func (t *trial) begin(name string) (end func(), err error) {
	marks, err := bench.MarkLogs(t.survivors)
	if t.row.everywhere {
		marks, err = bench.MarkLogs(t.cluster.Controllers)
	}
	if err != nil {
		return nil, err
	}
	before := bench.ReadCPU()
	t.stalls.Reset()
	from := time.Now()
	return func() {
		to := time.Now()
		p := part{Name: name, Stall: bench.MS(t.stalls.Longest())}
		p.Idle, p.Stolen = bench.ReadCPU().Since(before)
		p.read(marks, from)
		t.spans = append(t.spans, span{from: from, to: to, part: p})
	}, nil
}

// awaitSuccession waits until another term has begun and writes are
// acknowledged again at every survivor. That they are not is a result, and no
// error; that all goes on as if nothing had happened is one.
func (t *trial) awaitSuccession(ctx context.Context) error {
	since := time.Now()
	var newTerm time.Time
	for time.Since(since) < recovery {
		if err := bench.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		recent := time.Now().Add(-steadySpan)
		switch {
		case newTerm.IsZero():
			if t.writers.Acknowledged(since, recent) > 0 && t.termRose(ctx) {
				newTerm = time.Now()
			}
		case t.writers.Everywhere(newTerm, recent) >= steadyAcks:
			t.result.Recovered = true
			return bench.Pause(ctx, linger)
		}
	}
	if t.writers.Acknowledged(since, time.Now().Add(-steadySpan)) < steadyAcks {
		t.note("no write was acknowledged within %v", recovery)
		return nil
	}
	if newTerm.IsZero() {
		return fmt.Errorf("%w: %v later the term is still %v, and writes go on", errNoBite, recovery, t.now.Term)
	}
	t.note("writes did not go on at every survivor within %v", recovery)
	return nil
}

// termRose asks the survivors.
func (t *trial) termRose(ctx context.Context) bool {
	for _, p := range t.survivors {
		if m, err := bench.Metrics(ctx, p); err == nil && m["orrery_raft_term"] > t.now.Term {
			return true
		}
	}
	return false
}

func (t *trial) note(format string, args ...any) {
	t.result.Notes = append(t.result.Notes, fmt.Sprintf(format, args...))
}

// finish ends the load and works the figures out.
func (t *trial) finish() {
	var outcomes []bench.Outcome
	var writes []bench.Write
	if t.load != nil {
		outcomes = t.load.Outcomes()
	}
	if t.writers != nil {
		writes = t.writers.End()
	}
	if len(t.spans) == 0 {
		return
	}
	t.tellWrites(writes)
	t.tellRequests(outcomes)
}

func (t *trial) tellWrites(writes []bench.Write) {
	all, each := []time.Time{}, map[string][]time.Time{}
	for _, w := range writes {
		if w.Err == nil {
			all = append(all, w.Done())
			each[w.At] = append(each[w.At], w.Done())
		}
	}
	r := t.result
	if t.row.everywhere {
		r.Recovered = true // or the course would have failed
	}
	for _, s := range t.spans {
		p := s.part
		longest, ended := gap(all, s.from, s.to, t.row.fromBegin)
		p.Gap, p.Acknowledged = bench.MS(longest), bench.MS(ended.Sub(s.from))
		for _, moments := range each {
			worst, _ := gap(moments, s.from, s.to, t.row.fromBegin)
			p.WorstGap = max(p.WorstGap, bench.MS(worst))
		}
		r.Gap, r.WorstGap = max(r.Gap, p.Gap), max(r.WorstGap, p.WorstGap)
		r.Parts = append(r.Parts, p)
	}
}

func (t *trial) tellRequests(outcomes []bench.Outcome) {
	first, last := t.spans[0].from, t.spans[len(t.spans)-1].to
	if t.row.away > 1 {
		first = first.Add(-quorumAway)
	}
	t.result.Requests.Add(outcomes, first)
	var answers []time.Time
	for _, o := range outcomes {
		if o.Err == nil {
			answers = append(answers, o.Done())
		}
	}
	longest, _ := gap(answers, first, last, false)
	t.result.AnswerGap = bench.MS(longest)
}

// timedOut says that a call was ended by our own patience.
func timedOut(err error) bool { return status.Code(err) == codes.DeadlineExceeded }
