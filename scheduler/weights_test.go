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
