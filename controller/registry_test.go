package controller

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// A worker that was removed while it is connected is not written about any more: it
// would cost log entries as fast as they can be committed.
func TestARemovedWorkerThatStaysConnectedCostsNoLogEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, log := soloCoordinator(t, newFakeWorker().serve(t), serving...)
		ctx, cancel := context.WithCancel(t.Context())
		var ended atomic.Bool
		go func() { k.run(ctx); ended.Store(true) }()
		time.Sleep(5 * time.Second)
		incarnation := ""
		log.replica.Read(func(s *fsm.State) { incarnation = s.Worker("w").GetIncarnation() })
		if incarnation != "2" {
			t.Fatalf("incarnation %q is registered", incarnation)
		}
		k.mailbox.post(func() { k.connections["w"].left = incarnation }) // as a drained one that does not go
		if _, err := k.term.c.propose(ctx, command(&logpb.Command{Body: &logpb.Command_RemoveWorker{RemoveWorker: &logpb.RemoveWorker{Name: "w"}}})); err != nil {
			t.Fatal(err)
		}
		before := log.replica.Index()
		time.Sleep(10 * time.Second)
		if n := log.replica.Index() - before; n > 0 {
			t.Errorf("%d log entries in 10s", n)
		}
		log.replica.Read(func(s *fsm.State) {
			if s.Worker("w") != nil {
				t.Error("it is registered again")
			}
		})
		cancel()
		synctest.Wait()
		if !ended.Load() {
			t.Error("the coordinator goes on")
		}
	})
}

// A session that the worker does not obey any more is given up, and another one is
// opened.
func TestASessionThatIsStaleOrDoesNotReportIsReplaced(t *testing.T) {
	for name, spoil := range map[string]func(*fakeWorker){
		"stale": func(w *fakeWorker) {
			w.report.Models = nil
			w.carryOut = func(*sessionpb.Action) *sessionpb.Result {
				return &sessionpb.Result{Code: sessionpb.ResultCode_RESULT_CODE_STALE, Message: "somebody has a newer session"}
			}
		},
		"silent about itself": func(*fakeWorker) {}, // the fake one never answers a request for a report
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeWorker()
				spoil(w)
				k, _ := soloCoordinator(t, w.serve(t), serving...)
				tunables := *k.term.c.tunables.Load()
				tunables.CompareInterval = time.Second
				k.term.c.Tune(tunables)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				k.run(ctx)
				if n := w.sessions.Load(); n < 2 || n > 60 {
					t.Errorf("%d sessions in 10s", n)
				}
			})
		})
	}
}

// What a worker was given to load is not waited for when it can't, and copies
// enough are there.
func TestALoadSettlesWhenAChosenWorkerIsLost(t *testing.T) {
	p := newPool(t)
	for _, name := range []string{"a", "b", "c"} {
		p.worker(name, 1000, 1, 1)
	}
	p.apply(&logpb.Command{Body: &logpb.Command_LoadModel{LoadModel: &logpb.LoadModel{Name: "m", Source: "s", Copies: 2}}})
	p.apply(&logpb.Command{Body: &logpb.Command_UpdateHoldings{UpdateHoldings: &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{
		{Holding: &logpb.Holding{ModelId: 1, Worker: "a", Incarnation: "1"}},
	}}}})
	p.hold(1, "b", 1)
	check := func(want bool) {
		t.Helper()
		p.replica.Read(func(s *fsm.State) {
			if got := settled(s, s.Model(1)); got != want {
				t.Errorf("settled %v, want %v", got, want)
			}
		})
	}
	check(false)
	p.apply(&logpb.Command{Body: &logpb.Command_SetWorkerStatus{SetWorkerStatus: &logpb.SetWorkerStatus{Name: "a", Status: logpb.WorkerStatus_WORKER_STATUS_LOST}}})
	check(false) // c shall have one
	p.hold(1, "c", 1)
	check(true)
	k := &coordinator{connections: map[string]*connection{}, blamed: map[uint64]bool{}}
	p.replica.Read(func(s *fsm.State) {
		k.makePlan(s)
		updates := k.choose(s)
		if len(updates) != 1 || !updates[0].Remove || updates[0].Holding.Worker != "a" {
			t.Errorf("updates %v, want the lost worker's holding forgotten", updates)
		}
	})
}

func TestAnOrderlyEndIsNoDeath(t *testing.T) {
	s := &session{}
	s.ctx, s.cancel = context.WithCancelCause(t.Context())
	s.options.leaving = func(*session) {}
	s.leaves()
	s.cancel(errNoReport)
	if s.died() {
		t.Error("it died")
	}
	if !strings.Contains(s.why().Error(), "does not report") {
		t.Errorf("why: %v", s.why())
	}
}
