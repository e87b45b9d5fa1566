//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/proto/exchangepb"
)

// What the load is made of, each of a list as often as the others. Requests come
// in bursts, so that there are batches of all sizes, and the moments of the bursts
// are independent of each other and of the answers.
var (
	bursts    = []int{1, 1, 1, 2, 3, 4, 6, 8, 12}
	rows      = []int{1, 1, 1, 1, 1, 1, 2, 3}
	deadlines = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 3 * time.Second}
)

// planned is one request to be.
type planned struct {
	// at is when it is sent, since the beginning.
	at       time.Duration
	deadline time.Duration
	pictures []picture
}

// plan makes n requests, rate of them a second in the mean.
func plan(n, rate int, seed uint64, pictures []picture) []planned {
	random := bench.RandomFor(seed, "load", 0)
	mean := 0.0
	for _, b := range bursts {
		mean += float64(b) / float64(len(bursts))
	}
	pause := mean / float64(rate) * float64(time.Second)
	var all []planned
	for at := time.Duration(0); len(all) < n; at += time.Duration(random.ExpFloat64() * pause) {
		for range min(one(random, bursts), n-len(all)) {
			p := planned{at: at, deadline: one(random, deadlines)}
			for range one(random, rows) {
				p.pictures = append(p.pictures, one(random, pictures))
			}
			all = append(all, p)
		}
	}
	return all
}

func one[T any](random *rand.Rand, of []T) T { return of[random.IntN(len(of))] }

// sample is what became of one request.
type sample struct {
	err error
	// rows are its own, batchRows those of its batch.
	rows, batchRows int
	// predicted is what the scheduler expected of the engine, actual what that
	// took.
	predicted, actual time.Duration
}

// send sends the load, whether or not earlier requests were answered, until ctx
// ends.
func (s *stage) send(ctx context.Context, o options, to target) []sample {
	load := plan(o.requests, o.rate, o.seed, s.pictures)
	samples := make([]sample, len(load))
	var wait sync.WaitGroup
	began := time.Now()
	for i, p := range load {
		if bench.Pause(ctx, time.Until(began.Add(p.at))) != nil {
			samples = samples[:i]
			break
		}
		wait.Go(func() { samples[i] = s.ask(ctx, to, p) })
	}
	wait.Wait()
	return samples
}

func (s *stage) ask(ctx context.Context, to target, p planned) sample {
	ctx, cancel := context.WithTimeout(ctx, p.deadline)
	defer cancel()
	response, answer, err := s.client.Infer(ctx, to.request(p.pictures))
	if err == nil {
		err = to.check(response, p.pictures)
	}
	return sample{
		err: err, rows: len(p.pictures), batchRows: int(answer.GetBatchRows()),
		predicted: stageOf(answer, "predicted"), actual: stageOf(answer, "engine"),
	}
}

// stageOf is the time of a stage, 0 when the answer does not tell it.
func stageOf(a *exchangepb.Answer, name string) time.Duration {
	for _, s := range a.GetStages() {
		if s.Name == name {
			return time.Duration(s.DurationNs)
		}
	}
	return 0
}
