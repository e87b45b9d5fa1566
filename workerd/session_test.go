package workerd

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

const (
	stale         = sessionpb.ResultCode_RESULT_CODE_STALE
	notRegistered = sessionpb.ResultCode_RESULT_CODE_NOT_REGISTERED
	tooLate       = sessionpb.ResultCode_RESULT_CODE_TOO_LATE
)

func TestSessionOpensWithAReport(t *testing.T) {
	inBubble(t, func(o *Options, _ *fakeEngine) { o.ClockOffset = -7 * time.Minute }, func(t *testing.T, r *rig) {
		time.Sleep(time.Second)
		l := r.dial(4, "s")
		l.openControl() // before Data
		m := l.report(0)
		if m.Opened.GetStale() || m.Opened.GetNewest().GetTerm() != 4 {
			t.Errorf("opened: %v", m.Opened)
		}
		if m.Report.Registered || m.Report.WorkerNs != int64(time.Second-7*time.Minute) {
			t.Errorf("report: %v", m.Report)
		}
		w := m.Report.Worker
		if w.Name != "w1" || w.Incarnation != "w1-first" || w.Speed != 1 || w.SessionAddress != "w:8020" || w.HostMemoryBytes != 1000 ||
			len(w.Labels) != 2 || w.Labels[0].Key != "class" || w.Engines[0].Version != "7" ||
			w.Devices[0].Pages != 5 || w.Devices[0].Engines[0] != "fake" {
			t.Errorf("worker: %v", w)
		}
		if m.Report.Devices[0].FreePages != 5 || m.Report.Devices[0].Resident != nil {
			t.Errorf("device: %v", m.Report.Devices)
		}
		l.until("pong", func() bool { return l.pong.GetSequence() == 2 })
		synctest.Wait()
		if l.pong.LeaderNs != 20 || l.pong.WorkerNs != int64(time.Second+400*time.Millisecond-7*time.Minute) {
			t.Errorf("pong: %v", l.pong)
		}
	})
}

func TestNothingIsExecutedBeforeTheRegistration(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.dial(4, "s")
		l.openControl()
		l.expect(notRegistered, loadModel(1, "fake:a"))
		l.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-before"})
		l.expect(notRegistered, loadModel(1, "fake:a"))
		l.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
		l.expect(ok, loadModel(1, "fake:a"))

		// It stays registered for the next leader.
		next := r.dial(5, "t")
		next.openControl()
		if !next.report(0).Report.Registered {
			t.Error("the next session says that the worker isn't registered")
		}
		next.expect(ok, loadWeights(1))
	})
}

func TestAnOldLeaderCanNotRegisterTheWorker(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		old, next := r.dial(4, "s"), r.dial(5, "t")
		old.openControl()
		old.report(0)
		next.openControl()
		next.report(0)
		old.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
		synctest.Wait()
		next.expect(notRegistered, loadModel(1, "fake:a"))
	})
}

func TestReportTellsWhatIsHeld(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.do(loadModel(2, "fake:b"))
		l.do(loadWeights(2)) // too soon
		time.Sleep(time.Second / 2)
		report := l.freshReport()
		if len(report.Models) != 2 || report.HostUsedBytes != 400 || !report.Registered {
			t.Fatalf("report: %v", report)
		}
		held, pending := report.Models[0], report.Models[1]
		if held.Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED || held.Info.Digest != "digest of fake:a" || held.LoadNs != int64(time.Second) {
			t.Errorf("held: %v", held)
		}
		if pending.ModelId != 2 || pending.Status != logpb.HoldingStatus_HOLDING_STATUS_PENDING {
			t.Errorf("pending: %v", pending)
		}
		d := report.Devices[0]
		if d.FreePages != 2 || len(d.Resident) != 1 || d.Resident[0].Pages != 3 || d.Resident[0].Loading {
			t.Errorf("device: %v", d)
		}
	})
}

func TestAStaleLeaderIsRefused(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.lead(4, "s").report(0)
		old := r.dial(3, "t")
		old.openControl()
		m := old.report(0)
		if !m.Opened.GetStale() || m.Opened.GetNewest().GetTerm() != 4 || m.Report != nil {
			t.Errorf("opened: %v", m)
		}
		old.until("end of stream", func() bool { return old.err != nil })

		old = r.dial(3, "u")
		old.openData()
		old.until("refusal of Data", func() bool { return status.Code(old.dataErr) == codes.FailedPrecondition })
		foreign := r.dial(99, "v")
		foreign.open.Leader.ClusterId = "another"
		foreign.openControl()
		if m := foreign.report(0); !m.Opened.GetStale() {
			t.Errorf("the leader of another cluster: %v", m)
		}
	})
}

func TestALeaderThatMeansAnotherWorkerIsRefused(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.report(0)
		stray := r.dial(5, "t")
		control, err := stray.service.Control(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stray.open.Worker = "w2"
		control.Send(&sessionpb.LeaderMessage{Open: stray.open})
		if _, err := control.Recv(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("got %v", err)
		}
		if newest := r.worker.fence.newest.GetTerm(); newest != 4 {
			t.Errorf("the stray leader became the newest, term %d", newest)
		}
	})
}

func TestATakeoverDropsWhatWaitsAndFinishesWhatRuns(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		old := r.lead(4, "s")
		old.hold(1, "fake:a")
		r.engine.sources["fake:a"].loadTime = 0
		old.payload("running", 1, 2)
		old.payload("waiting", 3, 4)
		running := old.do(infer(1, "running"))
		time.Sleep(time.Millisecond)
		waiting := old.do(infer(1, "waiting"))
		synctest.Wait()

		next := r.lead(5, "t")
		if d := next.report(0).Report.Devices[0]; d.Queued != 1 || d.FreePages != 2 {
			t.Errorf("device at the takeover: %v", d)
		}
		next.payload("new", 5, 6)
		next.expect(ok, infer(1, "new"))
		if y := values(next.output("new").RawOutputContents[0]); y[0] != 10 {
			t.Errorf("output %v", y)
		}
		if runs := r.engine.ran(); len(runs) != 2 || runs[1].batch.Inputs[0].Data[2] != floats(5)[2] {
			t.Errorf("%d batches ran, want the running and the new one", len(runs))
		}
		if !old.silent(running) || !old.silent(waiting) || len(old.outputs) != 0 {
			t.Error("the old leader got results")
		}

		// The old leader, thawed, goes on.
		for n := range 100 {
			old.expect(stale, infer(1, fmt.Sprint(n)))
		}
		old.send(&sessionpb.LeaderMessage{Report: true})
		old.payload("late", 1, 2)
		synctest.Wait()
		if n := len(r.worker.sessions["s"].intake.items); n != 0 {
			t.Errorf("%d payloads of the old leader are kept", n)
		}
		if got := r.worker.Stats().Results[stale]; got != 100 {
			t.Errorf("%d stale actions counted, want 100", got)
		}
		if len(r.engine.ran()) != 2 || len(old.seen) != 1 {
			t.Error("the worker obeyed an old leader")
		}
	})
}

func TestAReconnectedLeaderReplacesItsSession(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		first := r.lead(4, "s")
		first.hold(1, "fake:a")
		second := r.lead(4, "t")
		second.report(0)
		first.expect(stale, loadWeights(1))
		second.expect(ok, loadWeights(1))

		// The id of a session that is open can't be used by another stream.
		for _, id := range []string{"s", "t"} {
			third := r.dial(4, id)
			third.openControl()
			third.until("refusal", func() bool { return status.Code(third.err) == codes.AlreadyExists })
		}
		second.expect(ok, loadWeights(1))
	})
}

func TestDataMayComeBeforeControl(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		first := r.lead(4, "s")
		first.hold(1, "fake:a")
		l := r.dial(5, "t")
		l.openData()
		l.payload("r", 1, 2)
		synctest.Wait()
		first.expect(ok, loadWeights(1)) // Data alone takes nothing over
		l.openControl()
		l.expect(ok, infer(1, "r"))
		l.output("r")
	})
}

func TestInferWaitsForData(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.dial(4, "s")
		l.openControl()
		l.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
		l.hold(1, "fake:a")
		id := l.do(infer(1, "r"))
		time.Sleep(time.Second)
		l.openData()
		l.payload("r", 1, 2)
		if res := l.wants(ok, id); res.StartedNs-res.ReceivedNs != int64(time.Second) {
			t.Errorf("started %v after it came, want 1s", time.Duration(res.StartedNs-res.ReceivedNs))
		}
	})
}

func TestASilentLeaderLosesItsSession(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.report(0)
		time.Sleep(time.Minute)
		synctest.Wait()
		if l.err != nil || r.worker.Stats().Sessions != 1 {
			t.Fatalf("a leader that pings lost its session: %v", l.err)
		}
		l.hush()
		start := time.Now()
		l.until("end of Control", func() bool { return status.Code(l.err) == codes.DeadlineExceeded })
		if took := time.Since(start); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("ended after %v, want 5s after the last ping", took)
		}
		synctest.Wait()
		if n := r.worker.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func TestAStreamThatOpensNothingIsEnded(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.dial(4, "s")
		control, err := l.service.Control(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := control.Recv(); status.Code(err) != codes.DeadlineExceeded || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		l.openData() // and Control never comes
		start = time.Now()
		l.until("end of Data", func() bool { return status.Code(l.dataErr) == codes.DeadlineExceeded })
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("Data ended after %v, want 5s", took)
		}
		control, _ = l.service.Control(t.Context())
		control.Send(&sessionpb.LeaderMessage{Ping: &sessionpb.Ping{}})
		if _, err := control.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("without Open: %v", err)
		}
		synctest.Wait()
		if n := r.worker.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func TestWhenOneStreamBreaksTheSessionEnds(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.do(infer(1, "waiting"))
		synctest.Wait()
		if n := r.worker.Stats().Devices[0].Queued; n != 1 {
			t.Fatalf("%d actions are queued, want 1", n)
		}
		l.data.CloseSend()
		l.until("end of Control", func() bool { return l.err != nil })
		synctest.Wait()
		if s := r.worker.Stats(); s.Devices[0].Queued != 0 || s.Sessions != 0 {
			t.Errorf("%+v", s)
		}
		r.lead(4, "t").expect(ok, loadWeights(1))
	})
}

// A leader that doesn't read its outputs holds up neither the executors nor the next leader nor the end.
func TestALeaderThatReadsNothingBlocksNobody(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) { e.sources["fake:a"].open = true }, func(t *testing.T, r *rig) {
		l := r.dial(4, "s")
		l.openControl()
		l.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
		l.hold(1, "fake:a")
		var err error
		if l.data, err = l.service.Data(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.data.Send(&sessionpb.LeaderData{Open: l.open})
		wide := make([]float32, 1<<18) // 1 MiB
		for n := range 3 {             // less than what a superseded session may have unread
			name := fmt.Sprint(n)
			l.request(name, wideRequest(wide))
			l.expect(ok, infer(1, name))
		}
		next := r.lead(5, "t")
		next.expect(ok, loadWeights(1))
		if took := r.shutDown(); took != time.Second {
			t.Errorf("the end took %v: want one second of waiting for the blocked stream", took)
		}
	})
}
