package workerd

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

// orphan is a controller without a leader, with a link to the worker.
type orphan struct {
	t    *testing.T
	link *link.Link
	next int
}

func (r *rig) orphan(host string) *orphan {
	r.t.Helper()
	control, err := rpc.Connect("w:8020", r.net.Host(host).Dial, 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	data, err := rpc.Connect("w:8020", r.net.Host(host).Dial, 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := link.Open(r.t.Context(), control, data, link.Options{Name: host})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close(); control.Close(); data.Close() })
	return &orphan{t: r.t, link: l}
}

// question is a request for model 1 as an orphan sends it.
func question(id string, pairs ...float32) *exchangepb.Envelope {
	payload, _ := proto.Marshal(&inferencepb.ModelInferRequest{
		Id: "id " + id,
		Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "FP32", Shape: []int64{int64(len(pairs) / 2), 2}},
		},
		RawInputContents: [][]byte{floats(pairs...)},
	})
	return &exchangepb.Envelope{
		RequestId: id, Attempt: 1, Payload: payload,
		Header: &exchangepb.Header{
			ModelId: 1, Digest: "digest of fake:a", Rows: uint32(len(pairs) / 2),
			Leaderless: &exchangepb.Leaderless{ClusterId: "cluster", Epoch: 1, Incarnation: "w1-first"},
		},
	}
}

// send asks with a second of time.
func (o *orphan) send(e *exchangepb.Envelope) (*exchangepb.Envelope, error) {
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Second)
	defer cancel()
	answer, err := o.link.Call(ctx, e)
	if err == nil {
		err = grpcerr.FromAnswer(answer.Answer)
	}
	return answer, err
}

// right asks for one row and checks that the answer is its own.
func (o *orphan) right(n float32) error {
	o.next++
	id := fmt.Sprintf("%p-%d", o, o.next)
	answer, err := o.send(question(id, n, n+1))
	if err != nil {
		return err
	}
	response := new(inferencepb.ModelInferResponse)
	if err := proto.Unmarshal(answer.Payload, response); err != nil {
		return err
	}
	if got := values(response.RawOutputContents[0]); response.Id != "id "+id || !slices.Equal(got, []float32{2 * n, 2*n + 2}) {
		return fmt.Errorf("request %s, of %v: another's answer, %s with %v", id, n, response.Id, got)
	}
	if a := answer.Answer; !a.Degraded || a.Worker != "w1" || a.Execution != exchangepb.Execution_EXECUTION_EXECUTED || len(a.Stages) != 3 {
		return fmt.Errorf("answer: %v", a)
	}
	return nil
}

// refused wants a request to be refused, surely not executed.
func (o *orphan) refused(reason errs.Reason, e *exchangepb.Envelope) {
	o.t.Helper()
	_, err := o.send(e)
	if got := errs.From(err); got.Reason != reason || got.Execution != errs.NotExecuted {
		o.t.Errorf("request %s: %+v, not %s", e.RequestId, got, reason)
	}
}

// abandon ends a leader's session, which has given the worker a model with its weights.
func (r *rig) abandon() {
	r.t.Helper()
	l := r.lead(4, "s")
	l.hold(1, "fake:a")
	l.end()
}

// end ends a session.
func (l *leader) end() {
	l.t.Helper()
	l.hush()
	l.mu.Lock()
	_ = l.control.CloseSend()
	l.mu.Unlock()
	l.until("end of the session", func() bool { return l.err != nil })
	synctest.Wait()
}

// ran is how often the engine ran.
func (r *rig) ran() int { return len(r.engine.ran()) }

func TestAControllerWithoutALeaderIsServed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.abandon()
		one, other := r.orphan("c1"), r.orphan("c2")
		var wait sync.WaitGroup
		for i := range 20 {
			for _, o := range []*orphan{one, other} {
				o.next++
				copied := &orphan{t: t, link: o.link, next: 1000 * o.next}
				wait.Go(func() {
					if err := copied.right(float32(i)); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wait.Wait()
		// 40 rows, of which 8 fit into a batch.
		if n := r.ran(); n < 5 || n > 10 {
			t.Errorf("the engine ran %d times for 40 requests", n)
		}
		s := r.worker.Stats()
		if s.Direct[ok] != 40 || s.Results[ok] != 2 {
			t.Errorf("direct %v, a leader's %v", s.Direct, s.Results)
		}
	})
}

func TestWhoIsRefusedWithoutALeader(t *testing.T) {
	cases := map[string]struct {
		alter  func(*exchangepb.Envelope)
		reason errs.Reason
	}{
		"no word of having no leader":  {func(e *exchangepb.Envelope) { e.Header.Leaderless = nil }, errs.Invalid},
		"no header":                    {func(e *exchangepb.Envelope) { e.Header = nil }, errs.Invalid},
		"another start of the worker":  {func(e *exchangepb.Envelope) { e.Header.Leaderless.Incarnation = "w1-before" }, errs.Precondition},
		"another cluster":              {func(e *exchangepb.Envelope) { e.Header.Leaderless.ClusterId = "other" }, errs.Precondition},
		"an older epoch":               {func(e *exchangepb.Envelope) { e.Header.Leaderless.Epoch = 0 }, errs.Precondition},
		"a model that is not held":     {func(e *exchangepb.Envelope) { e.Header.ModelId = 7 }, errs.NotLoaded},
		"a model without weights here": {func(e *exchangepb.Envelope) { e.Header.ModelId, e.Header.Digest = 2, "digest of fake:b" }, errs.NotLoaded},
		"another digest":               {func(e *exchangepb.Envelope) { e.Header.Digest = "digest of fake:b" }, errs.NotLoaded},
		"too many rows":                {func(e *exchangepb.Envelope) { e.Header.Rows = 9 }, errs.Invalid},
		"no rows":                      {func(e *exchangepb.Envelope) { e.Header.Rows = 0 }, errs.Invalid},
		"other rows than it says":      {func(e *exchangepb.Envelope) { e.Header.Rows = 2 }, errs.Invalid},
		"no request":                   {func(e *exchangepb.Envelope) { e.Payload = []byte{0xff} }, errs.Invalid},
	}
	inBubble(t, func(o *Options, _ *fakeEngine) { o.Devices[0].Pages = 5 }, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.expect(ok, loadModel(2, "fake:b"))
		l.end()
		o := r.orphan("c1")
		for name, c := range cases {
			e := question(name, 1, 2)
			c.alter(e)
			o.refused(c.reason, e)
		}
		e := question("a newer epoch", 1, 2)
		e.Header.Leaderless.Epoch = 2
		if _, err := o.send(e); err != nil {
			t.Errorf("a newer epoch: %v", err)
		}
		if n := r.ran(); n != 1 {
			t.Errorf("the engine ran %d times", n)
		}
	})
}

func TestANewStartOfAWorkerServesNobodyWithoutALeader(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		o := r.orphan("c1")
		o.refused(errs.Precondition, question("before any leader", 1, 2))
		// A leader that can't commit the registration changes nothing.
		l := r.dial(4, "s")
		l.openControl()
		l.report(0)
		l.end()
		o.refused(errs.Precondition, question("after a leader", 1, 2))
		if n := r.ran(); n > 0 {
			t.Errorf("the engine ran %d times", n)
		}
	})
}

// answers gathers what becomes of requests that are under way.
type answers struct {
	wait sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (a *answers) ask(o *orphan, n int) {
	copied := &orphan{t: o.t, link: o.link, next: 10000 + n}
	a.wait.Go(func() {
		err := copied.right(float32(n))
		a.mu.Lock()
		defer a.mu.Unlock()
		a.errs = append(a.errs, err)
	})
	synctest.Wait()
}

func (a *answers) all() (good int, reasons map[errs.Reason]int) {
	a.wait.Wait()
	reasons = map[errs.Reason]int{}
	for _, err := range a.errs {
		if err == nil {
			good++
		} else {
			reasons[errs.From(err).Reason]++
		}
	}
	return good, reasons
}

// slow makes every run of fake:a take a while, and lets no two requests share one.
func slow(d time.Duration) func(*Options, *fakeEngine) {
	return func(_ *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(int, int) time.Duration { return d }
		e.sources["fake:a"].rows = []int{1}
	}
}

func TestALeaderDisplacesWhatWaitsWithoutOne(t *testing.T) {
	inBubble(t, slow(100*time.Millisecond), func(t *testing.T, r *rig) {
		r.abandon()
		o := r.orphan("c1")
		var a answers
		for i := range 5 {
			a.ask(o, i)
		}
		l := r.lead(5, "t")
		l.report(0)
		// The leader's own work is next, behind what runs.
		l.payload("mine", 1, 2)
		l.expect(ok, infer(1, "mine"))
		good, refused := a.all()
		if good != 1 || refused[errs.NotLeader] != 4 {
			t.Errorf("%d were answered, refused %v", good, refused)
		}
		if n := r.ran(); n != 2 {
			t.Errorf("the engine ran %d times", n)
		}
		o.refused(errs.NotLeader, question("later", 1, 2))
		l.end()
		if err := o.right(7); err != nil {
			t.Errorf("after the leader's end: %v", err)
		}
	})
}

// A leader whose host vanished doesn't hang up.
func TestASilentLeaderIsTakenForGoneBeforeItsSessionEnds(t *testing.T) {
	inBubble(t, slow(100*time.Millisecond), func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		time.Sleep(time.Second)
		l.hush()
		o := r.orphan("c1")
		time.Sleep(500 * time.Millisecond)
		o.refused(errs.NotLeader, question("soon", 1, 2))
		time.Sleep(time.Second)
		var a answers
		for i := range 3 {
			a.ask(o, i)
		}
		// It was only stopped.
		l.send(&sessionpb.LeaderMessage{Ping: &sessionpb.Ping{Sequence: 100}})
		good, refused := a.all()
		if good != 1 || refused[errs.NotLeader] != 2 {
			t.Errorf("%d were answered, refused %v", good, refused)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err != nil {
			t.Errorf("its session has ended: %v", l.err)
		}
	})
}

// With heartbeats as rare as this, seconds of silence say nothing.
func TestALeaderThatSpeaksRarelyIsNotTakenForGone(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.hush()
		for range 3 {
			time.Sleep(1500 * time.Millisecond)
			l.send(&sessionpb.LeaderMessage{Ping: &sessionpb.Ping{Sequence: 100}})
		}
		time.Sleep(1400 * time.Millisecond)
		r.orphan("c1").refused(errs.NotLeader, question("q", 1, 2))
	})
}

func TestAnOrphanAsksWhatWouldBeServed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		o := r.orphan("c1")
		ask := func(id string) (*sessionpb.Report, error) {
			e := question(id)
			e.Header.ModelId, e.Payload = 0, nil
			answer, err := o.send(e)
			if err != nil {
				return nil, err
			}
			report := new(sessionpb.Report)
			return report, proto.Unmarshal(answer.Payload, report)
		}
		if _, err := ask("first"); errs.From(err).Reason != errs.Precondition {
			t.Errorf("unregistered: %v", err)
		}
		r.abandon()
		report, err := ask("second")
		if err != nil || len(report.Devices) != 1 || len(report.Devices[0].Resident) != 1 || report.Devices[0].Resident[0].ModelId != 1 {
			t.Errorf("%v %v", report, err)
		}
		if s := r.worker.Stats(); len(s.Direct) > 0 {
			t.Errorf("questions count as requests: %v", s.Direct)
		}
	})
}

func TestWaitingWithoutALeaderIsBounded(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		slow(100*time.Millisecond)(o, e)
		o.MaxQueued = 3
	}, func(t *testing.T, r *rig) {
		r.abandon()
		o := r.orphan("c1")
		var a answers
		for i := range 5 {
			a.ask(o, i)
		}
		good, refused := a.all()
		if good != 3 || refused[errs.Overloaded] != 2 {
			t.Errorf("%d were answered, refused %v", good, refused)
		}
		for _, err := range a.errs {
			if err != nil && errs.From(err).RetryAfter <= 0 {
				t.Errorf("%v does not say when to try again", err)
			}
		}
		if err := o.right(1); err != nil {
			t.Errorf("once there was room again: %v", err)
		}
	})
}

// What can't be answered in time is not started, so that overload costs no time on the device.
func TestOverloadWithoutALeaderWastesNothing(t *testing.T) {
	inBubble(t, slow(70*time.Millisecond), func(t *testing.T, r *rig) {
		r.abandon()
		o := r.orphan("c1")
		if err := o.right(1); err != nil { // now it knows how long that takes
			t.Fatal(err)
		}
		before := r.ran()
		var a answers
		for i := range 30 {
			a.ask(o, i)
		}
		good, _ := a.all()
		if ran := r.ran() - before; good != 14 || ran != good {
			t.Errorf("%d of 30 were answered within their second, the engine ran %d times", good, ran)
		}
	})
}

func TestOneSlowRunIsForgotten(t *testing.T) {
	inBubble(t, func(_ *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(run, _ int) time.Duration {
			if run == 0 {
				return 30 * time.Second
			}
			return 10 * time.Millisecond
		}
	}, func(t *testing.T, r *rig) {
		r.abandon()
		o := r.orphan("c1")
		_ = o.right(1)
		time.Sleep(time.Minute)
		for range 40 {
			if o.right(2) == nil {
				return
			}
		}
		t.Error("nothing is answered any more")
	})
}

func TestACancelledRequestIsNotRunWithoutALeader(t *testing.T) {
	inBubble(t, slow(100*time.Millisecond), func(t *testing.T, r *rig) {
		r.abandon()
		o := r.orphan("c1")
		var a answers
		a.ask(o, 1)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		e := question("cancelled", 1, 2)
		e.TimeLeftNs = int64(time.Second)
		if _, err := o.link.Call(ctx, e); err == nil {
			t.Error("it was answered")
		}
		if good, _ := a.all(); good != 1 {
			t.Error("the one that ran was not answered")
		}
		time.Sleep(time.Second)
		if s := r.worker.Stats(); r.ran() != 1 || s.Direct[sessionpb.ResultCode_RESULT_CODE_CANCELLED] != 1 {
			t.Errorf("the engine ran %d times; %v", r.ran(), s.Direct)
		}
		if r.worker.direct.requests != 0 || r.worker.direct.bytes != 0 {
			t.Errorf("still counted: %+v", r.worker.direct)
		}
	})
}

// The requests that shared a batch with a bad one are run again, each by itself.
func TestABadRequestSpoilsNoOthersWithoutALeader(t *testing.T) {
	inBubble(t, func(_ *Options, e *fakeEngine) {
		e.sources["fake:a"].run = func(b engine.Batch) error {
			if slices.Contains(values(b.Inputs[0].Data), 3) {
				return errBroken
			}
			return nil
		}
	}, func(t *testing.T, r *rig) {
		r.abandon()
		o := r.orphan("c1")
		var a answers
		for _, n := range []int{9, 0, 3, 5} { // the first runs alone, the others wait for it
			a.ask(o, n)
		}
		good, failed := a.all()
		if good != 3 || failed[errs.ExecutionFailed] != 1 {
			t.Errorf("%d were answered, failed %v", good, failed)
		}
	})
}

func TestShutdownRefusesWhatWaitsWithoutALeader(t *testing.T) {
	inBubble(t, slow(100*time.Millisecond), func(t *testing.T, r *rig) {
		r.abandon()
		o := r.orphan("c1")
		var a answers
		for i := range 3 {
			a.ask(o, i)
		}
		took := r.shutDown()
		a.wait.Wait()
		if took > 200*time.Millisecond {
			t.Errorf("the end took %v", took)
		}
		if n := r.ran(); n != 1 {
			t.Errorf("the engine ran %d times", n)
		}
		if r.worker.direct.requests != 0 {
			t.Errorf("%d requests are unanswered", r.worker.direct.requests)
		}
	})
}
