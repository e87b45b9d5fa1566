package scheduler

import (
	"slices"
	"testing"
	"time"
)

// Batches of 1, 2, 4, 8 and 16 take 2.73, 4.05, 5.88, 9.93 and 17.33 ms; the way
// there and back takes 1 ms, and another one is to spare.
func TestDeferredWaitsWhileBatchesGrow(t *testing.T) {
	us := func(n int) time.Duration { return time.Duration(n) * time.Microsecond }
	many := func(n int, d time.Duration) (all []Request) {
		for i := range n {
			all = append(all, within(RequestID(1+i), 1, d))
		}
		return all
	}
	alone := warm(1, 2)
	alone.Models[0].Batched = false
	for _, test := range []struct {
		name     string
		state    *State
		requests []Request
		want     []string
		wake     time.Duration // 0: any
	}{
		{"until two would no longer fit", warm(1, 2), many(1, 50*ms), nil, 50*ms - us(4050) - 2*ms},
		{"until four would no longer fit", warm(1, 2), many(3, 50*ms), nil, 50*ms - us(5880) - 2*ms},
		{"until the first of two is due", warm(1, 2), []Request{within(1, 1, 70*ms), within(2, 2, 60*ms)}, nil, 60*ms - us(4050) - 2*ms},
		{"one more would no longer fit", warm(1, 2), many(1, 6*ms), []string{"w1: [1]"}, 0},
		{"it is full", warm(1, 2), many(16, 90*ms), []string{"w1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]"}, 0},
		{"it has no deadline", warm(1, 2), many(2, 0), []string{"w1: [1 2]"}, 0},
		{"it can't grow", alone, many(1, 90*ms), []string{"w1: [1]"}, 0},
		{"of those due the one that has to start first", warm(1, 2), []Request{within(1, 1, 6*ms), within(2, 2, 5500*ms/1000)}, []string{"w1: [2]"}, 0},
		{"the due before the more urgent", warm(1, 2), append(many(16, 60*ms), within(20, 2, 50*ms)), []string{"w1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, wake := decided("deferred", test.state, test.requests)
			if !slices.Equal(got, test.want) {
				t.Errorf("sent %q, want %q", got, test.want)
			}
			if test.wake != 0 && wake > test.wake {
				t.Errorf("wakes after %v, want %v", wake, test.wake)
			}
		})
	}
}

// playedDeferred is which batches the policy sends in 200 ms.
func playedDeferred(t *testing.T, s *State, submitted ...[]Request) (all []Action, f *fakeFleet) {
	f = newFakeFleet(newCore(Options{NetworkLag: ms}, deferred{}), t.Fatalf)
	f.now = testStart
	f.fate = func(a Action) fakeFate {
		if a.Kind == Infer {
			all = append(all, a)
		}
		return fakeFate{duration: a.Expected}
	}
	f.start(s)
	for _, requests := range submitted {
		var events []Event
		for _, r := range requests {
			events = append(events, f.submit(r))
		}
		f.step(events...)
	}
	f.run(testStart.Add(200 * ms))
	return all, f
}

// Idle devices get what becomes due by time alone, each model at its own time.
func TestDeferredStartsInTime(t *testing.T) {
	s := warm(2, 2)
	s.Workers[1].Devices[0].Resident = s.Workers[1].Devices[0].Resident[:1]
	s.Workers[1].Holds = []ModelID{1}
	all, f := playedDeferred(t, s, []Request{within(1, 1, 60*ms), within(2, 2, 70*ms), within(3, 1, 80*ms)}, []Request{within(4, 2, 75*ms)})
	var starts []time.Duration
	for _, a := range all {
		starts = append(starts, a.Earliest.Sub(testStart).Round(ms/10))
	}
	// Both candidates are of two, and would be of three in 4.965 ms.
	if want := []time.Duration{53 * ms, 63 * ms}; !slices.Equal(starts, want) || f.reasons[Done] != 4 {
		t.Errorf("started after %v, want %v; %v", starts, want, f.reasons)
	}
}

// A device that will not be free before then gets what is due as soon as it has room.
func TestDeferredQueuesBehindTheBusy(t *testing.T) {
	wide := within(1, 1, 0)
	wide.Rows = 16                                                                           // until 18.33 ms; there is room from 13.33 ms on
	all, f := playedDeferred(t, warm(1, 2), []Request{wide}, []Request{within(2, 2, 22*ms)}) // due at 16.95 ms
	if len(all) != 2 || all[1].Earliest.Sub(testStart) > 14*ms || f.reasons[Done] != 2 {
		t.Errorf("%+v, want the second at 13.33 ms; %v", all, f.reasons)
	}
}

// A device that is about to be free does not take what an idle one can start later.
func TestDeferredLeavesBatchesToTheIdle(t *testing.T) {
	s := warm(2, 2)
	s.Workers[1].Holds, s.Workers[1].Devices[0].Resident = []ModelID{2}, []Resident{{2, 7}}
	wide := within(1, 1, 0)
	wide.Rows = 16                                                                  // until 18.33 ms
	all, _ := playedDeferred(t, s, []Request{wide}, []Request{within(2, 2, 22*ms)}) // due at 16.95 ms
	if len(all) != 2 || all[1].Worker != "w2" || all[1].Earliest.Sub(testStart) < 15*ms {
		t.Errorf("%+v, want the second on w2 after 15.95 ms", all)
	}
}
