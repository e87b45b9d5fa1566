package fsm

import (
	"slices"
	"testing"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestTargets(t *testing.T) {
	l := newCluster(t)
	for _, name := range []string{"w1", "w2", "w3", "w4", "w5"} {
		l.ok(register(name, "i1"))
	}
	l.ok(&logpb.SetWorkerStatus{Name: "w5", Status: logpb.WorkerStatus_WORKER_STATUS_CORDONED})
	zone := register("w4", "i1")
	zone.Worker.Labels[0].Value = "b"
	l.ok(zone)
	other := register("w3", "i1")
	other.Worker.Engines = append(other.Worker.Engines, &logpb.Engine{Name: "onnxruntime"}, &logpb.Engine{Name: "idle"})
	other.Worker.Devices[0].Engines = []string{"gomlx", "onnxruntime"}
	l.ok(other)
	l.ok(&logpb.RegisterWorker{Worker: &logpb.Worker{
		Name: "http", Incarnation: "i", Kind: logpb.WorkerKind_WORKER_KIND_HTTP, SessionAddress: "http://h", Speed: 1,
	}})

	for _, c := range []struct {
		what, want string
		model      *logpb.Model
	}{
		{"all", "w1 w2 w3 w4", &logpb.Model{}},
		{"by engine", "w3", &logpb.Model{Engine: "onnxruntime"}},
		{"by an engine that no device may use", "", &logpb.Model{Engine: "idle"}},
		{"by label", "w4", &logpb.Model{Constraints: []*logpb.Label{{Key: "zone", Value: "b"}}}},
		{"by a label that none has", "", &logpb.Model{Constraints: []*logpb.Label{{Key: "rack", Value: "b"}}}},
		{"more copies than workers", "w1 w2 w3 w4", &logpb.Model{Copies: 7}},
	} {
		equal(t, c.what, names(l.state.Targets(c.model)), c.want)
	}
}

func TestCopiesMoveLittle(t *testing.T) {
	l := newCluster(t)
	all := []string{"w1", "w2", "w3", "w4"}
	for _, name := range all {
		l.ok(register(name, "i1"))
	}
	l.ok(&logpb.LoadModel{Name: "m", Source: "a", Copies: 1})
	target := func() string { return names(l.state.Targets(l.state.Model(1))) }
	first := target()
	last := all[slices.IndexFunc(all, func(name string) bool { return name != first })]

	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{pending(1, last, "i1")}})
	equal(t, "who is loading it goes before others", target(), last)
	equal(t, "pending", l.state.Pending(), 1)
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(1, first, "i1", digestA)}})
	equal(t, "who has it goes first", target(), first)
	equal(t, "pending", l.state.Pending(), 0)
	l.ok(&logpb.SetWorkerStatus{Name: first, Status: logpb.WorkerStatus_WORKER_STATUS_LOST})
	equal(t, "after a loss", target(), last)
	for _, name := range all {
		equal(t, "who failed goes last", target() != "" && l.state.Pending() == 1, true)
		l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{failed(1, name, "i1")}})
	}
	equal(t, "pending when all have failed", l.state.Pending(), 0)
}

func TestCopiesSpread(t *testing.T) {
	l := newCluster(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		l.ok(register(name, "i1"))
	}
	l.ok(&logpb.LoadModel{Name: "m", Source: "a", Copies: 1, Instances: 4000})
	equal(t, "pending", l.state.Pending(), 4000)
	count := map[string]int{}
	before := map[uint64]string{}
	for _, m := range l.state.Models() {
		before[m.GetId()] = names(l.state.Targets(m))
		count[before[m.GetId()]]++
	}
	for name, n := range count {
		if n < 900 || n > 1100 {
			t.Errorf("%s holds %d of 4000, want about 1000", name, n)
		}
	}
	l.ok(&logpb.RemoveWorker{Name: "b"})
	for _, m := range l.state.Models() {
		if was, is := before[m.GetId()], names(l.state.Targets(m)); was != "b" && was != is {
			t.Fatalf("model %d moved from %s to %s when b went", m.GetId(), was, is)
		}
	}
}

func TestPendingCountsTargetsOnly(t *testing.T) {
	l := newCluster(t)
	l.ok(&logpb.LoadModel{Name: "m", Source: "a"})
	equal(t, "without workers", l.state.Pending(), 0)
	l.ok(register("w1", "i1"))
	l.ok(register("w2", "i1"))
	equal(t, "untold", l.state.Pending(), 2)
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{pending(1, "w1", "i1"), failed(1, "w2", "i1")}})
	equal(t, "told, failed", l.state.Pending(), 1)
	l.ok(&logpb.SetWorkerStatus{Name: "w1", Status: logpb.WorkerStatus_WORKER_STATUS_LOST})
	equal(t, "lost", l.state.Pending(), 0)
}
