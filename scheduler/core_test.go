package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

func TestEstimateIgnoresOneOutlier(t *testing.T) {
	for _, test := range []struct {
		name     string
		measured []time.Duration
		want     time.Duration
	}{
		{"nothing measured: the profile", nil, 10 * ms},
		{"few, below the profile: still the profile", []time.Duration{7 * ms, 7 * ms}, 10 * ms},
		{"one, above the profile: an outlier", []time.Duration{12 * ms}, 10 * ms},
		{"few, above the profile", []time.Duration{12 * ms, 14 * ms}, 12 * ms},
		{"few, one of them above the profile", []time.Duration{7 * ms, 14 * ms, 7 * ms}, 10 * ms},
		{"five: the profile no longer counts", []time.Duration{7 * ms, 7 * ms, 7 * ms, 7 * ms, 7 * ms}, 7 * ms},
		{"one outlier", []time.Duration{7 * ms, 7 * ms, 90 * ms, 7 * ms, 8 * ms}, 8 * ms},
		{"twice is no outlier", []time.Duration{7 * ms, 90 * ms, 90 * ms, 7 * ms, 8 * ms}, 90 * ms},
		{"only the last ten count", append(slices.Repeat([]time.Duration{90 * ms}, 5),
			slices.Repeat([]time.Duration{6 * ms}, 10)...), 6 * ms},
		{"no measurement", []time.Duration{0, -1}, 10 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w window
			w.reset(10 * ms)
			for i, d := range test.measured {
				w.record(Instant(i), d)
			}
			if got := w.estimate(100); got != test.want {
				t.Errorf("estimate is %v, want %v", got, test.want)
			}
		})
	}
}

// An estimate above every deadline would never be measured again.
func TestBadEstimatesAreForgotten(t *testing.T) {
	f := newFakeFleet(newEDF(Options{}), t.Fatalf)
	s := resnets(1, 1, 100)
	slow := 0
	f.fate = func(a Action) fakeFate {
		if a.Kind == Infer && slow < 3 {
			slow++
			return fakeFate{duration: 400 * ms}
		}
		return fakeFate{duration: trueTime(a)}
	}
	f.start(s)
	id := RequestID(0)
	for range 600 {
		id++
		f.step(f.submit(Request{ID: id, Model: 1, Rows: 1, Arrived: f.now, Deadline: f.now.Add(100 * ms)}))
		f.run(f.now.Add(20 * ms))
	}
	if lost := f.reasons[Infeasible] + f.reasons[TooLate]; lost < 50 {
		t.Errorf("the slow phase had no effect: %v", f.reasons)
	}
	if f.reasons[Done] < 300 {
		t.Errorf("it did not recover: %v", f.reasons)
	}
}

func TestExecutionBetweenAndBeyondTheProfile(t *testing.T) {
	var m timing
	m.seed(&Profile{Execution: []RowsTime{{1, 3 * ms}, {4, 8 * ms}}})
	for rows, want := range map[int]time.Duration{1: 3 * ms, 2: 3*ms + 5*ms/3, 3: 3*ms + 10*ms/3, 4: 8 * ms, 5: 16 * ms, 9: 24 * ms} {
		if got := m.execution(0, rows); got != want {
			t.Errorf("%d rows take %v, want %v", rows, got, want)
		}
	}
	// A larger batch never takes less.
	for i := range 5 {
		m.record(Instant(i), 1, 20*ms)
	}
	if got := m.execution(5, 4); got != 20*ms {
		t.Errorf("4 rows take %v, want 20ms", got)
	}
}

// Results may overtake each other on the way; the sum of what is left stays right.
func TestLaneKeepsCount(t *testing.T) {
	var l lane
	trip := &roundTrip{}
	var actions []*action
	for i := range 4 {
		a := &action{Action: Action{Expected: time.Duration(i+1) * ms}}
		actions = append(actions, a)
		l.add(0, a, trip)
	}
	for _, step := range []struct {
		at     time.Duration
		remove int
		free   time.Duration
	}{{0, 2, 7 * ms}, {1 * ms, 0, 7 * ms}, {5 * ms, 1, 9 * ms}, {6 * ms, 3, 6 * ms}} {
		l.remove(Instant(step.at), actions[step.remove], trip)
		if got := l.free(Instant(step.at)); got != Instant(step.free) {
			t.Errorf("at %v free at %v, want %v", step.at, time.Duration(got), step.free)
		}
	}
	l.remove(0, actions[0], trip)
	if l.lateAt() != 0 || l.behind != 0 {
		t.Errorf("an empty lane is late at %v, %v behind", l.lateAt(), l.behind)
	}
}

// What waits is handed over to another policy, and what runs goes on.
func TestPolicyIsChangedUnderLoad(t *testing.T) {
	for _, to := range Policies() {
		f := newFakeFleet(newEDF(Options{}), t.Fatalf)
		s := resnets(1, 2, 100)
		s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
		f.start(s)
		var events []Event
		for id := RequestID(1); id <= 40; id++ {
			r := Request{ID: id, Model: 1 + ModelID(id%2), Rows: 1, Class: fmt.Sprint(id % 3), Arrived: f.now}
			if id%4 == 0 {
				r.Deadline = f.now.Add(time.Second - time.Duration(id)*ms)
			}
			events = append(events, f.submit(r))
		}
		f.step(events...)
		if n := len(f.policy.(*core).active); n == 0 {
			t.Fatal("nothing waits")
		}
		f.step(PolicyChanged{"nosuch"})
		f.step(PolicyChanged{to})
		f.run(Instant(2 * time.Second))
		if f.reasons[Done] != 40 {
			t.Errorf("%s completed %v, want all 40", to, f.reasons)
		}
	}
}

// A request of several rows came behind one whose deadline had not been noted.
func TestDeadlineIsKeptWhenSeveralRowsComeBehind(t *testing.T) {
	f := newFakeFleet(newEDF(Options{}), t.Fatalf)
	f.now = Instant(time.Second)
	s := resnets(1, 1, 100)
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	f.start(s)
	first := f.submit(Request{ID: 1, Model: 1, Rows: 16, Arrived: f.now})
	f.step(first) // The device is busy for 17 ms.
	f.step(f.submit(Request{ID: 2, Model: 1, Rows: 1, Arrived: f.now, Deadline: f.now.Add(10 * ms)}),
		f.submit(Request{ID: 3, Model: 1, Rows: 2, Arrived: f.now}))
	f.run(f.now.Add(100 * ms)) // The fleet checks that nothing ends after its deadline.
	if f.reasons[TooLate] != 1 || f.reasons[Done] != 2 {
		t.Errorf("%v", f.reasons)
	}
}

// A request without a deadline ranks behind those with one, but not for ever.
func TestBestEffortIsNotStarved(t *testing.T) {
	f := newFakeFleet(newEDF(Options{BestEffortAge: time.Second}), t.Fatalf)
	s := resnets(1, 2, 100)
	s.Models[0].MaxRows, s.Models[1].MaxRows = 1, 1
	f.start(s)
	var when Instant
	f.completed = func(r Request, c Completion) {
		if r.Deadline == 0 {
			when = f.now
		}
	}
	f.step(f.submit(Request{ID: 1, Model: 2, Rows: 1}))
	f.run(Instant(20 * ms)) // It has run; the next one meets a full device.
	when = 0
	born := f.now
	for id := RequestID(2); f.now < born.Add(3*time.Second); id++ {
		if id == 10 {
			f.step(f.submit(Request{ID: id, Model: 2, Rows: 1, Arrived: f.now}))
			continue
		}
		f.step(f.submit(Request{ID: id, Model: 1, Rows: 1, Arrived: f.now, Deadline: f.now.Add(100 * ms)}))
		f.run(f.now.Add(2 * ms)) // 2.73 ms would be needed
	}
	if waited := when.Sub(born); waited < 500*ms || waited > 1500*ms {
		t.Errorf("best effort was answered after %v, want about 1s", waited)
	}
}

// Requests of one row and of several come in one step: each is given up in time.
func TestMixedRowsAreNotCompletedAfterTheirDeadline(t *testing.T) {
	for _, order := range [][]int{{1, 2}, {2, 1}, {1, 1, 3}} {
		f := newFakeFleet(newEDF(Options{}), t.Fatalf)
		f.start(resnets(1, 1, 100))
		f.ask(1, 0, 100)
		f.fate = func(a Action) fakeFate { return fakeFate{silent: true} }
		f.run(Instant(30 * ms)) // The device has 100, and does not answer.
		var events []Event
		for i, rows := range order {
			r := Request{ID: RequestID(i + 1), Model: 1, Rows: rows, Arrived: f.now}
			if rows == 1 {
				r.Deadline = f.now.Add(20 * ms)
			}
			events = append(events, f.submit(r))
		}
		f.step(events...)
		f.run(Instant(50 * ms))
		if want := len(order) - 1; order[0] < 3 && f.reasons[TooLate] == 0 || f.reasons[TooLate] > want {
			t.Errorf("rows %v: %v", order, f.reasons)
		}
	}
}

// A model rests on the first device, where it has failed: that is no reason to let
// it wait when another one is idle.
func TestDeviceThatFailsDoesNotKeepWorkFromOthers(t *testing.T) {
	f := warmed(t, 2, 1, 1)
	f.fate = func(a Action) fakeFate {
		if a.Worker == "w1" {
			return fakeFate{outcome: Failed, duration: ms}
		}
		return fakeFate{duration: trueTime(a)}
	}
	f.ask(1, 0, 1)
	f.run(Instant(5 * ms))
	if f.reasons[ExecutionFailed] != 1 {
		t.Fatalf("requests: %v", f.reasons)
	}
	f.ask(1, 0, 2)
	if f.actions != 2 {
		t.Error("the next request waits, although w2 is idle")
	}
	f.run(Instant(20 * ms))
	if f.reasons[Done] != 1 {
		t.Errorf("requests: %v", f.reasons)
	}
}

// Of idle devices the one that is done first is used, also when both kinds are in
// one worker.
func TestTheFasterKindIsUsed(t *testing.T) {
	for _, together := range []bool{true, false} {
		s := resnets(2, 1, 100)
		slow, fast := s.Workers[0].Devices[0], s.Workers[1].Devices[0]
		slow.Kind, slow.Resident, fast.Resident = "K80", []Resident{{1, 7}}, []Resident{{1, 7}}
		s.Profiles = append(s.Profiles, Profile{Model: 1, DeviceKind: "K80", Execution: []RowsTime{{16, 90 * ms}}})
		s.Workers[0].Devices, s.Workers[1].Devices = []Device{slow}, []Device{fast}
		if together {
			s.Workers[0].Devices, s.Workers = []Device{slow, fast}, s.Workers[:1]
		}
		p := newEDF(Options{})
		var out Decisions
		p.Step(1, []Event{Start{s}}, &out)
		p.Step(2, []Event{Submit{&Request{ID: 1, Model: 1, Rows: 1}}}, &out)
		if len(out.Actions) != 1 || p.actions[out.Actions[0].ID].place.device.kind != "V100" {
			t.Errorf("in one worker: %v: %+v", together, out.Actions)
		}
	}
}

// What is said of a model may come in any order.
func TestModelIsUsableOnceAllIsKnown(t *testing.T) {
	m, profile := resnet(1, "V100")
	events := []Event{ModelAdded{&m}, ProfileChanged{&profile}, Held{"w1", []ModelID{1}}}
	for first := range events {
		for second := range events {
			if first == second {
				continue
			}
			third := 3 - first - second
			f := newFakeFleet(newEDF(Options{}), t.Fatalf)
			s := resnets(1, 0, 100)
			s.Workers[0].Holds = nil
			f.start(s)
			f.models[1], f.workers["w1"].spec.Holds = m, []ModelID{1}
			f.step(events[first])
			f.step(events[second])
			f.ask(1, 0, 1)
			f.step(events[third])
			f.ask(1, 0, 2)
			f.run(Instant(100 * ms))
			if lost := f.reasons[UnknownModel] + f.reasons[NoWorker]; lost != 1 || f.reasons[Done] != 1 {
				t.Errorf("after %T, %T and %T: %v", events[first], events[second], events[third], f.reasons)
			}
			f.step(ModelRemoved{1})
			if n := f.policy.(*core).models[1].usable; n != 0 {
				t.Errorf("it has been removed and is usable at %d places", n)
			}
		}
	}
}

// A result has weights evicted, and in the same step their worker is lost, or there
// is another one of its name: the eviction is not for that one.
func TestNothingIsSentToAWorkerThatIsGone(t *testing.T) {
	for _, test := range []struct {
		then Event
		want int // actions
	}{
		{WorkerDown{Name: "w1"}, 0},
		{WorkerUp{&Worker{Name: "w1", Devices: []Device{{Kind: "V100", Pages: 100}}}}, 0},
		{WorkerUp{&Worker{Name: "w1", Devices: []Device{{Kind: "V100", Pages: 100, Resident: []Resident{{1, 7}}}}}}, 1},
	} {
		f := warmed(t, 1, 1, 1)
		f.ask(1, 0, 1)
		f.step(ModelRemoved{1})
		var out Decisions
		f.policy.Step(Instant(5*ms), []Event{Finished{&Result{Action: 1, Engine: 3 * ms}}, test.then}, &out)
		if len(out.Actions) != test.want || len(f.policy.(*core).actions) != test.want {
			t.Errorf("after %+v: %+v", test.then, out.Actions)
		}
	}
}

// Whatever always fails is tried again, but not in a hot loop.
func TestFailuresDoNotLoop(t *testing.T) {
	for _, test := range []struct {
		name string
		fate func(a Action) fakeFate
	}{
		{"loads are refused", func(a Action) fakeFate { return fakeFate{outcome: Refused} }},
		{"loads fail", func(a Action) fakeFate { return fakeFate{outcome: Failed, duration: ms} }},
		{"infers are refused", func(a Action) fakeFate {
			if a.Kind == Infer {
				return fakeFate{outcome: Refused}
			}
			return fakeFate{duration: ms}
		}},
		{"weights are never there", func(a Action) fakeFate {
			if a.Kind == Infer {
				return fakeFate{outcome: Refused, absent: true}
			}
			return fakeFate{duration: ms}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeFleet(newEDF(Options{}), t.Fatalf)
			f.fate = test.fate
			f.start(resnets(1, 1, 100))
			f.step(f.submit(Request{ID: 1, Model: 1, Rows: 1}))
			f.run(Instant(10 * time.Second))
			if f.actions < 5 || f.actions > 50 {
				t.Errorf("%d actions in 10 s, want some and not many", f.actions)
			}
			f.fate = nil
			f.run(Instant(15 * time.Second))
			if f.reasons[Done] != 1 {
				t.Error("it never recovered")
			}
		})
	}
}

func TestSameEventsSameDecisions(t *testing.T) {
	play := func() (all []Decisions) {
		rng := rand.New(rand.NewPCG(7, 7))
		p := newEDF(Options{})
		s := resnets(3, 12, 28)
		var now Instant
		id := RequestID(0)
		events := []Event{Start{s}}
		for range 2000 {
			var out Decisions
			p.Step(now, events, &out)
			all = append(all, out)
			events = nil
			now = now.Add(time.Duration(rng.IntN(2000)) * time.Microsecond)
			for _, a := range out.Actions {
				events = append(events, Finished{&Result{Action: a.ID, Engine: a.Expected, Outcome: Outcome(rng.IntN(20) / 18)}})
			}
			for range rng.IntN(6) {
				id++
				events = append(events, Submit{&Request{ID: id, Model: ModelID(1 + rng.IntN(12)), Rows: 1,
					Arrived: now, Deadline: now.Add(time.Duration(10+rng.IntN(90)) * ms)}})
			}
		}
		return all
	}
	if diff := cmp.Diff(play(), play()); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
}

// A result that comes back in the same step as the deadline is in time; one
// that comes after it is not.
func TestResultAtTheDeadline(t *testing.T) {
	for late, want := range map[time.Duration]Reason{0: Done, 1: DeadlinePassed} {
		p := newEDF(Options{})
		s := resnets(1, 1, 100)
		s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
		deadline := Instant(20 * ms)
		var out Decisions
		p.Step(0, []Event{Start{s}, Submit{&Request{ID: 1, Model: 1, Rows: 1, Deadline: deadline}}}, &out)
		if len(out.Actions) != 1 || out.Wake == 0 || out.Wake > deadline {
			t.Fatalf("%d actions, wake at %d", len(out.Actions), out.Wake)
		}
		done := Finished{&Result{Action: out.Actions[0].ID, Engine: 3 * ms}}
		out.Reset()
		p.Step(deadline.Add(late), []Event{done}, &out)
		if len(out.Completions) != 1 || out.Completions[0].Reason != want {
			t.Errorf("%v after the deadline: %+v, want %v", late, out.Completions, want)
		}
	}
}
