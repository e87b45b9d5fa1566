//go:build linux

package main

import (
	"context"
	"sync"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

// sendPoll is how often the leader's counters are looked at: moments are known
// to that, and are rather too late than too early.
const sendPoll = 10 * time.Millisecond

// sends is what a leader sends to which worker, and when.
type sends struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu    sync.Mutex
	rises map[string][]time.Time // by worker, in order
}

// watchSends begins to look. end must be called.
func watchSends(leader *devcluster.Process, workers []string) *sends {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sends{cancel: cancel, rises: map[string][]time.Time{}}
	s.wait.Go(func() {
		ticker := time.NewTicker(sendPoll)
		defer ticker.Stop()
		var before map[string]float64
		for ctx.Err() == nil {
			if now, err := bench.Metrics(ctx, leader); err == nil {
				s.note(time.Now(), workers, before, now)
				before = now
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
	})
	return s
}

// counter is the leader's figure for a worker.
func counter(worker string) string { return `orrery_worker_actions_total{worker="` + worker + `"}` }

func (s *sends) note(at time.Time, workers []string, before, now map[string]float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range workers {
		if before != nil && now[counter(w)] > before[counter(w)] {
			s.rises[w] = append(s.rises[w], at)
		}
	}
}

// last is the last time in an interval at which something was sent to the
// worker; false: nothing was.
func (s *sends) last(worker string, from, to time.Time) (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rises[worker] {
		if r.After(from) && r.Before(to) {
			at, ok = r, true
		}
	}
	return at, ok
}

// lastAfter is how long after a moment, and before another one, something was
// sent to one of the workers for the last time; 0: nothing was.
func (s *sends) lastAfter(from, to time.Time, workers ...string) (longest time.Duration) {
	for _, w := range workers {
		if at, ok := s.last(w, from, to); ok {
			longest = max(longest, at.Sub(from))
		}
	}
	return longest
}

// awaitFirst waits until something is sent to the worker after a moment.
func (s *sends) awaitFirst(ctx context.Context, worker string, from time.Time) (time.Duration, error) {
	for {
		s.mu.Lock()
		for _, r := range s.rises[worker] {
			if r.After(from) {
				s.mu.Unlock()
				return r.Sub(from), nil
			}
		}
		s.mu.Unlock()
		if err := bench.Pause(ctx, sendPoll); err != nil {
			return 0, err
		}
	}
}

// all says whether something was sent to each of the workers since a moment.
func (s *sends) all(workers []string, since time.Time) bool {
	for _, w := range workers {
		if _, ok := s.last(w, since, time.Now()); !ok {
			return false
		}
	}
	return true
}

func (s *sends) end() {
	s.cancel()
	s.wait.Wait()
}
