package workerd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

func testJob(id uint64, received, earliest, latest int64) *job {
	return newJob(nil, &sessionpb.Action{Id: id, EarliestNs: earliest, LatestNs: latest}, received)
}

func TestQueueOrdersByEarliestThenArrival(t *testing.T) {
	var q queue
	for _, j := range []*job{testJob(1, 5, 30, 0), testJob(2, 6, 10, 0), testJob(3, 7, 30, 0), testJob(4, 8, 0, 0), testJob(5, 9, 10, 0)} {
		q.push(j)
	}
	var order []uint64
	for now := int64(0); now < 40; now++ {
		for j := q.next(now); j != nil; j = q.next(now) {
			order = append(order, j.action.GetId())
			if now < j.earliest {
				t.Errorf("job %d began at %d, before %d", j.action.GetId(), now, j.earliest)
			}
		}
	}
	if want := []uint64{4, 2, 5, 1, 3}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func TestQueueLetsOthersPassOneThatIsNotReady(t *testing.T) {
	var q queue
	held := testJob(1, 1, 0, 0)
	held.ready = func(now int64) bool { return now >= 50 }
	held.patience = 50
	q.push(held)
	q.push(testJob(2, 2, 0, 0))
	if j := q.next(10); j == nil || j.action.GetId() != 2 {
		t.Fatalf("got %v, want job 2", j)
	}
	if j := q.next(10); j != nil {
		t.Fatalf("job %d began although it isn't ready", j.action.GetId())
	}
	if at := q.wakeAt(10, true); at != 50 {
		t.Errorf("wakes at %d, want 50", at)
	}
	if at := q.wakeAt(10, false); at != never {
		t.Errorf("wakes at %d although nothing may run", at)
	}
	if j := q.next(50); j != held {
		t.Errorf("got %v, want the held job", j)
	}
}

func TestQueueLateness(t *testing.T) {
	var q queue
	q.push(testJob(1, 1, 0, 20))
	q.push(testJob(2, 1, 10, 30))
	if at := q.wakeAt(5, true); at != 10 {
		t.Errorf("wakes at %d, want 10", at)
	}
	if at := q.wakeAt(5, false); at != 21 {
		t.Errorf("wakes at %d, want 21", at)
	}
	if late := q.late(20); len(late) != 0 {
		t.Errorf("late at the last instant of the window: %v", late)
	}
	if late := q.late(21); len(late) != 1 || late[0].action.GetId() != 1 {
		t.Errorf("late %v, want job 1", late)
	}
	if j := q.next(31); j != nil {
		t.Error("a job began after its window")
	}
}

// bench runs an executor alone.
type bench struct {
	executor *executor
	mu       sync.Mutex
	start    time.Time
	events   []string
}

func runExecutor(t *testing.T, slots, limit int) *bench {
	b := &bench{start: time.Now()}
	b.executor = &executor{mu: &b.mu, slots: slots, limit: limit, wake: make(chan struct{}, 1)}
	b.executor.clock = func() int64 { return int64(time.Since(b.start)) }
	b.executor.real = func(ns int64) time.Duration { return time.Duration(ns) }
	b.executor.answer = func(j *job, _ *sessionpb.Result, err error) { b.note(j, codeOf(err).String()[len("RESULT_CODE_"):]) }
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		b.executor.run(t.Context(), stop)
	}()
	t.Cleanup(func() { close(stop); <-ended })
	return b
}

func (b *bench) note(j *job, what string) {
	b.events = append(b.events, fmt.Sprintf("%v %d %s", time.Since(b.start), j.action.GetId(), what))
}

func (b *bench) submit(id uint64, earliest, latest, takes time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := testJob(id, b.executor.clock(), int64(earliest), int64(latest))
	j.run = func(context.Context, *job) (*sessionpb.Result, error) {
		b.mu.Lock()
		b.note(j, "starts")
		b.mu.Unlock()
		time.Sleep(takes)
		return nil, nil
	}
	return b.executor.submit(j)
}

func (b *bench) want(t *testing.T, events ...string) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.events, events) {
		t.Errorf("events\n%q\nwant\n%q", b.events, events)
	}
}

func TestExecutorKeepsWindowsAndRunsOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := runExecutor(t, 1, 10)
		const ms = time.Millisecond
		b.submit(1, 5*ms, 0, 20*ms)
		b.submit(2, 6*ms, 15*ms, ms)  // late while 1 runs: answered at once
		b.submit(3, 10*ms, 25*ms, ms) // just in time
		b.submit(4, 40*ms, 0, ms)
		time.Sleep(time.Second)
		b.want(t, "5ms 1 starts", "15.000001ms 2 TOO_LATE", "25ms 1 OK", "25ms 3 starts", "26ms 3 OK", "40ms 4 starts", "41ms 4 OK")
	})
}

func TestExecutorSlotsLimitAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := runExecutor(t, 2, 1)
		for id := range uint64(2) {
			if err := b.submit(id+1, 0, 0, time.Second); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if err := b.submit(3, 0, 0, time.Second); err != nil {
			t.Fatal(err)
		}
		if err := b.submit(4, 0, 0, time.Second); codeOf(err) != sessionpb.ResultCode_RESULT_CODE_TOO_EARLY {
			t.Errorf("beyond the limit: %v", err)
		}
		b.mu.Lock()
		b.executor.close()
		b.mu.Unlock()
		if err := b.submit(5, 0, 0, time.Second); !errors.Is(err, errShuttingDown) {
			t.Errorf("after close: %v", err)
		}
		time.Sleep(time.Minute)
		b.mu.Lock()
		slices.Sort(b.events[3:])
		b.mu.Unlock()
		b.want(t, "0s 1 starts", "0s 2 starts", "0s 3 SHUTTING_DOWN", "1s 1 OK", "1s 2 OK")
	})
}
