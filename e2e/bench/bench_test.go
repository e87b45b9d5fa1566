package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// answer is an entry that answers after a while, wrongly if told so.
func answer(after time.Duration, wrong bool) Entry {
	return Entry{
		Name: "fake",
		Infer: func(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, bool, error) {
			if err := Pause(ctx, after); err != nil {
				return nil, false, err
			}
			h := fnv.New64a()
			h.Write(r.RawInputContents[0])
			sum := h.Sum64()
			if wrong {
				sum++
			}
			return &inferencepb.ModelInferResponse{RawOutputContents: [][]byte{binary.LittleEndian.AppendUint64(nil, sum)}}, false, nil
		},
		Close: func() error { return nil },
	}
}

// runLoad sends for two seconds.
func runLoad(o LoadOptions) (all []Outcome) {
	var mu sync.Mutex
	o.Model, o.Deadline = "m", time.Second
	o.Each = func(one Outcome) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, one)
	}
	l := StartLoad(o)
	_ = Pause(context.Background(), 2*time.Second)
	l.End()
	return all
}

func TestLoadKeepsItsRate(t *testing.T) {
	for _, rate := range []int{50, 300, 20000} {
		synctest.Test(t, func(t *testing.T) {
			all := runLoad(LoadOptions{Rate: rate, Entries: []Entry{answer(10*time.Millisecond, false), answer(time.Millisecond, false)}})
			if n := len(all); n < 2*rate-1-rate/1000 || n > 2*rate+rate/100+1 { // what is due within one millisecond is sent together
				t.Errorf("%d requests in 2 s at %d/s", n, rate)
			}
			for _, o := range all {
				if o.Err != nil || o.Done().Sub(o.Sent) != o.Took {
					t.Fatalf("%+v", o)
				}
			}
		})
	}
}

func TestLoadTellsWhatIsWrongLateAndNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, o := range runLoad(LoadOptions{Rate: 10, Entries: []Entry{answer(0, true)}}) {
			if !errors.Is(o.Err, ErrWrong) {
				t.Errorf("a wrong answer: %v", o.Err)
			}
		}
		for _, o := range runLoad(LoadOptions{Rate: 10, Entries: []Entry{answer(time.Minute, false)}}) {
			if !errors.Is(o.Err, context.DeadlineExceeded) || o.Took != time.Second {
				t.Errorf("a late answer: %v after %v", o.Err, o.Took)
			}
		}
		crowded := 0
		for _, o := range runLoad(LoadOptions{Rate: 100, InFlight: 50, Entries: []Entry{answer(999*time.Millisecond, false)}}) {
			if errors.Is(o.Err, ErrCrowded) {
				crowded++
			} else if o.Err != nil {
				t.Error(o.Err)
			}
		}
		if crowded < 95 || crowded > 105 {
			t.Errorf("%d of 200 were not sent, want half", crowded)
		}
	})
}

func TestEventsSinceAMark(t *testing.T) {
	p := &devcluster.Process{Log: filepath.Join(t.TempDir(), "log")}
	if _, err := MarkLogs([]*devcluster.Process{p}); err == nil {
		t.Error("a log that is not there was marked")
	}
	old := "2026-01-02T15:04:00.000Z [INFO]  raft: entering candidate state\n"
	if err := os.WriteFile(p.Log, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	marks, err := MarkLogs([]*devcluster.Process{p})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.Log, []byte(old+"no time\n2026-01-02T15:04:05.250Z [INFO]  leading: term=3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var events []Event
	for e := range marks[0].Since() {
		events = append(events, e)
	}
	if len(events) != 1 || !events[0].Says(Leading) || events[0].Says(Stood) ||
		!events[0].At.Equal(time.Date(2026, 1, 2, 15, 4, 5, 250e6, time.UTC)) {
		t.Errorf("%v", events)
	}
}

func TestSharesOfProcessors(t *testing.T) {
	idle, stolen := CPU{idle: 30, stolen: 11, all: 200}.Since(CPU{idle: 10, stolen: 1, all: 100})
	if idle != 20 || stolen != 10 {
		t.Errorf("idle %v, stolen %v", idle, stolen)
	}
	if idle, stolen = (CPU{}).Since(CPU{}); idle != 0 || stolen != 0 {
		t.Errorf("of no time: %v, %v", idle, stolen)
	}
	if ProcessTime(-1) != 0 {
		t.Error("no process has used time")
	}
}
