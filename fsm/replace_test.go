package fsm

import (
	"testing"

	"github.com/orrery-project/orrery/proto/logpb"
)

// admitting serves a model of version 1 on two workers, and admits late loads.
func admitting(t *testing.T) *log {
	l := serving(t)
	l.ok(&logpb.RaiseVersion{To: 4})
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	return l
}

func TestAReplacementTakesOverWhenItIsTold(t *testing.T) {
	l := admitting(t)
	version := func(v string) string { return l.state.Resolve("m", v).GetVersion() }
	equal(t, "ids", l.ok(&logpb.LoadModel{Name: "m", Source: "b", Replace: true}).GetModelIds(), []uint64{2})
	equal(t, "its version", l.state.Model(2).GetVersion(), "2")
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(2, "w1", "i1", digestB)}})
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestB, "cpu", 5)}})
	equal(t, "before", version(""), "1")
	equal(t, "by its version", version("2"), "2")

	l.refused(&logpb.ReplaceModel{ModelId: 1}, logpb.Reason_REASON_UNKNOWN_MODEL, "id 1")
	l.refused(&logpb.ReplaceModel{ModelId: 9}, logpb.Reason_REASON_UNKNOWN_MODEL, "id 9")
	l.ok(&logpb.ReplaceModel{ModelId: 2})
	equal(t, "after", version(""), "2")
	if l.state.Resolve("m", "1") != nil {
		t.Error("the replaced version still takes requests")
	}
	equal(t, "the replaced one retires", l.state.Model(1).GetRetiring(), true)
	l.refused(&logpb.LoadModel{Name: "m", Source: "a.onnx", Version: "1"}, logpb.Reason_REASON_CONFLICT, "about to be unloaded")
	equal(t, "it keeps what it has", len(l.state.Holdings(1)), 2)
	equal(t, "nobody else is to hold it", len(l.state.Targets(l.state.Model(1))), 0)
	l.refused(&logpb.UnloadModel{Name: "m", Version: "1", ModelId: 2}, logpb.Reason_REASON_UNKNOWN_MODEL)
	equal(t, "unloaded", l.ok(&logpb.UnloadModel{Name: "m", Version: "1", ModelId: 1}).GetModelIds(), []uint64{1})
}

func TestReplacementsThatCanNotBe(t *testing.T) {
	l := serving(t)
	replace := &logpb.LoadModel{Name: "m", Source: "b", Replace: true}
	l.refused(replace, logpb.Reason_REASON_VERSION, "version 4")
	l.ok(&logpb.RaiseVersion{To: 4})
	l.refused(replace, logpb.Reason_REASON_LATE_LOAD, "late_loads=admit", "orrery startup reopen")
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	l.refused(&logpb.LoadModel{Name: "x", Source: "b", Replace: true}, logpb.Reason_REASON_UNKNOWN_MODEL, `"x"`, "load it as a new one")
	l.refused(&logpb.LoadModel{Name: "m", Source: "b", Version: "1", Replace: true}, logpb.Reason_REASON_INVALID, "not above 1")
	equal(t, "the present one again is harmless",
		l.ok(&logpb.LoadModel{Name: "m", Source: "a.onnx", Version: "1", Replace: true}).GetModelIds(), []uint64{1})

	explicit := &logpb.LoadModel{Name: "m", Source: "b", Version: "7", Replace: true}
	equal(t, "ids", l.ok(explicit).GetModelIds(), []uint64{2})
	equal(t, "the same again", l.ok(explicit).GetModelIds(), []uint64{2})
	l.refused(replace, logpb.Reason_REASON_CONFLICT, "version 7", "already")
	l.ok(&logpb.ReplaceModel{ModelId: 2})
	equal(t, "the same when it has taken over", l.ok(explicit).GetModelIds(), []uint64{2})
	equal(t, "the next one", l.state.Model(l.ok(&logpb.LoadModel{Name: "m", Source: "c", Replace: true}).GetModelIds()[0]).GetVersion(), "8")
}

func TestABlamedReplacementTakesOverFromNone(t *testing.T) {
	l := admitting(t)
	l.ok(&logpb.LoadModel{Name: "m", Source: "b", Replace: true})
	l.ok(&logpb.SetModelBlame{ModelId: 2, Blame: "w1 died with it"})
	l.refused(&logpb.ReplaceModel{ModelId: 2}, logpb.Reason_REASON_CONFLICT, "w1 died with it")
	equal(t, "the present version", l.state.Resolve("m", "").GetVersion(), "1")
}

// The model that was to be replaced may be unloaded meanwhile.
func TestAReplacementOfWhatIsGone(t *testing.T) {
	l := admitting(t)
	l.ok(&logpb.LoadModel{Name: "m", Source: "b", Replace: true})
	l.ok(&logpb.UnloadModel{Name: "m", Version: "1"})
	equal(t, "what is left", l.state.Resolve("m", "").GetVersion(), "2")
	l.ok(&logpb.ReplaceModel{ModelId: 2})
	equal(t, "replaces", l.state.Model(2).GetReplaces(), uint64(0))
}

func TestAnUnprofiledVersionTakesNoRequestsFromAProfiledOne(t *testing.T) {
	l := admitting(t)
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "cpu", 5)}})
	l.ok(&logpb.LoadModel{Name: "m", Source: "b", Version: "2"})
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(2, "w1", "i1", digestB)}})
	equal(t, "loaded", l.state.Resolve("m", "").GetVersion(), "1")
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestB, "cpu", 5)}})
	equal(t, "profiled", l.state.Resolve("m", "").GetVersion(), "2")
}

func TestDeclaredShapes(t *testing.T) {
	l := newCluster(t)
	l.ok(&logpb.RaiseVersion{To: 4})
	shape := func(name string, n ...int64) *logpb.TensorShape { return &logpb.TensorShape{Name: name, Shape: n} }
	load := func(shapes ...*logpb.TensorShape) *logpb.LoadModel {
		return &logpb.LoadModel{Name: "m", Source: "a", Largest: shapes}
	}
	l.refused(load(shape("x", 0)), logpb.Reason_REASON_INVALID, "dimension 0")
	l.refused(load(shape("", 1)), logpb.Reason_REASON_INVALID, "no name")
	l.refused(load(shape("x", 1), shape("x", 2)), logpb.Reason_REASON_INVALID, "twice")
	l.ok(load(shape("y", 2), shape("x", 1, 8)))
	equal(t, "by name", ShapesKey(l.state.Model(1).GetLargest()), "x=1,8;y=2")
	equal(t, "in another order", l.ok(load(shape("x", 1, 8), shape("y", 2))).GetModelIds(), []uint64{1})
	l.refused(load(shape("x", 1, 9)), logpb.Reason_REASON_CONFLICT, "largest shapes")

	l.ok(register("w1", "i1"))
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(1, "w1", "i1", digestA)}})
	shaped := profile(digestA, "cpu", 5)
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "cpu", 9)}})
	equal(t, "profiled with other shapes", len(l.state.ProfilesOf(l.state.Model(1))), 0)
	shaped.Key.Shapes = "x=1,8;y=2"
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{shaped}})
	equal(t, "profiled", l.state.ProfilesOf(l.state.Model(1)), []*logpb.Profile{shaped})
}

func TestReopenedStartup(t *testing.T) {
	l := newCluster(t)
	l.ok(&logpb.RaiseVersion{To: 4})
	l.refused(&logpb.ReopenStartup{}, logpb.Reason_REASON_WRONG_PHASE, "querying", "accepted anyway")
	l.refused(&logpb.ReopenStartup{Close: true}, logpb.Reason_REASON_WRONG_PHASE, "querying")
	l.ok(&logpb.LoadModel{Name: "m", Source: "a"})
	l.phase(logpb.Phase_PHASE_SERVING)
	l.ok(&logpb.ReopenStartup{Close: true})

	at := func(phase logpb.Phase, reopened bool) {
		t.Helper()
		equal(t, "phase", l.state.Phase(), phase)
		equal(t, "reopened", l.state.Cluster().GetReopened(), reopened)
		equal(t, "serving", l.state.Serving(), true)
	}
	l.ok(&logpb.ReopenStartup{})
	l.ok(&logpb.ReopenStartup{})
	at(logpb.Phase_PHASE_WAITING, true)
	l.ok(&logpb.ReopenStartup{Close: true})
	at(logpb.Phase_PHASE_SERVING, false)
	l.refused(&logpb.LoadModel{Name: "n", Source: "a"}, logpb.Reason_REASON_LATE_LOAD)
	l.ok(&logpb.ReopenStartup{})
	l.ok(&logpb.LoadModel{Name: "n", Source: "a"})
	at(logpb.Phase_PHASE_LOADING, true)
	equal(t, "the last model before", l.state.Cluster().GetReopenedAfterModel(), uint64(1))
	l.refused(&logpb.ReopenStartup{Close: true}, logpb.Reason_REASON_WRONG_PHASE, "loads have come")
	l.phase(logpb.Phase_PHASE_PROFILING)
	l.ok(&logpb.ReopenStartup{})
	at(logpb.Phase_PHASE_LOADING, true)
	l.phase(logpb.Phase_PHASE_SERVING)
	at(logpb.Phase_PHASE_SERVING, false)
}

func TestDeviceChecks(t *testing.T) {
	l := newCluster(t)
	l.ok(&logpb.RaiseVersion{To: 4})
	l.ok(register("w1", "i1"))
	put := func(incarnation string, device uint32, ratio float64) *logpb.PutDeviceChecks {
		return &logpb.PutDeviceChecks{Updates: []*logpb.DeviceCheckUpdate{
			{Worker: "w1", Incarnation: incarnation, Check: &logpb.DeviceCheck{Device: device, Ratio: ratio, Runs: 5}},
			{Worker: "w9", Check: &logpb.DeviceCheck{Ratio: 1, Runs: 5}},
		}}
	}
	ratios := func() (all []float64) {
		for _, c := range l.state.Worker("w1").GetChecks() {
			all = append(all, c.GetRatio())
		}
		return all
	}
	l.refused(put("i1", 0, 0), logpb.Reason_REASON_INVALID, "ratio 0")
	l.ok(put("i1", 1, 2))
	l.ok(put("i1", 0, 1.5))
	l.ok(put("i1", 1, 3))
	l.ok(put("i0", 1, 9))
	equal(t, "by device", ratios(), []float64{1.5, 3})
	l.ok(register("w1", "i1"))
	equal(t, "registered again", ratios(), []float64{1.5, 3})
	l.ok(register("w1", "i2"))
	equal(t, "a new incarnation", len(ratios()), 0)
}
