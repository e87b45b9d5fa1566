package workerd

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

func TestAWorkersClockMayBeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, drift := range []float64{0, 0.0002, -0.0002, 0.1} {
			w := &Worker{start: time.Now(), options: Options{ClockDrift: drift, ClockOffset: -time.Hour}}
			if got := w.clock(); got != -int64(time.Hour) {
				t.Errorf("drift %v: starts at %d", drift, got)
			}
			time.Sleep(1000 * time.Second)
			want := 1000*time.Second + time.Duration(math.Round(drift*1e12)) - time.Hour
			if got := time.Duration(w.clock()); (got - want).Abs() > time.Microsecond {
				t.Errorf("drift %v: %v after 1000s, want %v", drift, got, want)
			}
		}
	})
	for _, drift := range []float64{0.2, -1, math.NaN(), math.Inf(1)} {
		o := Options{Name: "w", Incarnation: "i", ClockDrift: drift}
		if _, err := New(o); err == nil {
			t.Errorf("a drift of %v was taken", drift)
		}
	}
}

// Whatever its clock, a worker waits once for an instant, neither starts anything before it nor misses a narrow window, and
// refuses at once when a window has closed.
func TestADriftingClockKeepsWindows(t *testing.T) {
	for _, drift := range []float64{0, 0.0002, -0.0002, 0.05, -0.05} {
		t.Run(fmt.Sprint(drift), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &Worker{start: time.Now(), options: Options{ClockDrift: drift, ClockOffset: 5 * time.Minute}}
				var mu sync.Mutex
				looks, started, refused := 0, int64(0), int64(0)
				e := &executor{mu: &mu, slots: 1, limit: 10, wake: make(chan struct{}, 1)}
				e.real = w.real
				e.clock = func() int64 { looks++; return w.clock() }
				e.answer = func(j *job, _ *sessionpb.Result, err error) {
					if err != nil {
						refused = w.clock()
						return
					}
					started = j.started
				}
				ctx, stop := t.Context(), make(chan struct{})
				var ended sync.WaitGroup
				ended.Go(func() { e.run(ctx, stop) })
				synctest.Wait()

				at := w.clock() + int64(time.Minute)
				late := w.clock() + int64(20*time.Second)
				mu.Lock()
				looks = 0
				j := testJob(1, w.clock(), at, at+int64(20*time.Microsecond))
				j.run = func(context.Context, *job) (*sessionpb.Result, error) { return nil, nil }
				if err := e.submit(j); err != nil {
					t.Error(err)
				}
				never := testJob(2, w.clock(), 0, late)
				never.ready = func(int64) bool { return false }
				if err := e.submit(never); err != nil {
					t.Error(err)
				}
				mu.Unlock()
				time.Sleep(2 * time.Minute)
				mu.Lock()
				if started < at || started > at+int64(time.Microsecond) {
					t.Errorf("started %v after its earliest instant", time.Duration(started-at))
				}
				if refused <= late || refused > late+int64(time.Microsecond) {
					t.Errorf("refused %v after its latest instant", time.Duration(refused-late))
				}
				if looks > 8 {
					t.Errorf("looked at its queue %d times in two minutes", looks)
				}
				mu.Unlock()
				close(stop)
				ended.Wait()
			})
		})
	}
}
