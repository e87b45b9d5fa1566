package scheduler

import (
	"testing"
	"time"
)

// What is bound to a device that can't run it any more is run by another one.
func TestBoundRequestsFindAnotherDevice(t *testing.T) {
	for _, test := range []struct {
		name string
		// happens to w1; the fate is that of its batches.
		happens func(f *fakeFleet) Event
		fate    func(a Action) fakeFate
	}{
		{"it is lost", func(f *fakeFleet) Event { return f.workerDown("w1", false) }, nil},
		{"it no longer holds the model", func(f *fakeFleet) Event {
			f.workers["w1"].spec.Holds = nil
			return Held{"w1", nil}
		}, nil},
		{"its weights are gone", func(f *fakeFleet) Event {
			d := f.workers["w1"].devices[0]
			clear(d.resident)
			clear(d.taken)
			f.repairs = []Repair{{"w1", 0, 1, false}}
			return Reported{&Worker{Name: "w1", Devices: []Device{{}}}}
		}, nil},
		{"it is late", nil, func(a Action) fakeFate {
			return fakeFate{duration: trueTime(a), delay: 300 * ms}
		}},
		{"it fails", nil, func(a Action) fakeFate {
			return fakeFate{outcome: Refused}
		}},
		{"it is silent", nil, func(a Action) fakeFate {
			return fakeFate{silent: true}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newCore(Options{NetworkLag: ms}, &shortestQueue{})
			f := newFakeFleet(p, t.Fatalf)
			f.now = testStart
			f.fate = func(a Action) fakeFate {
				if a.Kind == Infer && a.Worker == "w1" && test.fate != nil {
					return test.fate(a)
				}
				return fakeFate{duration: a.Expected}
			}
			f.start(warm(2, 1))
			var events []Event
			for id := RequestID(1); id <= 100; id++ {
				events = append(events, f.submit(within(id, 1, 0)))
			}
			f.step(events...)
			if p.devices[0].bound == 0 {
				t.Fatal("nothing is bound")
			}
			if test.happens != nil {
				f.step(test.happens(f))
			} else {
				f.run(f.now.Add(40 * ms))
			}
			for _, d := range p.devices {
				if n := d.bound; (n > 0) == (d.worker == "w1") {
					t.Errorf("%d requests are bound to %s", n, d.worker)
				}
			}
			f.run(testStart.Add(time.Second))
			if f.reasons[Done] != 100 {
				t.Errorf("%v, want all 100 done", f.reasons)
			}
		})
	}
}

// When a model may run again, the device that it is offered to first need not be
// the one that its requests are bound to.
func TestBoundRequestsRunWhenTheirModelMay(t *testing.T) {
	p := newCore(Options{NetworkLag: ms}, &shortestQueue{})
	r1, r2 := within(1, 1, 0), within(2, 1, 0)
	var out Decisions
	p.Step(testStart, []Event{Start{warm(2, 1)}}, &out)
	p.models[1].doubt.level = suspectLoad
	p.Step(testStart, []Event{Submit{&r1}, Submit{&r2}, Cancel{1}}, &out)
	if len(out.Actions) > 0 || p.devices[1].bound != 1 {
		t.Fatalf("%d actions, %d requests bound to w2", len(out.Actions), p.devices[1].bound)
	}
	p.Step(testStart, []Event{ModelBlamed{1, false}}, &out)
	if len(out.Actions) != 1 || out.Actions[0].Worker != "w2" {
		t.Errorf("%+v, want one on w2", out.Actions)
	}
}

// Weights that make way for others take what is bound to the device with them.
func TestBoundRequestsFollowTheWeights(t *testing.T) {
	s := warm(2, 3)
	s.Workers[0].Devices[0].Pages, s.Workers[0].Devices[0].Resident = 14, []Resident{{1, 7}, {3, 7}}
	s.Workers[1].Holds, s.Workers[1].Devices[0].Resident = []ModelID{1}, []Resident{{1, 7}}
	s.Workers[0].Speed = 1000
	p := newCore(Options{NetworkLag: ms}, &shortestQueue{})
	busy, first, bound, urgent := within(1, 3, 0), within(2, 1, 0), within(3, 1, 0), within(4, 2, 60*ms)
	busy.Rows = 16
	var out Decisions
	p.Step(testStart, []Event{Start{s}, Submit{&busy}, Submit{&first}}, &out)
	p.Step(testStart, []Event{Submit{&bound}}, &out)
	if p.devices[0].bound != 1 {
		t.Fatalf("%d requests are bound to w1", p.devices[0].bound)
	}
	out.Reset()
	p.Step(testStart, []Event{Submit{&urgent}}, &out)
	if n := len(out.Actions); n != 3 || out.Actions[0].Kind != EvictWeights || out.Actions[2].Kind != Infer || out.Actions[2].Worker != "w2" {
		t.Errorf("%+v, want w1 to evict and load, and w2 to infer", out.Actions)
	}
}
