package controller

import (
	"slices"
	"testing"

	"github.com/orrery-project/orrery/proto/logpb"
)

// busy is a worker that is loading some models and measuring others.
func busy(name string, loading, profiling []uint64) *connection {
	w := &connection{name: name, visit: visit{held: map[uint64]*held{}, profiling: map[uint32]uint64{}, loading: len(loading)}}
	for _, id := range loading {
		w.held[id] = &held{status: logpb.HoldingStatus_HOLDING_STATUS_PENDING, loading: true}
	}
	for i, id := range profiling {
		w.profiling[uint32(i)] = id
	}
	return w
}

func TestWhatIsLoadedBesideACulpritIsNotBlamed(t *testing.T) {
	all := suspects{}
	for _, name := range []string{"w1", "w2", "w3"} { // three die with the same four loads
		if blamed := all.died(busy(name, []uint64{1, 2, 3, 4}, nil)); len(blamed) > 0 {
			t.Fatalf("%v is blamed, with others beside it", blamed)
		}
	}
	alone := busy("w4", []uint64{3}, nil)
	alone.alone = 3
	if blamed := all.died(alone); !slices.Equal(blamed, []trial{{model: 3}}) {
		t.Errorf("blamed %v", blamed)
	}
	if got := all[trial{model: 3}]; !slices.Equal(got, []string{"w1", "w4"}) {
		t.Errorf("it died with %v", got)
	}
}

func TestUnloadingAndHoldingAreNoSuspicion(t *testing.T) {
	all := suspects{}
	w := busy("w1", nil, nil)
	w.held[1] = &held{status: logpb.HoldingStatus_HOLDING_STATUS_PENDING} // on its way out
	w.held[2] = &held{status: logpb.HoldingStatus_HOLDING_STATUS_LOADED}
	if all.died(w); len(all) > 0 {
		t.Errorf("suspects %v", all)
	}
}

func TestASuspectIsTriedAlone(t *testing.T) {
	k := &coordinator{suspects: suspects{{model: 1}: {"w9"}, {2, true}: {"w9"}}, connections: map[string]*connection{}}
	for _, name := range []string{"w1", "w2"} {
		k.connections[name] = busy(name, nil, nil)
		k.connections[name].session = &session{}
	}
	w1, w2 := k.connections["w1"], k.connections["w2"]
	innocent := trial{model: 7}
	w1.loading = 1
	if k.mayTry(w1, trial{model: 1}) {
		t.Error("it is loaded beside another model")
	}
	w1.loading = 0
	w1.profiling[0] = 7
	if k.mayTry(w1, trial{model: 1}) {
		t.Error("it is loaded while another model is measured")
	}
	delete(w1.profiling, 0)
	if !k.mayTry(w1, trial{model: 1}) || w1.alone != 1 {
		t.Fatal("it is not tried")
	}
	if k.mayTry(w1, innocent) {
		t.Error("another model is loaded beside a suspect")
	}
	if k.mayTry(w2, trial{2, true}) {
		t.Error("two suspects are tried at once")
	}
	if !k.mayTry(w2, innocent) {
		t.Error("other workers have to wait")
	}
	k.tried(w1, trial{model: 1}, true)
	if len(k.suspects[trial{model: 1}]) > 0 || w1.alone != 0 || !k.mayTry(w2, trial{2, true}) {
		t.Errorf("after it survived: %v", k.suspects)
	}
	k.tried(w2, trial{2, true}, false) // put off: no proof of anything
	if len(k.suspects[trial{2, true}]) != 1 {
		t.Errorf("after a trial without an end: %v", k.suspects)
	}
}

func TestAWorkerIsAtFaultWhenOthersCan(t *testing.T) {
	fail := func(all streaks, n int) (at int) {
		for i := range n {
			if all.failed("w1", 1) {
				return i + 1
			}
		}
		return 0
	}
	everywhere := streaks{}
	if at := fail(everywhere, 100); at != 0 {
		t.Errorf("a model that fails everywhere is held against its worker after %d failures", at)
	}
	everywhere.succeeded("w2", 2)
	if at := fail(everywhere, 1); at != 0 {
		t.Error("another model's success counts")
	}
	everywhere.succeeded("w2", 1)
	if at := fail(everywhere, 1); at != 1 {
		t.Error("it is not at fault although another worker could")
	}
	mixed := streaks{}
	for range 50 {
		mixed.succeeded("w2", 1)
		if fail(mixed, streakLength-1) != 0 {
			t.Fatal("failures are counted across a success")
		}
		mixed.succeeded("w1", 3)
	}
}
