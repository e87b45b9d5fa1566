package bench

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

// Write is one control write.
type Write struct {
	At    string // the controller that was asked
	Began time.Time
	Took  time.Duration
	Err   error
}

// Done is when it ended.
func (w Write) Done() time.Time { return w.Began.Add(w.Took) }

// WriterOptions say how each writer writes.
type WriterOptions struct {
	// Patience is how long a writer waits for one acknowledgement.
	Patience time.Duration
	// Pause is at least between the end of a write and the beginning of the next,
	// Period between the beginnings of the two.
	Pause, Period time.Duration
}

// Writers write, one at each of some controllers: change after change of the
// settings, each with a request id of its own and without a repetition.
type Writers struct {
	options WriterOptions
	cancel  context.CancelFunc
	wait    sync.WaitGroup
	names   []string
	conns   []*rpc.Conn

	mu     sync.Mutex
	writes []Write
}

// StartWriters begins to write. End must be called.
func StartWriters(o WriterOptions, at []*devcluster.Process) (*Writers, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writers{options: o, cancel: cancel}
	for i, p := range at {
		conn, err := rpc.Connect(p.Addresses["control"], rpc.DialTCP, 4<<20)
		if err != nil {
			w.End()
			return nil, err
		}
		w.names, w.conns = append(w.names, p.Name), append(w.conns, conn)
		// Not all at the same moment.
		offset := time.Duration(i) * max(o.Pause, o.Period) / time.Duration(len(at))
		w.wait.Go(func() {
			_ = Pause(ctx, offset)
			w.run(ctx, p.Name, controlpb.NewControlClient(conn))
		})
	}
	return w, nil
}

func (w *Writers) run(ctx context.Context, at string, c controlpb.ControlClient) {
	late := logpb.Settings_LATE_LOADS_REJECT
	for ctx.Err() == nil {
		if late = 1 - late; late != logpb.Settings_LATE_LOADS_REJECT {
			late = logpb.Settings_LATE_LOADS_ADMIT
		}
		began := time.Now()
		attempt, cancel := context.WithTimeout(ctx, w.options.Patience)
		_, err := c.SetSettings(attempt, &controlpb.SetSettingsRequest{RequestId: rand.Text(), Settings: &logpb.Settings{LateLoads: late}})
		cancel()
		done := Write{At: at, Began: began, Took: time.Since(began), Err: err}
		if ctx.Err() != nil && err != nil {
			return // it was we who ended it
		}
		w.mu.Lock()
		w.writes = append(w.writes, done)
		w.mu.Unlock()
		_ = Pause(ctx, max(w.options.Pause, time.Until(began.Add(w.options.Period))))
	}
}

// Acknowledged is how many writes that began after a moment were acknowledged
// since another, at any controller.
func (w *Writers) Acknowledged(begun, since time.Time) (n int) {
	for _, one := range w.acknowledgedAt(begun, since) {
		n += one
	}
	return n
}

// Everywhere is the same at the controller with the fewest.
func (w *Writers) Everywhere(begun, since time.Time) int {
	counts := w.acknowledgedAt(begun, since)
	least := math.MaxInt
	for _, name := range w.names {
		least = min(least, counts[name])
	}
	return least
}

func (w *Writers) acknowledgedAt(begun, since time.Time) map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for i := len(w.writes) - 1; i >= 0 && w.writes[i].Done().After(since); i-- {
		if w.writes[i].Err == nil && w.writes[i].Began.After(begun) {
			counts[w.writes[i].At]++
		}
	}
	return counts
}

// Between are the writes that began and ended in an interval.
func (w *Writers) Between(from, to time.Time) (some []Write) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.writes {
		if one.Began.After(from) && one.Done().Before(to) {
			some = append(some, one)
		}
	}
	return some
}

// End stops writing and returns all writes in the order of their ends.
func (w *Writers) End() []Write {
	w.cancel()
	w.wait.Wait()
	var closed []error
	for _, c := range w.conns {
		closed = append(closed, c.Close())
	}
	_ = errors.Join(closed...) // nothing depends on it
	w.conns = nil
	slices.SortFunc(w.writes, func(a, b Write) int { return a.Done().Compare(b.Done()) })
	return w.writes
}
