package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/orrery-project/orrery/proto/inferencepb"
)

// traffic is a steady, open-loop load on some entries.
type traffic struct {
	c       *cluster
	rate    int // requests a second
	timeout time.Duration
	model   string
	entries []inferencepb.GRPCInferenceServiceClient
	stop    chan struct{}
	once    sync.Once
	wait    sync.WaitGroup

	mu     sync.Mutex
	sent   int
	good   []time.Time
	took   []time.Duration // of the good ones
	faults []error
}

// startTraffic sends requests to the named controllers in turn until end.
func (c *cluster) startTraffic(rate int, timeout time.Duration, names ...string) *traffic {
	return c.startTrafficFor("resnet18", rate, timeout, names...)
}

// startTrafficFor is startTraffic for another model.
func (c *cluster) startTrafficFor(model string, rate int, timeout time.Duration, names ...string) *traffic {
	tr := &traffic{c: c, rate: rate, timeout: timeout, model: model, stop: make(chan struct{})}
	for _, name := range names {
		tr.entries = append(tr.entries, c.inference(name))
	}
	tr.wait.Go(tr.run)
	c.t.Cleanup(tr.end) // also when the test has failed
	return tr
}

func (tr *traffic) run() {
	ticker := time.NewTicker(time.Second / time.Duration(tr.rate))
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-tr.stop:
			return
		case <-ticker.C:
			tr.wait.Go(func() { tr.one(i) })
		}
	}
}

func (tr *traffic) one(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), tr.timeout)
	defer cancel()
	began := time.Now()
	err := ask(ctx, tr.entries[i%len(tr.entries)], image(tr.model, i))
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.sent++
	if err != nil {
		tr.faults = append(tr.faults, fmt.Errorf("request %d: %w", i, err))
		return
	}
	tr.good, tr.took = append(tr.good, time.Now()), append(tr.took, time.Since(began))
}

// end stops the load and waits for all answers.
func (tr *traffic) end() {
	tr.once.Do(func() { close(tr.stop) })
	tr.wait.Wait()
}

// answered is how many have been answered rightly so far.
func (tr *traffic) answered() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.good)
}

// expectNoFault fails the test when a request failed, or when there was no
// real load.
func (tr *traffic) expectNoFault() {
	tr.c.t.Helper()
	if tr.sent < tr.rate {
		tr.c.t.Errorf("only %d requests were sent: the load was not real", tr.sent)
	}
	for i, err := range tr.faults {
		if i == 5 {
			break
		}
		tr.c.t.Errorf("%v", err)
	}
	if len(tr.faults) > 0 {
		tr.c.t.Errorf("%d of %d requests failed", len(tr.faults), tr.sent)
	}
}

// longestGap is the longest time without an answer.
func (tr *traffic) longestGap() (gap time.Duration) {
	for i := 1; i < len(tr.good); i++ {
		gap = max(gap, tr.good[i].Sub(tr.good[i-1]))
	}
	return gap
}
