//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

const (
	successionTimeout = 10 * time.Second
	// thawed is how long a leader that was frozen is watched.
	thawed = time.Second
)

// staleCounter is a worker's count of the actions that it answered STALE.
const staleCounter = `orrery_worker_results_total{code="stale"}`

// thaw freezes the leader in mid-load until another one has taken over, and
// looks in the workers' logs whether anything that it sends when it thaws is
// executed.
func thaw(ctx context.Context, t *trial) error {
	old := t.leader()
	marks, err := bench.MarkLogs(t.cluster.Workers)
	if err != nil {
		return err
	}
	before, err := t.total(ctx, t.cluster.Workers, staleCounter)
	if err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	sent, err := t.sentBy(ctx, old)
	if err := errors.Join(err, old.Pause()); err != nil {
		return err
	}
	err = t.awaitSuccessor(ctx, old)
	if err == nil {
		err = t.until(ctx, t.row.away)
	}
	if err := errors.Join(err, old.Resume()); err != nil {
		return err
	}
	if err := bench.Pause(ctx, thawed); err != nil {
		return err
	}
	whole := t.awaitWhole(ctx)
	after, err := t.total(ctx, t.cluster.Workers, staleCounter)
	if err != nil {
		return err
	}
	sentInAll, err := t.sentBy(ctx, old)
	if err != nil {
		return err
	}
	var all testimony
	for _, m := range marks {
		all.add(hear(m))
	}
	if all.executed == 0 {
		return errors.New("the workers' logs tell of no action that a successor had executed")
	}
	t.result.Figures = map[string]float64{"late": float64(all.late), "stale": after - before,
		"sent": sentInAll - sent, "refused": float64(all.refused), "executed": float64(all.executed), "late_sessions": float64(all.lateSessions)}
	for _, line := range all.lines {
		t.note("executed for a succeeded leader: %s", line)
	}
	t.measured = true
	return whole
}

// total is the sum of a figure over some processes.
func (t *trial) total(ctx context.Context, some []*devcluster.Process, name string) (n float64, err error) {
	for _, p := range some {
		m, err := bench.Metrics(ctx, p)
		if err != nil {
			return 0, err
		}
		n += m[name]
	}
	return n, nil
}

// sentBy is how many actions a controller has sent to workers, as the leader.
func (t *trial) sentBy(ctx context.Context, p *devcluster.Process) (n float64, err error) {
	m, err := bench.Metrics(ctx, p)
	for _, w := range t.members() {
		n += m[counter(w)]
	}
	return n, err
}

// awaitSuccessor waits until another controller leads, in a later term.
func (t *trial) awaitSuccessor(ctx context.Context, old *devcluster.Process) error {
	for time.Since(t.fault) < successionTimeout {
		for _, p := range t.cluster.Controllers {
			if p == old {
				continue
			}
			if m, err := bench.Metrics(ctx, p); err == nil && m["orrery_leader"] == 1 && m["orrery_raft_term"] > t.now.Term {
				return nil
			}
		}
		if err := bench.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %v later nobody else leads", errNoBite, successionTimeout)
}

// What workers' logs say of leaders. Each line is written under the lock that
// decides, so their order is that of what happened.
const (
	sessionOpened  = "session opened"
	sessionRefused = "session refused"
	actionExecuted = "action executed"
)

// testimony is what a worker's log tells of leaders that succeed each other.
type testimony struct {
	// late are the actions that began for a leader after the session of a newer
	// one was opened, or after an action of it began; lines are some of them.
	late  int
	lines []string
	// executed are those that began for a leader that succeeded another.
	executed int
	// lateSessions are sessions of a leader that were opened after those of a
	// newer one, refused those that were refused.
	lateSessions, refused int
}

// keptLines is how many lines a testimony quotes.
const keptLines = 3

// reign orders leaders within a cluster.
type reign struct{ epoch, term uint64 }

func (r reign) before(o reign) bool {
	return r.epoch < o.epoch || r.epoch == o.epoch && r.term < o.term
}

// hear reads a worker's log since a mark.
func hear(m bench.Mark) (said testimony) {
	var first, newest reign
	for e := range m.Since() {
		if e.Says(sessionRefused) {
			said.refused++
		}
		opened, executed := e.Says(sessionOpened), e.Says(actionExecuted)
		if !opened && !executed {
			continue
		}
		of, err := reignOf(e)
		if err != nil {
			continue // it is a line of something else
		}
		if first == (reign{}) {
			first = of
		}
		switch {
		case of.before(newest) && executed:
			said.late++
			if len(said.lines) < keptLines {
				said.lines = append(said.lines, string(e.Text))
			}
		case of.before(newest):
			said.lateSessions++
		case executed && first.before(of):
			said.executed++
		}
		if newest.before(of) {
			newest = of
		}
	}
	return said
}

func reignOf(e bench.Event) (r reign, err error) {
	var errEpoch error
	r.epoch, errEpoch = strconv.ParseUint(e.Value("epoch"), 10, 64)
	r.term, err = strconv.ParseUint(e.Value("term"), 10, 64)
	return r, errors.Join(errEpoch, err)
}

func (t *testimony) add(o testimony) {
	t.late += o.late
	t.executed += o.executed
	t.lateSessions += o.lateSessions
	t.refused += o.refused
	t.lines = append(t.lines, o.lines...)
}
