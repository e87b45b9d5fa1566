package controller

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// openTo opens a session to "w" at w:1.
func openTo(t *testing.T, w *fakeWorker, now func() int64, output func(*session, *exchangepb.Envelope)) (*session, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return openSession(ctx, sessionOptions{
		worker: "w", address: "w:1", dial: w.serve(t), leader: &sessionpb.Leader{}, id: "s",
		heartbeat: 100 * time.Millisecond, misses: 3, now: now, output: output,
	})
}

func TestAReportThatIsNotTheWorkersEndsTheSession(t *testing.T) {
	for name, report := range map[string]*sessionpb.Report{
		"of nobody":         {},
		"without a name":    {Worker: &logpb.Worker{Incarnation: "1"}},
		"of another worker": {Worker: &logpb.Worker{Name: "v", Incarnation: "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeWorker()
				w.report = report
				began := time.Now()
				s, err := openTo(t, w, func() int64 { return int64(time.Since(began)) + 1 }, nil)
				if err == nil {
					s.close()
					t.Fatal("the session is open")
				}
				if !strings.Contains(err.Error(), "calls itself") || time.Since(began) > time.Second {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}
