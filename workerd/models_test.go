package workerd

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

const (
	unknownModelCode = sessionpb.ResultCode_RESULT_CODE_UNKNOWN_MODEL
	unknownEngine    = sessionpb.ResultCode_RESULT_CODE_UNKNOWN_ENGINE
	weightsInUseCode = sessionpb.ResultCode_RESULT_CODE_WEIGHTS_IN_USE
	cacheExhausted   = sessionpb.ResultCode_RESULT_CODE_CACHE_EXHAUSTED
	hostExhausted    = sessionpb.ResultCode_RESULT_CODE_HOST_MEMORY_EXHAUSTED
)

func TestLoadModelOnce(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		start := time.Now()
		first, again, other := l.do(loadModel(1, "fake:a")), l.do(loadModel(1, "fake:a")), l.do(loadModel(2, "fake:b"))
		l.expect(unknownModelCode, loadWeights(1)) // still loading
		res := l.wants(ok, first)
		if info := res.Info; info.GetDigest() != "digest of fake:a" || info.WeightsBytes != 250 || info.HostBytes != 400 ||
			len(info.ProfileRows) != 4 || info.Engine != "fake" || info.EngineVersion != "7" || !info.Signature.GetBatched() {
			t.Errorf("info %v", info)
		}
		if res.EngineNs != int64(time.Second) {
			t.Errorf("the load took %v, want 1s", time.Duration(res.EngineNs))
		}
		if res := l.wants(ok, again); res.Info.GetDigest() != "digest of fake:a" || res.EngineNs != 0 {
			t.Errorf("the same load again: %v", res)
		}
		l.wants(ok, other)
		if took := time.Since(start); took != time.Second {
			t.Errorf("two models took %v: not side by side", took)
		}
		if used := r.worker.Stats().HostUsedBytes; used != 800 {
			t.Errorf("%d bytes used, want 800", used)
		}
	})
}

func TestLoadModelRefusals(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		e.sources["fake:c"] = &fakeModel{hostBytes: 300}
		e.sources["fake:nonsense"] = &fakeModel{rows: []int{}}
		o.Engines = append(o.Engines, &fakeEngine{name: "idle", sources: map[string]*fakeModel{"idle:m": {}}})
		o.Devices[0].Engines = []string{"fake"}
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		with := func(source string, change func(*sessionpb.LoadModel)) *sessionpb.Action {
			a := loadModel(9, source)
			change(a.GetLoadModel())
			return a
		}
		for _, c := range []struct {
			action *sessionpb.Action
			code   sessionpb.ResultCode
			says   string
		}{
			{loadModel(9, "fake:nothing"), sessionpb.ResultCode_RESULT_CODE_BAD_SOURCE, "fake:nothing"},
			{loadModel(9, "strange"), unknownEngine, "strange"},
			{loadModel(9, "idle:m"), unknownEngine, "idle:m"}, // no device may use it
			{with("idle:m", func(m *sessionpb.LoadModel) { m.Engine = "idle" }), unknownEngine, `"idle"`},
			{with("fake:a", func(m *sessionpb.LoadModel) { m.Engine = "torch" }), unknownEngine, `"torch"`},
			{with("fake:a", func(m *sessionpb.LoadModel) { m.Digest = "other" }), sessionpb.ResultCode_RESULT_CODE_DIGEST_MISMATCH, "digest of fake:a"},
			{loadModel(9, "fake:nonsense"), engineFailed, "profile rows"},
			{with("fake:a", func(m *sessionpb.LoadModel) { m.Digest = "digest of fake:a"; m.Engine = "fake" }), ok, ""},
			{with("fake:a", func(m *sessionpb.LoadModel) { m.Digest = "other" }), sessionpb.ResultCode_RESULT_CODE_DIGEST_MISMATCH, "not other"},
		} {
			if res := l.expect(c.code, c.action); !strings.Contains(res.Message, c.says) {
				t.Errorf("%v: %q", c.action, res.Message)
			}
		}
		l.expect(ok, loadModel(2, "fake:b"))
		if res := l.expect(hostExhausted, loadModel(3, "fake:c")); !strings.Contains(res.Message, "800 of 1000") {
			t.Errorf("message %q", res.Message)
		}
		l.expect(ok, unloadModel(2))
		l.expect(ok, loadModel(3, "fake:c"))
		if n := r.worker.Stats().Models; n != 2 {
			t.Errorf("%d models, want 2", n)
		}
	})
}

func TestUnloadModel(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		l.expect(unknownModelCode, unloadModel(7))
		waiting := l.do(infer(1, "r"))
		l.expect(weightsInUseCode, unloadModel(1))
		l.payload("r", 1, 2)
		l.wants(ok, waiting)
		if res := l.expect(ok, unloadModel(1)); res.FreePages != 5 {
			t.Errorf("%d pages are free, want all 5", res.FreePages)
		}
		l.expect(unknownModelCode, loadWeights(1))
		l.expect(unknownModelCode, infer(1, "s"))
		synctest.Wait()
		if s := r.worker.Stats(); s.Models != 0 || s.HostUsedBytes != 0 || r.engine.open != 0 {
			t.Errorf("%+v", s)
		}
		l.hold(1, "fake:a")
	})
}

func TestATakeoverDuringALoadOfAModel(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		old := r.lead(4, "s")
		old.do(loadModel(1, "fake:a"))
		time.Sleep(time.Second / 2)
		next := r.lead(5, "t")
		if models := next.report(0).Report.Models; len(models) != 1 {
			t.Errorf("models at the takeover: %v", models)
		}
		start := time.Now()
		if res := next.expect(ok, loadModel(1, "fake:a")); res.Info == nil || time.Since(start) != time.Second/2 {
			t.Errorf("%v after %v", res, time.Since(start))
		}
	})
}

func TestPagesOfWeights(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		l.expect(ok, loadModel(2, "fake:b"))
		if res := l.expect(ok, loadWeights(1)); res.Pages != 3 || res.FreePages != 2 || res.EngineNs != int64(20*time.Millisecond) {
			t.Errorf("load: %v", res)
		}
		if res := l.expect(ok, loadWeights(1)); res.Pages != 3 || res.FreePages != 2 || res.EngineNs != 0 {
			t.Errorf("load again: %v", res)
		}
		if res := l.expect(cacheExhausted, loadWeights(2)); !strings.Contains(res.Message, "needs 3 pages of 100 bytes, 2 of 5 are free") {
			t.Errorf("message %q", res.Message)
		}
		l.expect(notPresent, evictWeights(2))
		l.expect(notPresent, infer(2, "nowhere"))

		waiting := l.do(infer(1, "r"))
		l.expect(weightsInUseCode, evictWeights(1))
		l.payload("r", 1, 2)
		synctest.Wait()
		l.expect(weightsInUseCode, evictWeights(1)) // runs now
		l.wants(ok, waiting)
		if res := l.expect(ok, evictWeights(1)); res.FreePages != 5 {
			t.Errorf("evict: %v", res)
		}
		l.expect(ok, loadWeights(2))
	})
}

func TestInferWaitsForWeightsOnTheWay(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		start := r.now()
		l.payload("r", 1, 2)
		l.do(loadWeights(1))
		if res := l.expect(ok, infer(1, "r")); time.Duration(res.StartedNs)-start != 20*time.Millisecond {
			t.Errorf("started after %v, want when the weights are there", time.Duration(res.StartedNs)-start)
		}
		l.expect(ok, evictWeights(1))

		// A load that never starts is not waited for.
		now := r.now()
		l.payload("s", 1, 2)
		load := l.do(within(loadWeights(1), now+time.Second, now+time.Second/2))
		res := l.expect(notPresent, infer(1, "s"))
		l.wants(tooLate, load)
		if at := time.Duration(res.StartedNs) - now; at.Round(ms) != 500*ms {
			t.Errorf("gave up after %v, want when the load was refused", at)
		}
	})
}

func TestAFailedLoadOfWeightsGivesItsPagesBack(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) { e.sources["fake:a"].weightsErr = errBroken }, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		l.payload("r", 1, 2)
		load, waiting := l.do(loadWeights(1)), l.do(infer(1, "r"))
		if res := l.wants(engineFailed, load); res.FreePages != 5 {
			t.Errorf("load: %v", res)
		}
		l.wants(notPresent, waiting)
	})
}

func TestAFailedEvictionKeepsItsPages(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) { e.sources["fake:a"].evictErr = errBroken }, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		if res := l.expect(engineFailed, evictWeights(1)); res.FreePages != 2 {
			t.Errorf("evict: %v", res)
		}
		l.expect(engineFailed, unloadModel(1))
		l.payload("r", 1, 2)
		l.expect(ok, infer(1, "r"))

		// Run says that they could not be closed.
		r.stop()
		if err := <-r.ended; err == nil || !strings.Contains(err.Error(), errBroken.Error()) {
			t.Errorf("Run: %v", err)
		}
		r.ended <- nil
		r.engine.count(&r.engine.loaded, -1)
	})
}

func TestADeviceRefusesEnginesThatItMayNotUse(t *testing.T) {
	inBubble(t, func(o *Options, e *fakeEngine) {
		o.Engines = append(o.Engines, &fakeEngine{name: "idle"})
		o.Devices = append(o.Devices, o.Devices[0])
		o.Devices[1].Engines = []string{"idle"}
	}, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.expect(ok, loadModel(1, "fake:a"))
		a := loadWeights(1)
		a.Device = 1
		l.expect(unknownEngine, a)
	})
}

func TestNewRefusesBadOptions(t *testing.T) {
	good := func() Options {
		return Options{
			Name: "w", Incarnation: "i", Engines: []engine.Engine{&fakeEngine{name: "fake"}},
			Devices: []DeviceOptions{{PageBytes: 1, Pages: 1}}, ModelDir: t.TempDir(),
		}
	}
	for says, spoil := range map[string]func(*Options){
		"name":            func(o *Options) { o.Name = "" },
		"one device":      func(o *Options) { o.Devices = nil },
		"one engine":      func(o *Options) { o.Engines = nil },
		"model directory": func(o *Options) { o.ModelDir = "" },
		"no such file":    func(o *Options) { o.ModelDir += "/nowhere" },
		"twice":           func(o *Options) { o.Engines = append(o.Engines, o.Engines[0]) },
		"above 0":         func(o *Options) { o.Devices[0].Pages = 0 },
		`"torch"`:         func(o *Options) { o.Devices[0].Engines = []string{"torch"} },
	} {
		o := good()
		spoil(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("New = %v, want an error with %q", err, says)
		}
	}
	w, err := New(good())
	if err != nil {
		t.Fatal(err)
	}
	w.root.Close()
}
