package workerd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

// executor runs what waits in its queue, so many jobs at a time, and answers at once what has become too late.
type executor struct {
	mu    *sync.Mutex                  // the worker's
	clock func() int64                 // the worker's, in nanoseconds
	real  func(ns int64) time.Duration // how long the clock takes for so much
	// answer sends the result of a job, or the error that it ended with. Called with the lock held.
	answer func(j *job, r *sessionpb.Result, err error)
	began  func(j *job) // is told of what starts, but not of what goes on; may be nil. Called with the lock held.
	slots  int
	limit  int // of jobs that wait

	// Guarded by mu.
	queue   queue
	running []*job
	closed  bool

	wake chan struct{}
}

// submit queues a job. The lock is held.
func (e *executor) submit(j *job) error {
	switch {
	case e.closed:
		return errShuttingDown
	case len(e.queue.jobs) >= e.limit:
		return refusef(sessionpb.ResultCode_RESULT_CODE_TOO_EARLY,
			"%d actions wait here already; send fewer at a time or raise the limit", e.limit)
	}
	e.queue.push(j)
	e.poke()
	return nil
}

// poke makes the executor look at its queue again.
func (e *executor) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run executes jobs until stop closes, and returns when those that run have ended. They are given work as context.
func (e *executor) run(work context.Context, stop <-chan struct{}) {
	var running sync.WaitGroup
	defer running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(e.dispatch(work, &running))
		select {
		case <-stop:
			return
		case <-e.wake:
		case <-timer.C:
		}
	}
}

// dispatch answers what is late, starts what may begin, and says when to look again.
func (e *executor) dispatch(work context.Context, running *sync.WaitGroup) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock()
	for _, j := range e.queue.late(now) {
		e.answer(j, nil, refusef(sessionpb.ResultCode_RESULT_CODE_TOO_LATE,
			"not started within its window, which closed %v ago", time.Duration(now-j.latest)))
	}
	for len(e.running) < e.slots && !e.closed {
		j := e.queue.next(now)
		if j == nil {
			break
		}
		j.started = now
		e.running = append(e.running, j)
		if e.began != nil && j.measurement == nil {
			e.began(j)
		}
		running.Go(func() { e.execute(work, j) })
	}
	at := e.queue.wakeAt(now, len(e.running) < e.slots)
	if at == never {
		return time.Hour
	}
	return e.real(at - now)
}

func (e *executor) execute(work context.Context, j *job) {
	r, err := j.run(work, j)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = slices.DeleteFunc(e.running, func(other *job) bool { return other == j })
	defer e.poke()
	next, unfinished := errors.AsType[later](err)
	switch {
	case unfinished && e.closed:
		e.answer(j, nil, errShuttingDown)
	case unfinished:
		j.latest, j.started = never, 0
		next.on.proceed(j, next.at)
	default:
		e.answer(j, r, err)
	}
}

// cancel takes jobs that wait out of the queue and returns them. The lock is held.
func (e *executor) cancel(unwanted func(*job) bool) []*job {
	removed := e.queue.remove(unwanted)
	e.poke()
	return removed
}

// drop forgets the jobs of a session: those that wait never run, those that run are not answered. Those that have begun
// and wait to go on do so at once, to clear up. The lock is held.
func (e *executor) drop(s *session) {
	for _, j := range e.cancel(func(j *job) bool { return j.from == origin(s) }) {
		if j.measurement != nil {
			j.dropped = true
			e.proceed(j, e.clock())
		}
	}
	for _, j := range e.running {
		j.dropped = j.dropped || j.from == origin(s)
	}
}

// proceed queues a job that has begun, to go on at an instant; at once if it is only to clear up. The lock is held.
func (e *executor) proceed(j *job, at int64) {
	j.earliest = at
	if j.dropped || j.unwanted {
		j.earliest = e.clock()
	}
	e.queue.push(j)
	e.poke()
}

// abort has the measurements of a model end as soon as they can. The lock is held.
func (e *executor) abort(model uint64) {
	of := func(j *job) bool { return j.measurement != nil && j.action.GetModelId() == model }
	for _, j := range e.cancel(of) {
		j.unwanted = true
		e.proceed(j, e.clock())
	}
	for _, j := range e.running {
		j.unwanted = j.unwanted || of(j)
	}
}

// close refuses all that waits and all that comes. The lock is held.
func (e *executor) close() {
	e.closed = true
	for _, j := range e.cancel(func(*job) bool { return true }) {
		e.answer(j, nil, errShuttingDown)
	}
}

// uses says whether a job that waits or runs satisfies the condition. The lock is held.
func (e *executor) uses(condition func(*job) bool) bool {
	return slices.ContainsFunc(e.queue.jobs, condition) || slices.ContainsFunc(e.running, condition)
}

// busy is how many jobs wait or run. The lock is held.
func (e *executor) busy() int {
	return len(e.queue.jobs) + len(e.running)
}
