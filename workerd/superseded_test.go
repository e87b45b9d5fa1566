package workerd

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

func TestALeaderThatThawsIsToldThatItIsStale(t *testing.T) {
	log := &witness{}
	inBubble(t, func(o *Options, _ *fakeEngine) { o.Logger = log.logger(hclog.Debug) }, func(t *testing.T, r *rig) {
		old := r.lead(4, "s")
		old.hold(1, "fake:a")
		old.payload("kept by nobody", 1, 2)
		old.hush()
		time.Sleep(time.Second)
		next := r.lead(5, "t")
		next.expect(ok, loadWeights(1))
		time.Sleep(100 * time.Second) // frozen
		for n := range 5 {
			if res := old.expect(stale, infer(1, fmt.Sprint(n))); res.StartedNs != 0 {
				t.Errorf("a refused action was started: %v", res)
			}
		}
		old.payload("late", 1, 2)
		synctest.Wait()
		if got := r.worker.Stats(); got.Results[stale] != 5 || got.Sessions != 2 {
			t.Errorf("%+v", got)
		}
		if n := len(r.worker.sessions["s"].intake.items); n != 0 {
			t.Errorf("%d payloads are kept", n)
		}
		if n := len(log.lines("[DEBUG]", "action refused", "code=stale", "kind=infer", "model=1", "leader=leader4", "epoch=1", "term=4")); n != 5 {
			t.Errorf("%d refusals in the log, want 5", n)
		}
		if n := len(log.lines("[DEBUG]", "action executed", "leader=leader5", "epoch=1", "term=5", "kind=load_weights")); n != 1 {
			t.Errorf("%d executions for the new leader in the log, want 1", n)
		}
		if n := len(log.lines("action executed", "leader=leader4")); n != 2 {
			t.Errorf("%d executions for the old leader in the log, want the model and its weights", n)
		}
	})
}

func TestASupersededSessionEndsAfterTwoMinutesOfSilence(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		old, next := r.lead(4, "s"), r.lead(5, "t")
		old.report(0)
		next.report(0)
		synctest.Wait()
		old.hush()
		for range 11 { // it speaks every ten seconds, twice as seldom as a leader may
			time.Sleep(10 * time.Second)
			old.expect(stale, loadWeights(1))
		}
		time.Sleep(SupersededSilence - time.Second)
		synctest.Wait()
		if old.err != nil {
			t.Fatalf("ended too soon: %v", old.err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if status.Code(old.err) != codes.DeadlineExceeded || r.worker.Stats().Sessions != 1 {
			t.Errorf("%v, %d sessions", old.err, r.worker.Stats().Sessions)
		}
		// The newest leader has as long as ever.
		next.hush()
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if status.Code(next.err) != codes.DeadlineExceeded {
			t.Errorf("the newest leader, silent for 6s: %v", next.err)
		}
	})
}

func TestFewSupersededSessionsAreKept(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		var all []*leader
		for n := range uint64(supersededSessions + 3) {
			l := r.lead(n+1, fmt.Sprint(n))
			l.report(0)
			synctest.Wait()
			all = append(all, l)
		}
		synctest.Wait()
		for i, l := range all {
			if gone := l.err != nil; gone != (i < 2) {
				t.Errorf("session %d of %d: %v", i, len(all), l.err)
			}
		}
		// One that ends by itself makes room.
		all[5].data.CloseSend()
		synctest.Wait()
		last := r.lead(99, "last")
		last.report(0)
		synctest.Wait()
		if all[2].err != nil || r.worker.Stats().Sessions != supersededSessions+1 {
			t.Errorf("%v, %d sessions", all[2].err, r.worker.Stats().Sessions)
		}
	})
}

// A frozen leader's outputs are not kept for it when they are large.
func TestASupersededSessionHoldsNothingOfSize(t *testing.T) {
	inBubble(t, func(_ *Options, e *fakeEngine) { e.sources["fake:a"].open = true }, func(t *testing.T, r *rig) {
		for _, outputs := range []int{3, 20} { // of 1 MiB
			l := r.dial(uint64(outputs), fmt.Sprint(outputs))
			l.openControl()
			l.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
			l.hold(1, "fake:a")
			var err error
			if l.data, err = l.service.Data(t.Context()); err != nil { // and is never read
				t.Fatal(err)
			}
			l.data.Send(&sessionpb.LeaderData{Open: l.open})
			wide := make([]float32, 1<<18)
			for n := range outputs {
				name := fmt.Sprint(n)
				l.request(name, wideRequest(wide))
				l.expect(ok, infer(1, name))
			}
			r.lead(uint64(outputs)+1, fmt.Sprint(outputs+1)).report(0)
			synctest.Wait()
			if gone := status.Code(l.err) == codes.Aborted; gone != (outputs == 20) {
				t.Errorf("with %d MiB of outputs unread: %v", outputs, l.err)
			}
		}
	})
}

func TestTheWitnessCostsNothingWhenNobodyListens(t *testing.T) {
	log := &witness{}
	inBubble(t, func(o *Options, _ *fakeEngine) { o.Logger = log.logger(hclog.Info) }, func(t *testing.T, r *rig) {
		old := r.lead(4, "s")
		old.hold(1, "fake:a")
		r.lead(5, "t").expect(ok, loadWeights(1))
		old.expect(stale, loadWeights(1))
		if n := len(log.lines("action ")); n != 0 {
			t.Errorf("%d lines at level info", n)
		}
		j := &job{from: r.worker.current, action: loadWeights(1)}
		if n := testing.AllocsPerRun(100, func() { r.worker.began(j); r.worker.refusedStale(j) }); n != 0 {
			t.Errorf("%v allocations for an action", n)
		}
	})
}
