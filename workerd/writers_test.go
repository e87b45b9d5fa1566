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

func TestASessionEndsWhenItsOutboxIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(&sessionpb.Open{SessionId: "s"}, time.Hour)
		s.dataLimit = 100
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
