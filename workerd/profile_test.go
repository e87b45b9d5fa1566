package workerd

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

const ms = time.Millisecond

func TestProfileMeasures(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].rows = []int{1, 4}
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration {
			if run == 6 { // of 4 rows: the third measured one
				return 100 * ms
			}
			return time.Duration(rows) * ms
		}
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		start := time.Now()
		res := l.expect(ok, profile(1, &sessionpb.Profile{Warmups: 1, Runs: 3, BudgetNs: int64(time.Second), WeightsLoads: 2}))
		p := res.Profile
		if p.Key.Digest != "digest of fake:a" || p.Key.Engine != "fake" || p.Key.EngineVersion != "7" || p.Key.DeviceKind != "gpu" {
			t.Errorf("key %v", p.Key)
		}
		if p.WeightsLoadP50Ns != int64(20*ms) || p.WeightsLoadP99Ns != int64(20*ms) || p.OutputBytesPerRow != 8 {
			t.Errorf("profile %v", p)
		}
		one, four := p.Execution[0], p.Execution[1]
		if one.Rows != 1 || one.P50Ns != int64(ms) || one.P99Ns != int64(ms) || one.Runs != 3 || one.Outliers != 0 {
			t.Errorf("one row: %v", one)
		}
		if four.Rows != 4 || four.P50Ns != int64(4*ms) || four.P99Ns != int64(100*ms) || four.Runs != 3 || four.Outliers != 1 {
			t.Errorf("four rows: %v", four)
		}
		if took := time.Since(start); took != 40*ms+4*ms+112*ms {
			t.Errorf("took %v", took)
		}
		synctest.Wait()
		if res.FreePages != 5 || r.engine.loaded != 0 {
			t.Errorf("%d pages are free, %d weights are loaded: the device is not as it was", res.FreePages, r.engine.loaded)
		}
		if runs := r.engine.ran(); len(runs) != 8 || len(runs[7].batch.Inputs[0].Data) != 4*2*4 || runs[7].batch.Inputs[0].Shape[0] != 4 {
			t.Errorf("%d runs, the last with %v", len(runs), runs[len(runs)-1].batch)
		}
	})
}

func TestProfileKeepsToItsBudgetButMeasuresFiveTimes(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].rows = []int{1, 8}
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return time.Duration(rows) * 10 * ms }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		res := l.expect(ok, profile(1, &sessionpb.Profile{Runs: 100, BudgetNs: int64(95 * ms)}))
		if one, eight := res.Profile.Execution[0], res.Profile.Execution[1]; one.Runs != 10 || eight.Runs != 5 {
			t.Errorf("%d and %d runs, want 10 and 5", one.Runs, eight.Runs)
		}
	})
}

func TestProfileOfResidentWeightsLeavesThemResident(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		measuring := l.do(profile(1, &sessionpb.Profile{Runs: 3, WeightsLoads: 1}))
		time.Sleep(10 * ms) // it is reloading the weights
		l.expect(weightsInUseCode, evictWeights(1))
		l.expect(weightsInUseCode, loadWeights(1))
		if d := l.freshReport().Devices[0]; len(d.Resident) != 0 || d.FreePages != 2 {
			t.Errorf("device during the profile: %v", d)
		}
		if res := l.wants(ok, measuring); res.Profile.WeightsLoadP50Ns != int64(20*ms) || res.FreePages != 2 {
			t.Errorf("result %v", res)
		}
		l.payload("r", 1, 2)
		l.expect(ok, infer(1, "r"))
		l.expect(ok, evictWeights(1))
	})
}

func TestProfileWaitsForWeightsOnTheWay(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		load := l.do(loadWeights(1))
		l.expect(ok, profile(1, &sessionpb.Profile{}))
		l.wants(ok, load)
		if n := r.worker.Stats().Devices[0].Resident; n != 1 {
			t.Errorf("%d models are resident, want the one that was loaded", n)
		}
	})
}

func TestProfileReloadsNothingThatABatchWaitsFor(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		waiting := l.do(infer(1, "r"))
		res := l.expect(ok, profile(1, &sessionpb.Profile{Runs: 3, WeightsLoads: 2}))
		if res.Profile.WeightsLoadP50Ns != 0 || len(res.Profile.Execution) != 4 {
			t.Errorf("profile %v", res.Profile)
		}
		l.payload("r", 1, 2)
		l.wants(ok, waiting)
	})
}

func TestProfileFailures(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return time.Second }
		e.sources["fake:b"].weightsErr = errBroken
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(unknownModelCode, profile(1, &sessionpb.Profile{}))
		l.expect(ok, loadModel(2, "fake:b"))
		if res := l.expect(engineFailed, profile(2, &sessionpb.Profile{})); res.FreePages != 5 {
			t.Errorf("%d pages are free after a failed load, want 5", res.FreePages)
		}
		l.hold(1, "fake:a")
		l.expect(cacheExhausted, profile(2, &sessionpb.Profile{}))

		// A profile that nobody waits for any more ends after its current run.
		l.do(profile(1, &sessionpb.Profile{Runs: 1000}))
		time.Sleep(1500 * ms)
		next := r.lead(5, "t")
		next.report(0)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := r.worker.Stats().Devices[0].Queued; n != 0 {
			t.Error("the profile of an old leader goes on")
		}
		if d := next.freshReport().Devices[0]; len(d.Resident) != 1 || d.FreePages != 2 {
			t.Errorf("device after the profile: %v", d)
		}
	})
}

func TestSummary(t *testing.T) {
	var runs []int64
	for n := range int64(98) {
		runs = append(runs, 100+n)
	}
	got := summary(8, append([]int64{9000, 600}, runs...))
	want := &logpb.RowsTime{Rows: 8, P50Ns: 149, P99Ns: 600, Runs: 100, Outliers: 2}
	if got.String() != want.String() {
		t.Errorf("summary %v, want %v", got, want)
	}
}

func TestEnough(t *testing.T) {
	wanted := &sessionpb.Profile{Runs: 40, BudgetNs: int64(time.Second)}
	until := func(time func(run int) time.Duration) (n int) {
		for runs := []int64{}; ; {
			runs = append(runs, int64(time(len(runs))))
			if enough(runs, wanted) {
				return len(runs)
			}
		}
	}
	for name, c := range map[string]struct {
		time func(run int) time.Duration
		want int
	}{
		"steady":                   {func(int) time.Duration { return ms }, 10},
		"a slow one at first":      {func(run int) time.Duration { return ms + 20*ms*time.Duration(max(0, 1-run)) }, 40},
		"it settles":               {func(run int) time.Duration { return ms + ms*time.Duration(max(0, 8-run)) }, 40},
		"it is always between two": {func(run int) time.Duration { return ms + ms*time.Duration(run%2) }, 20},
		"slow runs":                {func(int) time.Duration { return 400 * ms }, 5},
	} {
		if n := until(c.time); n != c.want {
			t.Errorf("%s: %d runs, want %d", name, n, c.want)
		}
	}
}

// Batches come between the slices, and the measurement takes no more than its
// share of the device.
func TestProfileSharesTheDevice(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].rows = []int{1}
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return 10 * ms }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		start := time.Now()
		measuring := l.do(profile(1, &sessionpb.Profile{Runs: 5, Share: 0.25}))
		for i := range 10 {
			time.Sleep(7 * ms)
			sent := time.Now()
			name := string(rune('a' + i))
			l.payload(name, 1, 2)
			l.expect(ok, infer(1, name))
			if took := time.Since(sent); took > 20*ms {
				t.Errorf("batch %d took %v, although no slice is longer than one run", i, took)
			}
		}
		p := l.wants(ok, measuring).Profile
		if took := time.Since(start); took < (4*40+10)*ms || p.Execution[0].Runs != 5 {
			t.Errorf("5 runs of 10ms at a quarter of the device took %v: %v", took, p)
		}
		if n := r.worker.Stats().Devices[0].Resident; n != 1 {
			t.Errorf("%d models are resident afterwards", n)
		}
	})
}

// As long as nobody else uses the device there is nobody to leave time to.
func TestProfileTakesAnIdleDeviceWhole(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].rows = []int{1}
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return 10 * ms }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		start := time.Now()
		l.expect(ok, profile(1, &sessionpb.Profile{Runs: 5, Share: 0.01}))
		if took := time.Since(start); took > 60*ms {
			t.Errorf("5 runs of 10ms on an idle device took %v", took)
		}
	})
}

// A leader goes, or the worker ends, while the measurement waits for its next
// slice.
func TestProfileThatIsInterruptedBetweenSlices(t *testing.T) {
	slow := func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return 10 * ms }
	}
	inBubble(t, slow, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.payload("r", 1, 2)
		l.expect(ok, infer(1, "r")) // so that there are pauses
		l.expect(ok, evictWeights(1))
		l.do(profile(1, &sessionpb.Profile{Runs: 1000, Share: 0.001}))
		time.Sleep(50 * ms)
		next := r.lead(5, "t")
		next.report(0)
		synctest.Wait()
		if d := next.freshReport().Devices[0]; d.FreePages != 5 || d.Queued != 0 || r.engine.loaded != 0 {
			t.Errorf("device after the leader has gone: %v, %d weights are loaded", d, r.engine.loaded)
		}
		next.do(profile(1, &sessionpb.Profile{Runs: 1000, Share: 0.001}))
		time.Sleep(50 * ms)
		r.shutDown()
	})
}

// The scheduler wants weights that a measurement has brought for itself.
func TestProfileGivesItsWeightsToWhoLoadsThem(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].rows = []int{1}
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return 10 * ms }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		measuring := l.do(profile(1, &sessionpb.Profile{Runs: 9, WeightsLoads: 2, Share: 0.5}))
		time.Sleep(10 * ms) // it is loading them
		l.expect(weightsInUseCode, loadWeights(1))
		time.Sleep(100 * ms) // it runs
		l.expect(ok, loadWeights(1))
		l.payload("r", 1, 2)
		l.expect(ok, infer(1, "r"))
		if p := l.wants(ok, measuring).Profile; p.Execution[0].Runs != 9 || p.WeightsLoadP50Ns != int64(20*ms) {
			t.Errorf("profile %v", p)
		}
		if n := r.worker.Stats().Devices[0].Resident; n != 1 || r.engine.loaded != 1 {
			t.Errorf("%d models are resident, %d weights are loaded", n, r.engine.loaded)
		}
		l.expect(ok, evictWeights(1))
	})
}

// Weights that are measured where they are belong to the schedule: it may evict
// them between two slices, and the measurement begins anew some other time.
func TestProfileDoesNotPinWeights(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return 10 * ms }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.payload("r", 1, 2)
		l.expect(ok, infer(1, "r"))
		measuring := l.do(profile(1, &sessionpb.Profile{Runs: 9, Share: 0.1}))
		time.Sleep(50 * ms)
		l.expect(ok, evictWeights(1))
		l.wants(notPresent, measuring)
		if d := l.freshReport().Devices[0]; d.FreePages != 5 || d.Queued != 0 || r.engine.loaded != 0 {
			t.Errorf("device afterwards: %v, %d weights are loaded", d, r.engine.loaded)
		}
	})
}

// Batches don't wait for weights that are loaded to measure that.
func TestBatchesGoOnWhileLoadsAreMeasured(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) { e.sources["fake:b"].weightsBytes = 200 }, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.expect(ok, loadModel(2, "fake:b"))
		measuring := l.do(profile(2, &sessionpb.Profile{Runs: 3, WeightsLoads: 20}))
		for i := range 10 {
			name := string(rune('a' + i))
			sent := time.Now()
			l.payload(name, 1, 2)
			l.expect(ok, infer(1, name))
			if took := time.Since(sent); took > 10*ms {
				t.Errorf("batch %d took %v", i, took)
			}
			time.Sleep(3 * ms)
		}
		l.wants(ok, measuring)
	})
}

// An unload has the measurement of its model end.
func TestUnloadEndsAMeasurement(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(run, rows int) time.Duration { return 10 * ms }
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		measuring := l.do(profile(1, &sessionpb.Profile{Runs: 1000}))
		time.Sleep(50 * ms)
		l.expect(weightsInUseCode, unloadModel(1))
		l.wants(sessionpb.ResultCode_RESULT_CODE_CANCELLED, measuring)
		l.expect(ok, unloadModel(1))
	})
}

func TestProfileOfSomeRows(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		res := l.expect(ok, profile(1, &sessionpb.Profile{Runs: 3, Rows: []uint32{2, 8, 99}}))
		if e := res.Profile.Execution; len(e) != 2 || e[0].Rows != 2 || e[1].Rows != 8 || res.Profile.WeightsLoadP50Ns != 0 {
			t.Errorf("profile %v", res.Profile)
		}
	})
}

func TestZeros(t *testing.T) {
	b, err := zeros(tensor.Signature{Batched: true, Inputs: []tensor.Spec{
		{Name: "t", Type: tensor.Bytes, Shape: []int64{-1, -1}},
		{Name: "n", Type: tensor.Int64, Shape: []int64{-1, 3}},
	}}, nil, 4)
	if err != nil || len(b.Inputs[0].Data) != 16 || b.Inputs[0].Shape[0] != 4 || b.Inputs[0].Shape[1] != 1 || len(b.Inputs[1].Data) != 96 {
		t.Errorf("%v, %v", b, err)
	}
	if _, err := zeros(tensor.Signature{Inputs: []tensor.Spec{{Type: tensor.FP32, Shape: []int64{1 << 30, 1 << 30}}}}, nil, 1); err == nil {
		t.Error("an impossible shape is no error")
	}
	declared := []*logpb.TensorShape{{Name: "n", Shape: []int64{5, 3}}}
	b, err = zeros(tensor.Signature{Batched: true, Inputs: []tensor.Spec{
		{Name: "m", Type: tensor.Int64, Shape: []int64{-1, -1}}, {Name: "n", Type: tensor.Int64, Shape: []int64{-1, -1, 3}},
	}}, declared, 2)
	if err != nil || len(b.Inputs[0].Data) != 2*8 || len(b.Inputs[1].Data) != 2*5*3*8 {
		t.Errorf("with a declared shape: %v, %v", b, err)
	}
}

func TestDeclaredShapesThatCanNotBeMeasured(t *testing.T) {
	sig := tensor.Signature{Batched: true, Inputs: []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: []int64{-1, -1, 64}}}}
	for shape, words := range map[string]string{
		"2000,64":        "",
		"2000":           "does not fit",
		"2000,65":        "does not fit",
		"20000000000,64": "declare a smaller one",
		"1000000,64":     "in a batch of 16",
	} {
		var n []int64
		for _, word := range strings.Split(shape, ",") {
			value, _ := strconv.ParseInt(word, 10, 64)
			n = append(n, value)
		}
		wanted := &sessionpb.LoadModel{Source: "s", Largest: []*logpb.TensorShape{{Name: "x", Shape: n}}}
		err := checkShapes(sig, 16, wanted)
		if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
			t.Errorf("%s: %v, want %q", shape, err, words)
		}
	}
	if err := checkShapes(sig, 1, &sessionpb.LoadModel{Largest: []*logpb.TensorShape{{Name: "y"}}}); err == nil || !strings.Contains(err.Error(), "[x]") {
		t.Errorf("an input that is not there: %v", err)
	}
}
