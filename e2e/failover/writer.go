//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// writePause is between the end of a write and the beginning of the next.
const writePause = 20 * time.Millisecond

// write is one control write.
type write struct {
	at    string // the controller that was asked
	began time.Time
	took  time.Duration
	err   error
}

func (w write) done() time.Time { return w.began.Add(w.took) }

// writers write, one at each of some controllers: change after change of the
// settings, each with a request id of its own and without a repetition.
type writers struct {
	patience time.Duration
	cancel   context.CancelFunc
	wait     sync.WaitGroup
	names    []string
	conns    []*rpc.Conn

	mu     sync.Mutex
	writes []write
}

// startWriters begins to write. end must be called.
func startWriters(patience time.Duration, at []*devcluster.Process) (*writers, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writers{patience: patience, cancel: cancel}
	for i, p := range at {
		conn, err := rpc.Connect(p.Addresses["control"], rpc.DialTCP, 4<<20)
		if err != nil {
			w.end()
			return nil, err
		}
		w.names, w.conns = append(w.names, p.Name), append(w.conns, conn)
		// Not all at the same moment.
		offset := time.Duration(i) * writePause / time.Duration(len(at))
		w.wait.Go(func() {
			_ = pause(ctx, offset)
			w.run(ctx, p.Name, controlpb.NewControlClient(conn))
		})
	}
	return w, nil
}

func (w *writers) run(ctx context.Context, at string, c controlpb.ControlClient) {
	late := logpb.Settings_LATE_LOADS_REJECT
	for ctx.Err() == nil {
		if late = 1 - late; late != logpb.Settings_LATE_LOADS_REJECT {
			late = logpb.Settings_LATE_LOADS_ADMIT
		}
		began := time.Now()
		attempt, cancel := context.WithTimeout(ctx, w.patience)
		_, err := c.SetSettings(attempt, &controlpb.SetSettingsRequest{RequestId: rand.Text(), Settings: &logpb.Settings{LateLoads: late}})
		cancel()
		done := write{at: at, began: began, took: time.Since(began), err: err}
		if ctx.Err() != nil && err != nil {
			return // it was we who ended it
		}
		w.mu.Lock()
		w.writes = append(w.writes, done)
		w.mu.Unlock()
		_ = pause(ctx, writePause)
	}
}

// acknowledged is how many writes that began after a moment were acknowledged
// since another, at any controller.
func (w *writers) acknowledged(begun, since time.Time) (n int) {
	for _, one := range w.acknowledgedAt(begun, since) {
		n += one
	}
	return n
}

// everywhere is the same at the controller with the fewest.
func (w *writers) everywhere(begun, since time.Time) int {
	counts := w.acknowledgedAt(begun, since)
	least := math.MaxInt
	for _, name := range w.names {
		least = min(least, counts[name])
	}
	return least
}

func (w *writers) acknowledgedAt(begun, since time.Time) map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for i := len(w.writes) - 1; i >= 0 && w.writes[i].done().After(since); i-- {
		if w.writes[i].err == nil && w.writes[i].began.After(begun) {
			counts[w.writes[i].at]++
		}
	}
	return counts
}

// between are the writes that began and ended in an interval.
func (w *writers) between(from, to time.Time) (some []write) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.writes {
		if one.began.After(from) && one.done().Before(to) {
			some = append(some, one)
		}
	}
	return some
}

// end stops writing and returns all writes in the order of their ends.
func (w *writers) end() []write {
	w.cancel()
	w.wait.Wait()
	var closed []error
	for _, c := range w.conns {
		closed = append(closed, c.Close())
	}
	_ = errors.Join(closed...) // nothing depends on it
	w.conns = nil
	slices.SortFunc(w.writes, func(a, b write) int { return a.done().Compare(b.done()) })
	return w.writes
}

// gap is the longest time between two of some moments, in order, of which the
// second is after from and the first before to; also that from the last moment
// to to. With clip it counts from from at the earliest.
func gap(moments []time.Time, from, to time.Time, clip bool) (longest time.Duration, ended time.Time) {
	last := from
	if !clip {
		if i, _ := slices.BinarySearchFunc(moments, from, time.Time.Compare); i > 0 {
			last = moments[i-1]
		}
	}
	for _, at := range moments {
		if !at.After(from) {
			continue
		}
		if d := at.Sub(last); d > longest {
			longest, ended = d, at
		}
		last = at
		if at.After(to) {
			return longest, ended
		}
	}
	if d := to.Sub(last); d > longest {
		longest, ended = d, to
	}
	return longest, ended
}
