package controller

import (
	"context"
	"sync"
)

// shared lets many callers share the runs of a costly check. Each gets the
// result of a run that began after its call.
type shared struct {
	turn chan struct{} // held while a run goes on

	mu   sync.Mutex
	next *sharedRun
}

// sharedRun is one run, and those who wait for it.
type sharedRun struct {
	done chan struct{}
	err  error
}

func newShared() *shared { return &shared{turn: make(chan struct{}, 1)} }

// run returns the result of check, run by this caller or by another one. The
// first who comes while a run goes on makes the next one, for all who come
// until that begins.
func (s *shared) run(ctx context.Context, check func(context.Context) error) error {
	s.mu.Lock()
	mine, first := s.next, s.next == nil
	if first {
		mine = &sharedRun{done: make(chan struct{})}
		s.next = mine
	}
	s.mu.Unlock()
	if first {
		s.turn <- struct{}{}
		s.mu.Lock()
		s.next = nil
		s.mu.Unlock()
		mine.err = check(context.WithoutCancel(ctx)) // others depend on it
		<-s.turn
		close(mine.done)
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
