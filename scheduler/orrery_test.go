package scheduler

import (
	"testing"
	"time"
)

// Requests that are given up as their only worker is lost could have been answered at
// no instant that is known, not before the beginning of time.
func TestGivenUpWithoutAWorker(t *testing.T) {
	f := newFakeFleet(newNamed("orrery", Options{}), t.Fatalf)
	s := resnets(1, 1, 100)
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	f.start(s)
	f.completed = func(r Request, c Completion) {
		if c.Possible < 0 {
			t.Errorf("request %d: %v, possible at %d", r.ID, c.Reason, c.Possible)
		}
	}
	id := RequestID(0)
	for range 400 {
		for range 4 {
			id++
			f.step(f.submit(Request{ID: id, Model: 1, Rows: 1, Arrived: f.now, Deadline: f.now.Add(100 * ms)}))
		}
		f.run(f.now.Add(ms))
	}
	before := f.reasons[GivenUp]
	f.step(f.workerDown("w1", false))
	f.run(f.now.Add(2 * time.Second))
	if f.reasons[GivenUp] == before {
		t.Errorf("nothing was given up without a worker: %v", f.reasons)
	}
}

// What comes back from a worker is judged by the policy of now.
func TestRankDoesNotOutliveThePolicy(t *testing.T) {
	p := newNamed("orrery", Options{})
	s := resnets(1, 1, 100)
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	f := newFakeFleet(p, t.Fatalf)
	f.start(s)
	f.step(f.submit(Request{ID: 1, Model: 1, Rows: 16, Priority: 1}))
	f.step(PolicyChanged{"fifo"})
	f.step(f.workerDown("w1", false))
	if r := p.requests[1]; !r.waits || r.rank != 0 || r.tenant != nil {
		t.Errorf("it waits: %v, of rank %d", r.waits, r.rank)
	}
}

// A device looks past the most urgent models when it is too slow for all of them.
func TestSlowDeviceIsNotLeftIdle(t *testing.T) {
	const others = 2 * lookahead
	last := ModelID(others + 1)
	p := newNamed("orrery", Options{})
	s := warm(2, others+1)
	for i := range s.Models {
		s.Models[i].MaxRows = 1
		s.Profiles[i].Execution = []RowsTime{{1, 10 * ms}}
	}
	// Only the slow one has the last model.
	s.Workers[0].Devices[0].Resident = s.Workers[0].Devices[0].Resident[:others]
	s.Workers[0].Holds = s.Workers[0].Holds[:others]
	f := newFakeFleet(p, t.Fatalf)
	f.fate = func(a Action) fakeFate {
		if a.Kind == Infer && a.Worker == "w2" {
			return fakeFate{duration: 30 * ms}
		}
		return fakeFate{duration: a.Expected}
	}
	f.start(s)
	id := RequestID(0)
	ask := func(m ModelID, d time.Duration) Event {
		id++
		return f.submit(Request{ID: id, Model: m, Rows: 1, Arrived: f.now, Deadline: f.now.Add(d)})
	}
	for range 5 {
		f.step(ask(last, time.Second))
		f.run(f.now.Add(50 * ms))
	}
	if p.devices[1].pace.at(f.now) == 0 {
		t.Fatal("it is not known to be slow")
	}
	done := 0
	f.completed = func(r Request, c Completion) {
		if r.Model == last && c.Reason == Done {
			done++
		}
	}
	for i := range 300 {
		var events []Event
		for j := range 3 {
			events = append(events, ask(ModelID(1+(3*i+j)%others), 29*ms))
		}
		if i < 250 && i%50 == 0 {
			events = append(events, ask(last, time.Second))
		}
		f.step(events...)
		f.run(f.now.Add(ms))
	}
	if done != 5 {
		t.Errorf("it has answered %d of the 5 requests that only it could", done)
	}
}

// What is lost on another device is no reason to let a full batch go before what is more
// urgent, as long as both can be in time.
func TestLossesElsewhereDoNotCount(t *testing.T) {
	s := resnets(2, 3, 100)
	s.Models[1].MaxRows, s.Profiles[1].Execution = 1, []RowsTime{{1, 4 * ms}}
	s.Workers[0].Holds, s.Workers[0].Devices[0].Resident = []ModelID{1, 2}, []Resident{{1, 7}, {2, 7}}
	s.Workers[1].Holds, s.Workers[1].Devices[0].Resident = []ModelID{3}, []Resident{{3, 7}}
	p := newNamed("orrery", Options{})
	f := newFakeFleet(p, t.Fatalf)
	f.start(s)
	id := RequestID(0)
	ask := func(m ModelID, rows int, d time.Duration) Event {
		id++
		return f.submit(Request{ID: id, Model: m, Rows: rows, Arrived: f.now, Deadline: f.now.Add(d)})
	}
	for range 10 {
		f.step(ask(3, 16, 25*ms))
	}
	f.run(f.now.Add(30 * ms))
	if p.lastMiss == 0 {
		t.Fatal("nothing was lost")
	}
	f.completed = func(r Request, c Completion) {
		if c.Reason != Done {
			t.Errorf("a request for model %d ended with %v", r.Model, c.Reason)
		}
	}
	events := []Event{ask(2, 1, 20*ms)}
	for range 16 {
		events = append(events, ask(1, 1, 500*ms))
	}
	f.step(events...)
	f.run(f.now.Add(600 * ms))
}

// However much waits without a deadline, requests with one are not given up for it; once
// one of them had been too late, all were, for as long as the others waited.
func TestBestEffortIsInNobodysWay(t *testing.T) {
	f := newFakeFleet(newNamed("orrery", Options{}), t.Fatalf)
	f.start(warm(1, 1))
	id := RequestID(0)
	ask := func(d time.Duration) Event {
		id++
		r := Request{ID: id, Model: 1, Rows: 1, Arrived: f.now}
		if d > 0 {
			r.Deadline = f.now.Add(d)
		}
		return f.submit(r)
	}
	var events []Event
	for range 2000 {
		events = append(events, ask(0))
	}
	f.step(events...)
	f.step(ask(5 * ms)) // too late: the device is busy
	f.run(f.now.Add(20 * ms))
	before := f.reasons[TooLate] + f.reasons[GivenUp]
	lost := 0
	f.completed = func(r Request, c Completion) {
		if r.Deadline != 0 && c.Reason != Done {
			lost++
		}
	}
	for range 50 {
		f.step(ask(100 * ms))
		f.run(f.now.Add(20 * ms))
	}
	if before != 1 || lost > 0 {
		t.Errorf("%d were too late, and then %d of 50 were lost", before, lost)
	}
}
