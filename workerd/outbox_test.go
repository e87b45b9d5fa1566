package workerd

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

func TestOutboxGathersAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox[*exchangepb.Envelope](1000)
		done := make(chan struct{})
		taken := make(chan int)
		go func() {
			for {
				n := len(o.take(done))
				taken <- n
				if n == 0 {
					return
				}
			}
		}()
		o.put(&exchangepb.Envelope{RequestId: "1"})
		if n := <-taken; n != 1 {
			t.Errorf("took %d, want 1", n)
		}
		o.mu.Lock() // so that all three are there
		o.messages = append(o.messages, &exchangepb.Envelope{}, &exchangepb.Envelope{}, &exchangepb.Envelope{})
		o.mu.Unlock()
		o.finish()
		if n := <-taken; n != 3 {
			t.Errorf("took %d, want all 3", n)
		}
		if n := <-taken; n != 0 {
			t.Errorf("took %d after the end", n)
		}
		if err := o.put(&exchangepb.Envelope{}); err != nil || len(o.messages) != 0 {
			t.Errorf("put after the end: %v, %d messages", err, len(o.messages))
		}
	})
}

func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox[*exchangepb.Envelope](100)
	large := &exchangepb.Envelope{Payload: make([]byte, 200)}
	if err := o.put(large); err != nil {
		t.Errorf("the first message is taken whatever its size: %v", err)
	}
	if err := o.put(large); !errors.Is(err, errOutboxFull) {
		t.Errorf("put = %v, want %v", err, errOutboxFull)
	}
	o.take(nil)
	if err := o.put(large); err != nil {
		t.Errorf("after take: %v", err)
	}
}

func TestMergeControlKeepsOrder(t *testing.T) {
	result := func(id uint64) *sessionpb.WorkerMessage {
		return &sessionpb.WorkerMessage{Results: []*sessionpb.Result{{ActionId: id}}}
	}
	pong := func(n uint64) *sessionpb.WorkerMessage {
		return &sessionpb.WorkerMessage{Pong: &sessionpb.Pong{Sequence: n}}
	}
	report := func() *sessionpb.WorkerMessage { return &sessionpb.WorkerMessage{Report: &sessionpb.Report{}} }
	merged := mergeControl([]*sessionpb.WorkerMessage{report(), result(1), pong(1), result(2), report(), pong(2), pong(3), result(3)})
	var got [][3]int // report, pong, results
	for _, m := range merged {
		row := [3]int{0, int(m.GetPong().GetSequence()), len(m.Results)}
		if m.Report != nil {
			row[0] = 1
		}
		got = append(got, row)
	}
	want := [][3]int{{1, 0, 0}, {0, 1, 2}, {1, 0, 0}, {0, 2, 0}, {0, 3, 1}}
	if len(got) != len(want) {
		t.Fatalf("messages %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("message %d has %v, want %v", i, got[i], want[i])
		}
	}
}

func TestFramesAreBounded(t *testing.T) {
	var envelopes []*exchangepb.Envelope
	for _, n := range []int{300, 300, 900, 5000, 10} {
		envelopes = append(envelopes, &exchangepb.Envelope{Payload: make([]byte, n)})
	}
	var counts []int
	for _, f := range frames(envelopes, 1000) {
		counts = append(counts, len(f.Envelopes))
	}
	if len(counts) != 4 || counts[0] != 2 || counts[1] != 1 || counts[2] != 1 || counts[3] != 1 {
		t.Errorf("envelopes in frames: %v, want [2 1 1 1]", counts)
	}
}

func TestASessionEndsWhenItsOutboxIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(&sessionpb.Open{SessionId: "s"}, time.Hour)
		s.data = newOutbox[*exchangepb.Envelope](100)
		large := &exchangepb.Envelope{Payload: make([]byte, 80)}
		s.sendData([]*exchangepb.Envelope{large})
		if err := s.cause(); !errors.Is(err, errGoodbye) {
			t.Errorf("ended with room left: %v", err)
		}
		s.sendData([]*exchangepb.Envelope{large})
		if err := s.cause(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("ended with %v", err)
		}
	})
}
