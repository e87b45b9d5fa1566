//go:build linux

package main

import (
	"slices"
	"sync"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

const (
	modelName = "bench"
	// modelTable is an emulated model that keeps a worker's core idle.
	modelTable = "model,input_bytes,output_bytes,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms,b8_ms,b16_ms\n" +
		modelName + ",64,16,1,1,1,1.2,1.5,2,3\n"
)

// load is a steady load, all of whose outcomes are kept.
type load struct {
	*bench.Load
	rate int

	mu       sync.Mutex
	outcomes []bench.Outcome
}

// startLoad begins to send. end must be called; it closes the entries.
func startLoad(rate int, deadline time.Duration, entries []bench.Entry) *load {
	l := &load{rate: rate}
	l.Load = bench.StartLoad(bench.LoadOptions{
		Model: modelName, Rate: rate, Deadline: deadline, Entries: entries, Each: l.keep,
	})
	return l
}

func (l *load) keep(o bench.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes = append(l.outcomes, o)
}

// share is how much of the rate was answered since a moment.
func (l *load) share(since time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	answered := 0
	for i := len(l.outcomes) - 1; i >= 0 && l.outcomes[i].Done().After(since); i-- {
		if l.outcomes[i].Err == nil {
			answered++
		}
	}
	return float64(answered) / (float64(l.rate) * time.Since(since).Seconds())
}

// end stops sending, waits for the last answers and returns all outcomes in the
// order of their ends.
func (l *load) end() []bench.Outcome {
	l.End()
	slices.SortFunc(l.outcomes, func(a, b bench.Outcome) int { return a.Done().Compare(b.Done()) })
	return l.outcomes
}
