package main

import (
	"context"
	"sync"
	"time"

	"github.com/orrery-project/orrery/client"
)

// requestDeadline is that of each request of the load.
const requestDeadline = 3 * time.Second

// sample is one request of the load. Times count from the load's start.
type sample struct {
	// at is when the request was due, not when there was time to send it: a
	// stall counts against every request that it delayed.
	at, done time.Duration
	err      error
	// faithful says that the answer is the predicted one, right that it is the
	// true one.
	faithful, right bool
}

func (s sample) latency() time.Duration { return s.done - s.at }

// demoLoad sends requests at a steady rate, whether or not earlier ones have been
// answered, to several clients in turn.
type demoLoad struct {
	clients   []*client.Client
	questions []question
	interval  time.Duration
	start     time.Time

	mu      sync.Mutex
	samples []sample
}

// run sends until stop is closed, then waits for the last answers. ctx ends
// those too.
func (l *demoLoad) run(ctx context.Context, stop <-chan struct{}) {
	var wait sync.WaitGroup
	defer wait.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		at := time.Duration(i) * l.interval
		timer.Reset(at - time.Since(l.start))
		select {
		case <-timer.C:
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
		wait.Go(func() { l.one(ctx, at, l.clients[i%len(l.clients)], l.questions[i%len(l.questions)]) })
	}
}

// one makes one request.
func (l *demoLoad) one(ctx context.Context, at time.Duration, c *client.Client, q question) {
	ctx, cancel := context.WithDeadline(ctx, l.start.Add(at+requestDeadline))
	defer cancel()
	class, err := ask(ctx, c, q)
	s := sample{at: at, done: time.Since(l.start), err: err}
	s.faithful = err == nil && class == q.predicted
	s.right = err == nil && class == q.image.Label
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, s)
}

// answeredSince says whether a request was answered after a time.
func (l *demoLoad) answeredSince(since time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.samples) - 1; i >= 0; i-- {
		if s := l.samples[i]; s.err == nil && s.done >= since {
			return true
		}
	}
	return false
}
