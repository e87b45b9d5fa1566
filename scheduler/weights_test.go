package scheduler

import "testing"

// One request for a model that is nowhere has its weights loaded once: another
// copy would come later than the answer.
func TestOneRequestLoadsOneCopy(t *testing.T) {
	f := newFakeFleet(newEDF(Options{}), t.Fatalf)
	f.start(resnets(4, 1, 100))
	f.ask(1, 0, 1)
	f.run(Instant(100 * ms))
	if f.actions != 2 || f.reasons[Done] != 1 {
		t.Errorf("%d actions, want a load and an Infer; requests: %v", f.actions, f.reasons)
	}
}

// What waits is looked at again, also when an event in between had weights placed.
func TestNextLookIsNotForgotten(t *testing.T) {
	p := newNamed("orrery", Options{})
	s := resnets(2, 2, 100)
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	f := newFakeFleet(p, t.Fatalf)
	f.start(s)
	for id := range RequestID(100) {
		f.step(f.submit(Request{ID: id + 1, Model: 1, Rows: 16}))
	}
	f.now = f.now.Add(ms)
	f.step(Prefetch{2, 1})
	if p.models[1].waiting == 0 || f.wake == 0 || f.wake > p.nextLook {
		t.Errorf("%d wait, the next look is due at %d, and the next step at %d", p.models[1].waiting, p.nextLook, f.wake)
	}
}
