package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// serveOn runs a dispatcher with the real scheduler and one worker, on whose
// device model "m" is.
func serveOn(t *testing.T, w *fakeWorker) (*rig, *session) {
	t.Helper()
	r := newPolicyRig(t, replicaWith(t, serving...), edfPolicy())
	t.Cleanup(r.end)
	s, err := openTo(t, w, func() int64 { return int64(r.now()) }, r.output)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	r.mailbox.post(func() {
		r.event(scheduler.ModelAdded{Model: &scheduler.Model{ID: 1, MaxRows: 1, WeightsBytes: 1}})
		r.event(scheduler.ProfileChanged{Profile: &scheduler.Profile{
			Model: 1, DeviceKind: "cpu", WeightsLoad: time.Millisecond, Execution: []scheduler.RowsTime{{Rows: 1, Time: time.Millisecond}},
		}})
		r.workerUp(s, &scheduler.Worker{Name: "w", Speed: 1, Holds: []scheduler.ModelID{1}, Devices: []scheduler.Device{
			{Kind: "cpu", Pages: 10, PageBytes: 1 << 20, Resident: []scheduler.Resident{{Model: 1, Pages: 1}}},
		}})
		r.start()
	})
	return r, s
}

// expectAnswered wants a success, before any time passes.
func expectAnswered(t *testing.T, answer <-chan *exchangepb.Envelope) {
	t.Helper()
	synctest.Wait()
	select {
	case e := <-answer:
		if err := grpcerr.FromAnswer(e.Answer); err != nil {
			t.Error(err)
		}
	default:
		t.Error("no answer yet")
	}
}

// once is a worker whose first action ends with code, and all others well.
func once(code sessionpb.ResultCode) *fakeWorker {
	w := newFakeWorker()
	first := true
	w.carryOut = func(*sessionpb.Action) *sessionpb.Result {
		r := &sessionpb.Result{}
		if first {
			r.Code, r.Message = code, "the worker's words"
		}
		first = false
		return r
	}
	return w
}

func TestAnInvalidRequestAloneInItsBatchIsTheClientsFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := serveOn(t, once(sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT))
		answer := r.ask(t.Context(), "bad", "d")
		synctest.Wait()
		err := grpcerr.FromAnswer((<-answer).Answer)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "the worker's words") {
			t.Errorf("an invalid request ended with %v", err)
		}
		expectAnswered(t, r.ask(t.Context(), "next", "d")) // the device is not to blame
	})
}

func TestARequestWhoseTensorsWereLateIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := serveOn(t, once(sessionpb.ResultCode_RESULT_CODE_PAYLOAD_MISSING))
		expectAnswered(t, r.ask(t.Context(), "late", "d"))
	})
}

func TestACancelledRequestDoesNotHoldTheNextOneUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, waits := newFakeWorker(), true
		w.carryOut = func(*sessionpb.Action) *sessionpb.Result {
			if waits {
				return nil
			}
			return &sessionpb.Result{}
		}
		r, _ := serveOn(t, w)
		ctx, leave := context.WithCancel(t.Context())
		cancelled := r.ask(ctx, "cancelled", "d")
		synctest.Wait()
		waits = false
		leave()
		expectReason(t, cancelled, errs.Cancelled)
		expectAnswered(t, r.ask(t.Context(), "next", "d"))
	})
}

// The result came, the outputs did not, and now nobody can run it again.
func TestARequestThatRanIsNotCalledNotExecuted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWorker()
		w.outputs = nil
		r, s := serveOn(t, w)
		answer := r.ask(t.Context(), "a", "d")
		synctest.Wait()
		r.mailbox.post(func() { r.workerDown(s, "w", false) })
		if e := errs.From(grpcerr.FromAnswer((<-answer).Answer)); e.Execution != errs.MaybeExecuted {
			t.Errorf("execution %v: %v", e.Execution, e)
		}
	})
}

func TestAnAnswerTellsWhatWasPredicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWorker()
		w.carryOut = func(*sessionpb.Action) *sessionpb.Result { return &sessionpb.Result{EngineNs: 700_000} }
		r, _ := serveOn(t, w)
		answer := r.ask(t.Context(), "a", "d")
		synctest.Wait()
		got := trailer((<-answer).Answer).Get(timingTrailer)
		if want := "queue=0s worker=0s engine=700µs predicted=1ms rows=1"; len(got) != 1 || got[0] != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
