//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

// askTimeout is the deadline of each request that waits for a successor.
const askTimeout = 20 * time.Second

// serving is what a leader says when its scheduler begins.
const serving = "]  coordinator: serving: "

// succession is what a kill of the leader cost. Times but elected are since the
// election.
type succession struct {
	// elected is since the kill.
	elected          time.Duration
	leading, serving time.Duration
	// answers are when each model of the sample was answered, by a request that
	// was sent at the kill: in ascending order, and since the kill.
	answers []time.Duration
	load    float64
	stalled time.Duration
}

// kill kills the leader and looks how soon its successor serves.
func (s *stage) kill(ctx context.Context, n int) (one succession, err error) {
	if err := s.findLeader(ctx); err != nil {
		return one, err
	}
	survivors := s.survivors()
	marks, err := bench.MarkLogs(survivors)
	if err != nil {
		return one, err
	}
	entries, err := bench.Entries(survivors)
	if err != nil {
		return one, err
	}
	defer func() {
		for _, e := range entries {
			err = errors.Join(err, e.Close())
		}
	}()
	// Connections are made, and the models of another sample are on devices.
	if _, err := s.ask(ctx, entries, n); err != nil {
		return one, fmt.Errorf("before the kill: %w", err)
	}
	one.load = bench.LoadAverage()
	stalls := bench.WatchStalls()
	defer stalls.End()
	killed := time.Now()
	if err := s.leader.Kill(); err != nil {
		return one, err
	}
	if one.answers, err = s.ask(ctx, entries, n+1); err != nil {
		return one, err
	}
	one.stalled = stalls.Longest()
	if err := s.readSuccession(ctx, marks, killed, &one); err != nil {
		return one, err
	}
	if err := s.leader.Restart(); err != nil {
		return one, err
	}
	_, err = bench.AwaitWhole(ctx, s.cluster, wholeTimeout)
	return one, err
}

func (s *stage) survivors() (some []*devcluster.Process) {
	for _, p := range s.cluster.Controllers {
		if p != s.leader {
			some = append(some, p)
		}
	}
	return some
}

// ask sends a request to each model of a sample, all at once, and returns when
// they were answered, in ascending order.
func (s *stage) ask(ctx context.Context, entries []bench.Entry, offset int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	stride := s.options.models / s.options.sample
	var mu sync.Mutex
	var answers []time.Duration
	var failed []error
	var wait sync.WaitGroup
	began := time.Now()
	for i := range s.options.sample {
		model := name((i*stride + offset) % s.options.models)
		wait.Go(func() {
			_, _, err := entries[i%len(entries)].Infer(ctx, bench.Request(model, bytes.Repeat([]byte{byte(i)}, bench.InputBytes)))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, fmt.Errorf("model %s: %w", model, err))
			}
			answers = append(answers, time.Since(began))
		})
	}
	wait.Wait()
	return answers, errors.Join(failed...)
}

// readSuccession takes from the survivors' logs who was elected, and when it led
// and served.
func (s *stage) readSuccession(ctx context.Context, marks []bench.Mark, killed time.Time, one *succession) error {
	for {
		for _, m := range marks {
			var elected, leading, served time.Time
			for e := range m.Since() {
				switch {
				case e.Says(bench.Elected):
					elected = e.At
				case e.Says(bench.Leading):
					leading = e.At
				case e.Says(serving):
					served = e.At
				}
			}
			if !served.IsZero() && !elected.IsZero() && !leading.Before(elected) {
				one.elected, one.leading, one.serving = elected.Sub(killed), leading.Sub(elected), served.Sub(elected)
				return nil
			}
		}
		if err := bench.Pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("no survivor's log tells that it serves: %w", err)
		}
	}
}
