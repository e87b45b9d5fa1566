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

// A second copy that is pinned, or asked for, has others make room for it, however
// little its model is asked for.
func TestSecondPinDisplacesOthers(t *testing.T) {
	for name, ask := range map[string]func(Model) Event{
		"pinned":     func(m Model) Event { m.Pinned = 2; return ModelAdded{&m} },
		"prefetched": func(m Model) Event { return Prefetch{m.ID, 2} },
	} {
		p := newNamed("orrery", Options{})
		s := resnets(2, 2, 7)
		s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
		s.Workers[1].Devices[0].Resident = []Resident{{2, 7}}
		f := newFakeFleet(p, t.Fatalf)
		f.start(s)
		f.step(f.submit(Request{ID: 1, Model: 2, Rows: 1}))
		f.run(f.now.Add(100 * ms))
		f.step(ask(s.Models[0]))
		f.run(f.now.Add(100 * ms))
		if n := p.models[1].present; n != 2 {
			t.Errorf("%s: it is on %d devices, want 2", name, n)
		}
	}
}

// A pin is kept also while something waits for the model all the time.
func TestSecondPinOfABusyModel(t *testing.T) {
	p := newNamed("fifo", Options{})
	s := resnets(2, 2, 14)
	s.Models[0].Pinned = 2
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	s.Workers[1].Devices[0].Resident = []Resident{{2, 7}}
	f := newFakeFleet(p, t.Fatalf)
	for _, m := range s.Models {
		f.models[m.ID] = m
	}
	for _, w := range s.Workers {
		f.raise(w)
	}
	events := []Event{Start{s}}
	for id := RequestID(1); id <= 100; id++ {
		events = append(events, f.submit(Request{ID: id, Model: ModelID(1 + id%2), Rows: 16}))
	}
	f.step(events...)
	f.run(f.now.Add(100 * ms))
	if m := p.models[1]; m.present != 2 || m.waiting == 0 {
		t.Errorf("it is on %d devices, want 2; %d wait", m.present, m.waiting)
	}
}

// What can't run is no reason to keep weights, or to load more of them.
func TestRefusedRowsAreNoDemand(t *testing.T) {
	p := newNamed("orrery", Options{})
	f := newFakeFleet(p, t.Fatalf)
	f.start(resnets(1, 1, 100))
	f.step(f.submit(Request{ID: 1, Model: 1, Rows: 1 << 40}))
	if rows := p.models[1].demand.now(f.now); f.reasons[Rejected] != 1 || rows != 0 {
		t.Errorf("requests: %v; %v rows count as demand", f.reasons, rows)
	}
}
