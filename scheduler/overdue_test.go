package scheduler

import (
	"slices"
	"testing"
	"time"
)

// hung is a policy with request 1 in the action #1, of 2.73 ms, at w1, and
// requests 2 and 3 behind it; nothing comes back until it is overdue, and w2
// has then been added.
func hung(t *testing.T) (p *core, out *Decisions) {
	t.Helper()
	p, out = newEDF(Options{ScheduleAhead: 10 * ms}), &Decisions{}
	s := resnets(2, 1, 100)
	s.Models[0].MaxRows = 1
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	w2 := s.Workers[1]
	w2.Devices[0].Resident = []Resident{{1, 7}}
	s.Workers = s.Workers[:1]
	events := []Event{Start{s}}
	for id := RequestID(1); id <= 3; id++ {
		events = append(events, Submit{&Request{ID: id, Model: 1, Rows: 1, Deadline: Instant(time.Second + time.Duration(id))}})
	}
	p.Step(0, events, out)
	due := out.Actions[0].Expected + 400*ms
	events = []Event{WorkerUp{&w2}}
	now := Instant(ms)
	for now < Instant(due) {
		out.Reset()
		p.Step(now, events, out)
		events = nil
		if len(out.Abandoned)+len(out.Completions) > 0 {
			t.Fatalf("at %v: %+v", time.Duration(now), out)
		}
		now = out.Wake
	}
	if now != Instant(due) {
		t.Fatalf("wants to be woken at %v, want %v", time.Duration(now), due)
	}
	out.Reset()
	p.Step(now, nil, out)
	return p, out
}

func TestOverdueRequestsGoElsewhere(t *testing.T) {
	_, out := hung(t)
	if len(out.Abandoned) != 3 || len(out.Completions) > 0 {
		t.Errorf("abandoned %v, completed %v", out.Abandoned, out.Completions)
	}
	var moved []RequestID
	for _, a := range out.Actions {
		if a.Worker != "w2" {
			t.Errorf("%+v, want it on w2", a)
		}
		moved = append(moved, a.Requests...)
	}
	if !slices.Equal(moved, []RequestID{1, 2, 3}) {
		t.Errorf("requests %v were moved", moved)
	}
}

func TestLateResultDoesNotAnswerAgain(t *testing.T) {
	for _, outcome := range []Outcome{OK, Refused, Failed, Skipped} {
		p, out := hung(t)
		late, moved := out.Abandoned[0], out.Actions[0].ID
		now := p.now.Add(ms)
		step := func(action ActionID, outcome Outcome) []Completion {
			out.Reset()
			p.Step(now, []Event{Finished{&Result{Action: action, Outcome: outcome, Engine: 3 * ms}}}, out)
			return slices.Clone(out.Completions)
		}
		if got := step(late, outcome); len(got) > 0 {
			t.Errorf("the late result %v completes %v", outcome, got)
		}
		for _, a := range out.Actions {
			if slices.Contains(a.Requests, 1) {
				t.Errorf("the late result %v has request 1 run in %+v", outcome, a)
			}
		}
		if got := step(moved, OK); len(got) != 1 || got[0].Request != 1 || got[0].Reason != Done || got[0].Action != moved {
			t.Errorf("the result of the new action completes %+v", got)
		}
	}
}

func TestLateDeviceIsBackAtOnce(t *testing.T) {
	p, out := hung(t)
	late := out.Abandoned[0]
	given := func(events ...Event) (workers []string) {
		out.Reset()
		p.Step(p.now.Add(ms), events, out)
		for _, a := range out.Actions {
			workers = append(workers, a.Worker)
		}
		return workers
	}
	submit := func(id RequestID) Event { return Submit{&Request{ID: id, Model: 1, Rows: 1}} }
	if got := given(submit(10), submit(11), submit(12), submit(13)); slices.Contains(got, "w1") {
		t.Errorf("w1 is overdue and is given work: %v", got)
	}
	if got := given(Finished{&Result{Action: late, Engine: 3 * ms}}); !slices.Contains(got, "w1") {
		t.Errorf("w1 has answered and is not given work: %v", got)
	}
}

// A device that never answers gives its requests back once, not again and
// again, and does not keep the policy awake.
func TestSilentDeviceDoesNotLoop(t *testing.T) {
	steps := 0
	f := silent(t, &steps)
	f.run(Instant(5 * time.Second))
	if f.actions != 2 || len(f.abandoned) != 1 || len(f.requests) != 1 || f.reasons[Done] > 0 {
		t.Errorf("%d actions, %d abandoned, requests: %v", f.actions, len(f.abandoned), f.reasons)
	}
	if steps > 20 || f.wake != 0 {
		t.Errorf("%d steps in 5 s, wake at %v", steps, time.Duration(f.wake))
	}
}

// silent is a fleet with a request at its only device, which never answers.
func silent(t *testing.T, steps *int) *fakeFleet {
	f := newFakeFleet(newEDF(Options{}), t.Fatalf)
	f.stepped = func() { *steps++ }
	f.fate = func(a Action) fakeFate { return fakeFate{duration: trueTime(a), silent: a.Kind == Infer} }
	f.start(resnets(1, 1, 100))
	f.ask(1, 0, 1)
	return f
}

// A result that was abandoned comes late, while another one of that device is still
// overdue: that is not a stall of the caller, and lets nobody else have more time.
func TestLateResultBuysOthersNoTime(t *testing.T) {
	p, out := hung(t)
	late, moved := out.Abandoned[1], out.Actions[0]
	if moved.Worker != "w2" {
		t.Fatalf("%+v, want it on w2", moved)
	}
	overdue := p.now.Add(moved.Expected + 400*ms)
	out.Reset()
	p.Step(overdue.Add(-ms), []Event{Finished{&Result{Action: late, Engine: 3 * ms}}}, out)
	out.Reset()
	p.Step(overdue, nil, out)
	if !slices.Contains(out.Abandoned, moved.ID) {
		t.Errorf("%v are abandoned, want #%d among them", out.Abandoned, moved.ID)
	}
}

// However far ahead devices are given work.
func TestOverdueDeviceGetsNothingNew(t *testing.T) {
	f := newFakeFleet(newEDF(Options{ScheduleAhead: 2 * time.Second}), t.Fatalf)
	s := resnets(1, 1, 100)
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	f.start(s)
	f.fate = func(a Action) fakeFate { return fakeFate{silent: true} }
	f.ask(1, 0, 1)
	f.run(Instant(500 * ms))
	f.ask(1, 0, 2)
	if f.actions != 1 || len(f.abandoned) != 1 {
		t.Errorf("%d actions, %d abandoned", f.actions, len(f.abandoned))
	}
}

// A long batch is over early, and the short one behind it is not answered: that
// is overdue before the long one would have been.
func TestShortBatchBehindALongOneIsOverdue(t *testing.T) {
	f := newFakeFleet(newEDF(Options{ScheduleAhead: time.Second}), t.Fatalf)
	s := resnets(1, 2, 100)
	s.Profiles[0].Execution = []RowsTime{{16, 300 * ms}}
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}, {2, 7}}
	f.start(s)
	f.fate = func(a Action) fakeFate { return fakeFate{duration: ms, silent: a.Model == 2} }
	f.ask(1, 0, 1)
	f.ask(2, 0, 2)
	f.run(Instant(450 * ms))
	if f.reasons[Done] != 1 || len(f.abandoned) != 1 {
		t.Errorf("%d abandoned, requests: %v", len(f.abandoned), f.reasons)
	}
}
