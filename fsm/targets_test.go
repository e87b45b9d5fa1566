package fsm

import (
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

func TestCopiesAreWhereTheyWereChosenToBe(t *testing.T) {
	l := newCluster(t)
	for _, name := range []string{"w1", "w2", "w3", "w4"} {
		l.ok(register(name, "i1"))
	}
	l.ok(&logpb.LoadModel{Name: "m", Source: "a", Copies: 2})
	expect := func(what, targets string, missing, pendingLoads int) {
		t.Helper()
		m := l.state.Model(1)
		equal(t, what, names(l.state.Targets(m)), targets)
		equal(t, what+": missing", l.state.Missing(m), missing)
		equal(t, what+": pending", l.state.Pending(), pendingLoads)
	}
	update := func(updates ...*logpb.HoldingUpdate) { l.ok(&logpb.UpdateHoldings{Updates: updates}) }
	expect("nobody was chosen", "", 2, 2)
	update(pending(1, "w4", "i1"))
	expect("one was chosen", "w4", 1, 2)
	update(pending(1, "w2", "i1"), loaded(1, "w4", "i1", digestA))
	expect("one has it", "w2 w4", 0, 1)
	update(failed(1, "w2", "i1"))
	expect("one failed: another has to be chosen", "w4", 1, 1)
	update(loaded(1, "w1", "i1", digestA), pending(1, "w3", "i1"))
	expect("who has it goes first", "w1 w4", 0, 0)
	l.ok(&logpb.SetWorkerStatus{Name: "w4", Status: logpb.WorkerStatus_WORKER_STATUS_CORDONED})
	expect("one is cordoned", "w1 w3", 0, 1)
	update(failed(1, "w3", "i1"))
	expect("nobody is left who has not failed", "w1", 0, 0)
	l.ok(&logpb.RemoveWorker{Name: "w3"})
	expect("as few workers as copies: all of them", "w1 w2", 0, 0)
}

// Of more copies than are wanted, not all go from the same worker.
func TestCopiesTooManyAreDroppedEvenly(t *testing.T) {
	l := newCluster(t)
	workers := []string{"a", "b", "c", "d"}
	for _, name := range workers {
		l.ok(register(name, "i1"))
	}
	l.ok(&logpb.LoadModel{Name: "m", Source: "a", Copies: 1, Instances: 4000})
	c := &logpb.UpdateHoldings{}
	for id := range uint64(4000) {
		for _, name := range workers {
			c.Updates = append(c.Updates, loaded(id+1, name, "i1", digestA))
		}
	}
	l.ok(c)
	count := map[string]int{}
	for _, m := range l.state.Models() {
		count[names(l.state.Targets(m))]++
	}
	for _, name := range workers {
		if count[name] < 900 || count[name] > 1100 {
			t.Errorf("%s keeps %d of 4000, want about 1000", name, count[name])
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
