package scheduler

import "testing"

func TestReportThatDoesNotFitIsIgnored(t *testing.T) {
	p := newEDF(Options{})
	s := resnets(1, 2, 100)
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	var out Decisions
	p.Step(0, []Event{Start{s}}, &out)
	empty := Device{}
	for name, w := range map[string]*Worker{
		"no devices":      {Name: "w1"},
		"a device more":   {Name: "w1", Devices: []Device{empty, empty}},
		"unknown":         {Name: "w2", Devices: []Device{empty}},
		"what it had":     {Name: "w1", Devices: []Device{{Resident: []Resident{{1, 7}}}}},
		"said repeatedly": {Name: "w1", Devices: []Device{{Resident: []Resident{{1, 7}, {1, 9}}}}},
	} {
		out.Reset()
		p.Step(1, []Event{Reported{w}}, &out)
		if len(out.Repairs) > 0 {
			t.Errorf("%s: repaired %v", name, out.Repairs)
		}
	}
	out.Reset()
	p.Step(2, []Event{Reported{&Worker{Name: "w1", Devices: []Device{{}}}}}, &out)
	if len(out.Repairs) != 1 || out.Repairs[0] != (Repair{"w1", 0, 1, false}) {
		t.Errorf("repaired %v", out.Repairs)
	}
}

// Holds is not meant by a report.
func TestReportLeavesWhatIsHeld(t *testing.T) {
	f := warmed(t, 1, 1, 1)
	f.step(Reported{&Worker{Name: "w1", Devices: []Device{{Resident: []Resident{{1, 7}}}}}})
	f.ask(1, 0, 1)
	f.run(Instant(50 * ms))
	if f.reasons[Done] != 1 || f.actions != 1 {
		t.Errorf("%d actions, requests: %v", f.actions, f.reasons)
	}
}

// Weights that nobody holds or wants leave no trace when they have gone.
func TestReportForgetsPlaces(t *testing.T) {
	p := newEDF(Options{})
	s := resnets(1, 2, 100)
	s.Workers[0].Holds = []ModelID{1}
	s.Workers[0].Devices[0].Resident = []Resident{{2, 7}}
	var out Decisions
	p.Step(0, []Event{Start{s}, Reported{&Worker{Name: "w1", Devices: []Device{{}}}}}, &out)
	if d := p.devices[0]; len(out.Repairs) != 1 || len(d.places) != 1 || d.used != 0 {
		t.Errorf("repaired %v, %d places and %d pages are left", out.Repairs, len(d.places), d.used)
	}
}

// Weights of a removed model that could not be evicted are tried again with the next
// report.
func TestRemovedModelIsEvictedAgain(t *testing.T) {
	p := newNamed("orrery", Options{})
	s := resnets(1, 1, 100)
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	var out Decisions
	p.Step(1, []Event{Start{s}, ModelRemoved{1}, Held{Worker: "w1"}}, &out)
	if len(out.Actions) != 1 {
		t.Fatalf("actions: %v, want an eviction", out.Actions)
	}
	failed := &Result{Action: out.Actions[0].ID, Outcome: Failed}
	report := &Worker{Name: "w1", Devices: []Device{{Resident: []Resident{{1, 7}}}}}
	out.Reset()
	p.Step(2, []Event{Finished{failed}, Reported{report}}, &out)
	if len(out.Actions) != 1 || out.Actions[0].Kind != EvictWeights {
		t.Fatalf("actions: %v, want an eviction", out.Actions)
	}
	p.Step(3, []Event{Finished{&Result{Action: out.Actions[0].ID}}, ProfileChanged{&s.Profiles[0]}}, &out)
	if n := len(p.models); n != 0 || p.devices[0].used != 0 {
		t.Errorf("%d records and %d pages are left", n, p.devices[0].used)
	}
}
