//go:build linux

package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/errs"
)

// kind is the errors of one kind, and the first of them.
type kind struct {
	n     int
	first string
}

// counts are what became of requests.
type counts struct {
	answered int
	// late were not answered by their deadline, wrong had another's answer,
	// failed are all others without an answer.
	late, wrong, failed int
	degraded            int
	latencies           latencies
	kinds               map[string]kind
}

func (c *counts) sent() int  { return c.answered + c.bad() }
func (c *counts) bad() int   { return c.late + c.wrong + c.failed }
func (c *counts) other() int { return c.wrong + c.failed }
func (c *counts) loss() float64 {
	if c.sent() == 0 {
		return 1
	}
	return float64(c.bad()) / float64(c.sent())
}

func (c *counts) add(o bench.Outcome) {
	switch {
	case o.Err == nil:
		c.answered++
		c.latencies.add(o.Took)
		if o.Degraded {
			c.degraded++
		}
		return
	case errors.Is(o.Err, bench.ErrWrong):
		c.wrong++
	case errors.Is(o.Err, errs.DeadlinePassed):
		c.late++
	default:
		c.failed++
	}
	name := o.Err.Error()
	if e, ok := errors.AsType[*errs.Error](o.Err); ok {
		name = string(e.Reason)
	} else if errors.Is(o.Err, bench.ErrWrong) {
		name = bench.ErrWrong.Error()
	}
	c.tell(name, kind{1, fmt.Sprintf("sent %s to %s, after %v: %v", o.Sent.UTC().Format(time.TimeOnly), o.Entry, o.Took.Round(time.Millisecond), o.Err)})
}

func (c *counts) tell(name string, k kind) {
	if c.kinds == nil {
		c.kinds = map[string]kind{}
	}
	if before, ok := c.kinds[name]; ok {
		k = kind{before.n + k.n, before.first}
	}
	c.kinds[name] = k
}

func (c *counts) merge(other *counts) {
	c.answered += other.answered
	c.late += other.late
	c.wrong += other.wrong
	c.failed += other.failed
	c.degraded += other.degraded
	c.latencies.merge(&other.latencies)
	for name, k := range other.kinds {
		c.tell(name, k)
	}
}

// tally counts outcomes from many goroutines.
type tally struct {
	mu  sync.Mutex
	now *counts
}

func newTally() *tally { return &tally{now: &counts{}} }

func (t *tally) add(o bench.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.add(o)
}

// take returns the counts since the last take.
func (t *tally) take() *counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.now
	t.now = &counts{}
	return c
}
