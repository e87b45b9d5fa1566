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
