package scheduler

import (
	"testing"
	"time"
)

// A batch that takes a little longer than what devices are given work ahead leaves no
// room behind one whose result is late. Waking up for it again and again would be all
// that the caller does until the result comes.
func TestLateResultDoesNotWakeForRoomAllTheTime(t *testing.T) {
	s := resnets(1, 1, 100)
	s.Models[0].MaxRows = 1
	s.Profiles[0].Execution = []RowsTime{{1, 5*ms + 100}}
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	f := newFakeFleet(newNamed("orrery", Options{}), t.Fatalf)
	f.fate = func(a Action) fakeFate { return fakeFate{duration: a.Expected, delay: 2 * ms} }
	f.start(s)
	steps := 0
	f.stepped = func() { steps++ }
	for id := range RequestID(3) {
		f.step(f.submit(Request{ID: id + 1, Model: 1, Rows: 1}))
	}
	f.run(Instant(40 * ms))
	if f.reasons[Done] != 3 || steps > 50 {
		t.Errorf("%d steps for %v", steps, f.reasons)
	}
}

// The way to a far worker is no delay of it: the next batch is on its way before the
// result is back.
func TestFarWorkerIsNotLate(t *testing.T) {
	const lag = 12 * ms
	s := warm(1, 1)
	s.Models[0].MaxRows = 1
	s.Profiles[0].Execution = []RowsTime{{1, 3 * ms}}
	f := newFakeFleet(newNamed("orrery", Options{NetworkLag: lag}), t.Fatalf)
	f.lag = lag
	f.start(s)
	for id := range RequestID(500) {
		f.step(f.submit(Request{ID: id + 1, Model: 1, Rows: 1}))
	}
	f.run(Instant(time.Second))
	if n := f.reasons[Done]; n < 140 {
		t.Errorf("%d batches in a second: one after the other would be 66, and what ScheduleAhead allows is 150", n)
	}
}
