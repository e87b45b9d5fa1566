package fsm

import (
	"strings"
	"testing"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestALoadIsChecked(t *testing.T) {
	for words, c := range map[string]*logpb.LoadModel{
		`model name ""`:          {Source: "a"},
		`model name "-m"`:        {Name: "-m", Source: "a"},
		`model name "a b"`:       {Name: "a b", Source: "a"},
		`model name "é"`:         {Name: "é", Source: "a"},
		"at most 128 bytes":      {Name: strings.Repeat("m", 129), Source: "a"},
		"-99\"":                  {Name: strings.Repeat("m", 126), Source: "a", Instances: 100},
		"10001 instances":        {Name: "m", Source: "a", Instances: 10_001},
		`version "v1"`:           {Name: "m", Version: "v1", Source: "a"},
		`version "01"`:           {Name: "m", Version: "01", Source: "a"},
		`version "-1"`:           {Name: "m", Version: "-1", Source: "a"},
		`version "+1"`:           {Name: "m", Version: "+1", Source: "a"},
		"no source":              {Name: "m"},
		"starts with a slash":    {Name: "m", Source: "/etc/passwd"},
		`leads out by ".."`:      {Name: "m", Source: "a/../../b"},
		"objective is -1 ns":     {Name: "m", Source: "a", SloNs: -1},
		`constraints of model`:   {Name: "m", Source: "a", Constraints: []*logpb.Label{{Value: "x"}}},
		`"k" is given twice, as`: {Name: "m", Source: "a", Constraints: []*logpb.Label{{Key: "k"}, {Key: "k", Value: "x"}}},
	} {
		t.Run(words, func(t *testing.T) {
			newCluster(t).refused(c, logpb.Reason_REASON_INVALID, words)
		})
	}
}

func TestLoad(t *testing.T) {
	l := newCluster(t)
	result := l.ok(&logpb.LoadModel{
		Name: "m", Source: "dir//a.onnx", Engine: "gomlx", SloNs: 5, MaxRows: 8, Copies: 2,
		Constraints: []*logpb.Label{{Key: "b"}, {Key: "a"}},
	})
	equal(t, "ids", result.GetModelIds(), []uint64{1})
	equal(t, "model", l.state.Model(1), &logpb.Model{
		Id: 1, Name: "m", Version: "1", Source: "dir/a.onnx", Engine: "gomlx", SloNs: 5, MaxRows: 8, Copies: 2,
		Constraints: []*logpb.Label{{Key: "a"}, {Key: "b"}}, RequestId: "r-2", WantedUnixNs: l.now,
	})
	for _, name := range []string{"a", "0", "A.b_c-d", strings.Repeat("m", 128)} {
		l.ok(&logpb.LoadModel{Name: name, Source: "a", Version: "18446744073709551615"})
	}
}

func TestInstances(t *testing.T) {
	l := newCluster(t)
	l.ok(&logpb.LoadModel{Name: "x", Source: "a"})
	equal(t, "ids", l.ok(&logpb.LoadModel{Name: "m", Source: "a", Instances: 3}).GetModelIds(), []uint64{2, 3, 4})
	m := l.state.Resolve("m-2", "")
	if m.GetId() != 4 || m.GetInstance() != 2 || m.GetVersion() != "1" {
		t.Errorf("got %v", m)
	}
	equal(t, "the same again", l.ok(&logpb.LoadModel{Name: "m", Source: "a", Instances: 3}).GetModelIds(), []uint64{2, 3, 4})
	equal(t, "more of them", l.ok(&logpb.LoadModel{Name: "m", Source: "a", Instances: 4}).GetModelIds(), []uint64{2, 3, 4, 5})
	equal(t, "one instance keeps its name", l.ok(&logpb.LoadModel{Name: "m", Source: "a", Instances: 1}).GetModelIds(), []uint64{6})
	if l.state.Resolve("m", "1") == nil {
		t.Error("no model m")
	}
	// One of many in conflict: none is added.
	l.ok(&logpb.LoadModel{Name: "n-1", Source: "other"})
	l.refused(&logpb.LoadModel{Name: "n", Source: "a", Instances: 2}, logpb.Reason_REASON_CONFLICT, `"n-1"`)
}

func TestWantingTheSameOrAnother(t *testing.T) {
	base := func() *logpb.LoadModel {
		return &logpb.LoadModel{Name: "m", Source: "a", Engine: "gomlx", SloNs: 5, Copies: 1, Constraints: []*logpb.Label{{Key: "k"}}}
	}
	l := newCluster(t)
	l.ok(base())
	for words, change := range map[string]func(*logpb.LoadModel){
		`source, "a"`:             func(c *logpb.LoadModel) { c.Source = "b" },
		`engine, "gomlx"`:         func(c *logpb.LoadModel) { c.Engine = "emulated" },
		"latency objective, 5 ns": func(c *logpb.LoadModel) { c.SloNs = 6 },
		"limit of rows, 0":        func(c *logpb.LoadModel) { c.MaxRows = 1 },
		"number of copies, 1":     func(c *logpb.LoadModel) { c.Copies = 0 },
		"set of constraints":      func(c *logpb.LoadModel) { c.Constraints = nil },
	} {
		c := base()
		change(c)
		l.refused(c, logpb.Reason_REASON_CONFLICT, words, "unload it first, or choose another version")
	}
	equal(t, "the same", l.ok(base()).GetModelIds(), []uint64{1})
	same := base()
	same.Engine, same.Version, same.Source = "", "1", "./a"
	equal(t, "the same in other words", l.ok(same).GetModelIds(), []uint64{1})
	other := base()
	other.Version, other.Source = "2", "b"
	equal(t, "another version", l.ok(other).GetModelIds(), []uint64{2})
}

func TestLateLoads(t *testing.T) {
	l := serving(t)
	late := &logpb.LoadModel{Name: "late", Source: "a"}
	l.refused(late, logpb.Reason_REASON_LATE_LOAD, "late_loads=admit")
	equal(t, "what is wanted already is not late", l.ok(&logpb.LoadModel{Name: "m", Source: "a.onnx"}).GetModelIds(), []uint64{1})
	l.refused(&logpb.LoadModel{Name: "m", Source: "b"}, logpb.Reason_REASON_CONFLICT)

	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	equal(t, "ids", l.ok(late).GetModelIds(), []uint64{2})
	equal(t, "phase", l.state.Phase(), logpb.Phase_PHASE_SERVING)
}

func TestUnload(t *testing.T) {
	l := serving(t)
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	l.ok(&logpb.LoadModel{Name: "m", Version: "3", Source: "a"})
	l.ok(&logpb.LoadModel{Name: "m", Version: "2", Source: "a"})
	l.refused(&logpb.UnloadModel{Name: "x"}, logpb.Reason_REASON_UNKNOWN_MODEL, `no model "x"`)
	l.refused(&logpb.UnloadModel{Name: "m", Version: "4"}, logpb.Reason_REASON_UNKNOWN_MODEL, `version "4" of model "m"`)
	equal(t, "one version", l.ok(&logpb.UnloadModel{Name: "m", Version: "2"}).GetModelIds(), []uint64{3})
	equal(t, "all versions", l.ok(&logpb.UnloadModel{Name: "m"}).GetModelIds(), []uint64{1, 2})
	equal(t, "models", len(l.state.Models()), 0)
	equal(t, "holdings", len(l.state.holdings), 0)
	equal(t, "versions", len(l.state.versions), 0)
	equal(t, "an id is not used again", l.ok(&logpb.LoadModel{Name: "m", Source: "a"}).GetModelIds(), []uint64{4})
}

func TestResolve(t *testing.T) {
	l := newCluster(t)
	l.ok(register("w1", "i1"))
	for _, version := range []string{"9", "10", "2"} {
		l.ok(&logpb.LoadModel{Name: "m", Version: version, Source: "a"})
	}
	version := func(v string) string { return l.state.Resolve("m", v).GetVersion() }
	equal(t, "none is loaded", version(""), "10")
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(3, "w1", "i1", digestA), failed(2, "w1", "i1")}})
	equal(t, "2 is loaded", version(""), "2")
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(1, "w1", "i1", digestA)}})
	equal(t, "9 as well", version(""), "9")
	equal(t, "by its version", version("10"), "10")
	if l.state.Resolve("m", "3") != nil || l.state.Resolve("n", "") != nil || l.state.Model(9) != nil {
		t.Error("found what isn't there")
	}
}

func TestABlamedModelHasNoTargets(t *testing.T) {
	l := serving(t)
	l.ok(&logpb.RaiseVersion{To: 3})
	l.refused(&logpb.SetModelBlame{ModelId: 7, Blame: "x"}, logpb.Reason_REASON_UNKNOWN_MODEL, "id 7")
	equal(t, "ids", l.ok(&logpb.SetModelBlame{ModelId: 1, Blame: "w1 died with it"}).GetModelIds(), []uint64{1})
	equal(t, "targets", names(l.state.Targets(l.state.Model(1))), "")
	equal(t, "holdings", len(l.state.Holdings(1)), 2)
	equal(t, "pending", l.state.Pending(), 0)
	l.ok(&logpb.SetModelBlame{ModelId: 1})
	equal(t, "targets", names(l.state.Targets(l.state.Model(1))), "w1 w2")
}
