package raftnode

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// WriteLimits says how long one call of the storage may take before the disk is
// taken to hang. A field that is zero takes its default.
type WriteLimits struct {
	Leader   time.Duration // while this replica leads: its heartbeats go on, but nothing commits; default 2 s
	Follower time.Duration // otherwise, and for snapshots, which nobody waits for; default 10 s
}

// watchdogLooks is how often the calls are looked at within the shorter limit.
const watchdogLooks = 8

// watchdog knows the calls of the storage that are under way.
//
// It reads no clock for a call. Its own advances with the looks at the calls, and
// only by about their interval, so that a process that was stopped or starved for
// a while, and then goes on, does not blame the disk.
type watchdog struct {
	watched atomic.Int64 // the clock, in nanoseconds

	mu    sync.Mutex
	calls []storageCall
}

// storageCall is a call under way, or a free place if it has no action.
type storageCall struct {
	action   string
	since    time.Duration // by the watchdog's clock, so up to one interval early
	snapshot bool
}

// begin notes a call; its end is to be told with what is returned.
func (w *watchdog) begin(action string, snapshot bool) int {
	call := storageCall{action: action, since: time.Duration(w.watched.Load()), snapshot: snapshot}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.calls {
		if w.calls[i].action == "" {
			w.calls[i] = call
			return i
		}
	}
	w.calls = append(w.calls, call)
	return len(w.calls) - 1
}

func (w *watchdog) end(call int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[call].action = ""
}

// run looks at the calls until stop is closed, or until one has exceeded its
// limit by up to a quarter: then it tells hang of it and returns.
func (w *watchdog) run(stop <-chan struct{}, limits WriteLimits, leading func() bool, hang func(error)) {
	interval := min(limits.Leader, limits.Follower) / watchdogLooks
	ticker := time.NewTicker(max(interval, time.Millisecond))
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case now := <-ticker.C:
			w.watched.Add(int64(min(now.Sub(last), 2*interval)))
			last = now
		}
		if err := w.overdue(limits, leading(), interval); err != nil {
			hang(err)
			return
		}
	}
}

// overdue returns an error for a call that has surely exceeded its limit.
func (w *watchdog) overdue(limits WriteLimits, leading bool, interval time.Duration) error {
	now := time.Duration(w.watched.Load())
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, call := range w.calls {
		limit := limits.Follower
		if leading && !call.snapshot {
			limit = limits.Leader
		}
		if call.action != "" && now-call.since >= limit+interval {
			return fmt.Errorf("to %s takes longer than %v", call.action, limit)
		}
	}
	return nil
}
