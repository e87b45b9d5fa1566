package workerd

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

const (
	invalidInput   = sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT
	payloadMissing = sessionpb.ResultCode_RESULT_CODE_PAYLOAD_MISSING
	engineFailed   = sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED
	cancelled      = sessionpb.ResultCode_RESULT_CODE_CANCELLED
	shuttingDown   = sessionpb.ResultCode_RESULT_CODE_SHUTTING_DOWN
	notPresent     = sessionpb.ResultCode_RESULT_CODE_WEIGHTS_NOT_PRESENT
)

// wideRequest is one row of a model whose second dimension is variable.
func wideRequest(row []float32) *inferencepb.ModelInferRequest {
	return &inferencepb.ModelInferRequest{
		Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "FP32", Shape: []int64{1, int64(len(row))}},
		},
		RawInputContents: [][]byte{floats(row...)},
	}
}

func codesOf(r *sessionpb.Result) (c []sessionpb.ResultCode) {
	for _, i := range r.Items {
		c = append(c, i.Code)
	}
	return c
}

func TestABatchGivesEveryRequestItsOwnAnswer(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) { o.ClockOffset = 90 * time.Minute }, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.payload("one", 1, 2)
		a := infer(1, "one", "two", "three") // the others' payloads come later
		a.GetInfer().Items[1].Rows = 2
		id := l.do(a)
		time.Sleep(3 * time.Millisecond)
		l.payload("three", 7, 8)
		l.payload("two", 3, 4, 5, 6)
		sent := r.now()
		res := l.wants(ok, id)
		if res.EngineNs != int64(10*time.Millisecond) || res.StartedNs != int64(sent) || res.EndedNs != res.StartedNs+res.EngineNs ||
			res.ReceivedNs != int64(sent-3*time.Millisecond) || res.FreePages != 2 {
			t.Errorf("result %v", res)
		}
		if !slices.Equal(codesOf(res), []sessionpb.ResultCode{ok, ok, ok}) || res.Items[1].RequestId != "two" || res.Items[1].Attempt != 1 {
			t.Errorf("items %v", res.Items)
		}
		for request, want := range map[string][]float32{"one": {2, 4}, "two": {6, 8, 10, 12}, "three": {14, 16}} {
			out := l.output(request)
			if y := values(out.RawOutputContents[0]); !slices.Equal(y, want) {
				t.Errorf("%s: %v, want %v", request, y, want)
			}
			if out.Id != "id "+request || out.ModelName != "model1" || out.ModelVersion != "3" || out.Parameters["emulated"] != nil {
				t.Errorf("%s: %v", request, out)
			}
		}
		if runs := r.engine.ran(); len(runs) != 1 || runs[0].rows != 4 {
			t.Errorf("runs %v, want one of 4 rows", runs)
		}
	})
}

func TestWindowsAreKeptOnTheWorkersClock(t *testing.T) {
	for _, offset := range []time.Duration{0, 5 * time.Minute, -5 * time.Minute} {
		inBubble(t, func(o *Options, _ *fakeEngine) { o.ClockOffset = offset }, func(t *testing.T, r *rig) {
			l := r.lead(4, "s")
			l.hold(1, "fake:a")
			for _, name := range []string{"early", "late", "past"} {
				l.payload(name, 1, 2)
			}
			now := r.now()
			const ms = time.Millisecond
			early := l.do(within(infer(1, "early"), now+30*ms, now+40*ms))
			late := l.do(within(infer(1, "late"), now+30*ms, now+35*ms)) // early takes until 40
			past := l.do(within(infer(1, "past"), now-2*ms, now-ms))
			if res := l.wants(ok, early); res.StartedNs != int64(now+30*ms) {
				t.Errorf("offset %v: started %v after now, want 30ms", offset, time.Duration(res.StartedNs)-now)
			}
			if res := l.wants(tooLate, late); res.EndedNs != int64(now+35*ms)+1 || res.StartedNs != 0 {
				t.Errorf("offset %v: refused %v after now, want 35ms", offset, time.Duration(res.EndedNs)-now)
			}
			if res := l.wants(tooLate, past); res.EndedNs != int64(now) {
				t.Errorf("offset %v: refused %v after now, want at once", offset, time.Duration(res.EndedNs)-now)
			}
			if n := len(r.engine.ran()); n != 1 {
				t.Errorf("%d batches ran, want 1", n)
			}
		})
	}
}

func TestOneBatchAtATimeOnEachDevice(t *testing.T) {
	inBubble(t, func(o *Options, _ *fakeEngine) { o.Devices = append(o.Devices, o.Devices[0]) }, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		second := loadWeights(1)
		second.Device = 1
		l.expect(ok, second)
		start := time.Now()
		var ids []uint64
		for n := range 10 {
			name := fmt.Sprint(n)
			l.payload(name, float32(n), 0)
			a := infer(1, name)
			a.Device = uint32(n % 2)
			ids = append(ids, l.do(a))
		}
		for _, id := range ids {
			l.wants(ok, id)
		}
		if took := time.Since(start); took != 50*time.Millisecond {
			t.Errorf("five batches of 10 ms on each of two devices took %v", took)
		}
	})
}

func TestABadItemFailsAlone(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.payload("good", 1, 2)
		l.raw("garbage", []byte{0xff, 0xff})
		l.request("shape", wideRequest([]float32{1, 2, 3}))
		l.payload("rows", 1, 2, 3, 4) // the action says 1
		l.payload("fine", 5, 6)
		start := r.now()
		a := infer(1, "good", "garbage", "shape", "missing", "rows", "fine")
		res := l.expect(ok, within(a, 0, start+50*time.Millisecond))
		want := []sessionpb.ResultCode{ok, invalidInput, invalidInput, payloadMissing, invalidInput, ok}
		if !slices.Equal(codesOf(res), want) {
			t.Errorf("items %v", res.Items)
		}
		if m := res.Items[3].Message; m != "payload did not arrive" {
			t.Errorf("missing: %q", m)
		}
		if at := time.Duration(res.StartedNs) - start; at != 49*time.Millisecond {
			t.Errorf("started after %v, want just before the window closes", at)
		}
		if y := values(l.output("fine").RawOutputContents[0]); y[0] != 10 || len(l.outputs) != 2 {
			t.Errorf("fine: %v, and %d outputs", y, len(l.outputs))
		}
		if res := l.expect(payloadMissing, within(infer(1, "none"), 0, start+time.Second)); len(res.Items) != 1 || len(r.engine.ran()) != 1 {
			t.Errorf("a batch without payloads: %v", res)
		}
	})
}

func TestAMissingPayloadHoldsNobodyUp(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		start := r.now()
		missing := l.do(infer(1, "missing")) // no window: 5 s
		l.payload("there", 1, 2)
		if res := l.expect(ok, infer(1, "there")); time.Duration(res.EndedNs)-start != 10*time.Millisecond {
			t.Errorf("held up for %v", time.Duration(res.EndedNs)-start)
		}
		if res := l.wants(payloadMissing, missing); time.Duration(res.EndedNs)-start != 5*time.Second {
			t.Errorf("gave up after %v, want 5s", time.Duration(res.EndedNs)-start)
		}
	})
}

func TestBatchesThatCanNotBeRun(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:single"] = &fakeModel{unbatched: true, rows: []int{1}, emulated: true}
		e.sources["fake:open"] = &fakeModel{open: true}
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.hold(2, "fake:single")
		l.hold(3, "fake:open")
		l.expect(invalidInput, infer(1))
		l.expect(invalidInput, infer(1, "twice", "twice"))
		l.expect(sessionpb.ResultCode_RESULT_CODE_UNKNOWN_DEVICE, &sessionpb.Action{ModelId: 1, Device: 7, Body: infer(1, "r").Body})
		l.expect(invalidInput, &sessionpb.Action{ModelId: 1})

		var nine []string
		for n := range 9 {
			nine = append(nine, fmt.Sprint("row", n))
			l.payload(nine[n], 1, 2)
		}
		if res := l.expect(invalidInput, infer(1, nine...)); !strings.Contains(res.Message, "8 at most") {
			t.Errorf("nine rows: %q", res.Message)
		}

		flat := &inferencepb.ModelInferRequest{
			Inputs:           []*inferencepb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{2}}},
			RawInputContents: [][]byte{floats(1, 2)},
		}
		l.request("u1", flat)
		l.request("u2", flat)
		l.expect(invalidInput, infer(2, "u1", "u2"))
		l.request("u3", flat)
		l.expect(ok, infer(2, "u3"))
		if out := l.output("u3"); !out.Parameters["emulated"].GetBoolParam() {
			t.Errorf("an emulated answer doesn't say so: %v", out.Parameters)
		}

		l.request("w2", wideRequest([]float32{1, 2}))
		l.request("w3", wideRequest([]float32{1, 2, 3}))
		if res := l.expect(ok, infer(3, "w2", "w3")); !slices.Equal(codesOf(res), []sessionpb.ResultCode{ok, invalidInput}) {
			t.Errorf("two shape classes: %v", res.Items)
		}
	})
}

func TestCustomParametersReachTheEngine(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		req := wideRequest([]float32{1, 2})
		req.Parameters = map[string]*inferencepb.InferParameter{
			"temperature": {ParameterChoice: &inferencepb.InferParameter_Int64Param{Int64Param: 3}},
			"priority":    {ParameterChoice: &inferencepb.InferParameter_Int64Param{Int64Param: 1}},
		}
		l.request("r", req)
		l.expect(ok, infer(1, "r"))
		if p := r.engine.ran()[0].batch.Parameters; len(p) != 1 || p["temperature"] != "3" {
			t.Errorf("parameters %v", p)
		}
	})
}

func TestCancel(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		for n, name := range []string{"running", "kept", "dropped", "alone"} {
			l.payload(name, float32(n), 0)
		}
		running := l.do(infer(1, "running"))
		time.Sleep(time.Millisecond)
		pair := l.do(infer(1, "kept", "dropped", "unsent")) // unsent has no payload
		alone := l.do(infer(1, "alone"))
		l.cancel("running") // too late for it
		l.cancel("dropped")
		l.cancel("unsent")
		l.cancel("alone")
		l.cancel("unknown")
		l.wants(cancelled, alone)
		if !l.silent(running) {
			t.Error("the cancelled batch was answered only when it could have started")
		}
		l.wants(ok, running)
		if res := l.wants(ok, pair); !slices.Equal(codesOf(res), []sessionpb.ResultCode{ok, cancelled, cancelled}) {
			t.Errorf("items %v", res.Items)
		}
		synctest.Wait()
		if runs := r.engine.ran(); len(runs) != 2 || runs[1].rows != 1 || len(l.outputs) != 2 || len(l.results[alone]) != 1 {
			t.Errorf("%d runs, %d outputs, %d answers to a cancelled batch", len(runs), len(l.outputs), len(l.results[alone]))
		}
	})
}

func TestEngineErrorsAndPanics(t *testing.T) {
	var fail func() error
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].run = func(engine.Batch) error { return fail() }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		for n, c := range []struct {
			fail func() error
			code sessionpb.ResultCode
			says string
		}{
			{func() error { return fmt.Errorf("row 0: %w", engine.ErrInvalidInput) }, invalidInput, "row 0"},
			{func() error { return errBroken }, engineFailed, errBroken.Error()},
			{func() error { panic("kaboom") }, engineFailed, "panic: kaboom"},
			{func() error { return nil }, ok, ""},
		} {
			fail = c.fail
			name := fmt.Sprint(n)
			l.payload(name, 1, 2)
			res := l.expect(c.code, infer(1, name))
			if !strings.Contains(res.Message, c.says) || res.Items[0].Code != c.code {
				t.Errorf("case %d: %v", n, res)
			}
		}
	})
}

func TestBeyondMaxQueued(t *testing.T) {
	inBubble(t, func(o *Options, _ *fakeEngine) { o.MaxQueued = 2 }, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		for n := range 2 {
			l.do(infer(1, fmt.Sprint(n)))
		}
		l.expect(sessionpb.ResultCode_RESULT_CODE_TOO_EARLY, infer(1, "third"))
		l.cancel("0")
		l.payload("third", 1, 2) // the refused batch let go of its item
		l.expect(ok, infer(1, "third"))
	})
}

func TestShutdownFinishesWhatRunsAndRefusesTheRest(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return 500 * time.Millisecond }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.payload("running", 1, 2)
		l.payload("waiting", 3, 4)
		running := l.do(infer(1, "running"))
		waiting := l.do(infer(1, "waiting"))
		mute := r.dial(4, "u") // opens a stream and says nothing
		if _, err := mute.service.Control(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		synctest.Wait()
		r.stop()
		synctest.Wait()
		l.wants(shuttingDown, waiting)
		l.expect(shuttingDown, loadWeights(1))
		l.wants(ok, running)
		l.output("running")
		l.until("goodbye", func() bool { return l.err != nil })
		late := r.dial(5, "t")
		late.openControl()
		late.until("refusal", func() bool { return late.err != nil })
		r.shutDown()
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("the end took %v, want as long as the batch", took)
		}
	})
}

func TestShutdownWithAStreamThatBreaksMeanwhile(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return 500 * time.Millisecond }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.payload("r", 1, 2)
		l.do(infer(1, "r"))
		synctest.Wait()
		r.stop()
		synctest.Wait()
		l.data.CloseSend()
		if took := r.shutDown(); took != 500*time.Millisecond {
			t.Errorf("the end took %v, want as long as the batch", took)
		}
	})
}

func TestShutdownStopsWhatRunsTooLong(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return time.Hour }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.payload("r", 1, 2)
		id := l.do(infer(1, "r"))
		synctest.Wait()
		start := time.Now()
		r.stop()
		l.wants(shuttingDown, id)
		if took := time.Since(start); took != time.Second {
			t.Errorf("gave up after %v, want 1s", took)
		}
	})
}
