package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// warmed is a fleet with the weights of all models on all devices.
func warmed(t *testing.T, workers, devices, models int) *fakeFleet {
	t.Helper()
	return warmedFor(t, newEDF(Options{}), workers, devices, models)
}

func warmedFor(t *testing.T, p Policy, workers, devices, models int) *fakeFleet {
	t.Helper()
	s := resnets(workers, models, 100)
	for i := range s.Workers {
		d := s.Workers[i].Devices[0]
		for id := range models {
			d.Resident = append(d.Resident, Resident{ModelID(id + 1), 7})
		}
		s.Workers[i].Devices = slices.Repeat([]Device{d}, devices)
	}
	f := newFakeFleet(p, t.Fatalf)
	f.start(s)
	return f
}

// kill has the worker die with every Infer for which it is so.
func (f *fakeFleet) kill(with func(a Action) bool) {
	f.fate = func(a Action) fakeFate {
		return fakeFate{duration: trueTime(a), dies: a.Kind == Infer && with(a)}
	}
}

func contains(ids ...RequestID) func(Action) bool {
	return func(a Action) bool {
		return slices.ContainsFunc(a.Requests, func(id RequestID) bool { return slices.Contains(ids, id) })
	}
}

// ask submits requests now, with a deadline after so long, or without one.
func (f *fakeFleet) ask(m ModelID, slo time.Duration, ids ...RequestID) {
	var events []Event
	for _, id := range ids {
		r := Request{ID: id, Model: m, Rows: 1, Arrived: f.now}
		if slo != 0 {
			r.Deadline = f.now.Add(slo)
		}
		events = append(events, f.submit(r))
	}
	f.step(events...)
}

// flow submits requests of a model at a rate until end, from the id first on.
func (f *fakeFleet) flow(m ModelID, first RequestID, rate float64, slo time.Duration, end Instant) {
	rng := rand.New(rand.NewPCG(3, uint64(m)))
	id := first
	var arrive func() []Event
	next := func() { f.after(time.Duration(rng.ExpFloat64()/rate*1e9), arrive) }
	arrive = func() []Event {
		if f.now > end {
			return nil
		}
		next()
		id++
		return []Event{f.submit(Request{ID: id - 1, Model: m, Rows: 1, Arrived: f.now, Deadline: f.now.Add(slo)})}
	}
	next()
}

// endings says how requests ended, by model.
func (f *fakeFleet) endings() map[ModelID]map[Reason]int {
	all := make(map[ModelID]map[Reason]int)
	f.completed = func(r Request, c Completion) {
		if all[r.Model] == nil {
			all[r.Model] = make(map[Reason]int)
		}
		all[r.Model][c.Reason]++
	}
	return all
}

func expectEndings(t *testing.T, got map[Reason]int, want ...Reason) {
	t.Helper()
	for _, r := range want {
		if got[r] == 0 {
			t.Errorf("no request ended with %v: %v", r, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("requests ended with %v, want only %v", got, want)
	}
}

// The request costs two workers, and nobody else an answer.
func TestPoisonousRequestTakesTwoWorkers(t *testing.T) {
	f := warmed(t, 5, 1, 2)
	f.kill(contains(500, 501))
	ends := f.endings()
	f.flow(1, 1000, 700, 500*ms, Instant(2*time.Second))
	f.flow(2, 100000, 300, 500*ms, Instant(2*time.Second))
	f.run(Instant(500 * ms))
	f.ask(1, 800*ms, 500)
	f.run(Instant(3 * time.Second))
	if f.deaths != 2 || len(f.blamed) > 0 {
		t.Errorf("%d workers died, %v is blamed", f.deaths, f.blamed)
	}
	if ends[1][Poisonous] != 1 {
		t.Errorf("%d requests were poisonous", ends[1][Poisonous])
	}
	expectEndings(t, ends[1], Done, Poisonous)
	expectEndings(t, ends[2], Done)
}

// Be it when it is loaded or when it runs.
func TestModelThatAlwaysKillsTakesTwoWorkers(t *testing.T) {
	for _, test := range []struct {
		kind   Kind
		policy string
	}{{LoadWeights, "edf"}, {Infer, "edf"}, {LoadWeights, "orrery"}, {Infer, "orrery"}} {
		t.Run(test.kind.String()+", "+test.policy, func(t *testing.T) {
			f := warmedFor(t, newNamed(test.policy, Options{}), 4, 1, 2)
			f.fate = func(a Action) fakeFate {
				return fakeFate{duration: trueTime(a), dies: a.Model == 3 && a.Kind == test.kind}
			}
			m, profile := resnet(3, "V100")
			f.models[3] = m
			f.step(ModelAdded{&m}, ProfileChanged{&profile})
			for _, name := range []string{"w1", "w2", "w3", "w4"} {
				w := f.workers[name]
				w.spec.Holds = []ModelID{1, 2, 3}
				f.step(Held{name, w.spec.Holds})
			}
			ends := f.endings()
			f.ask(3, 0, 1)
			f.run(Instant(50 * ms)) // Nothing else makes it worth while to load it on more devices.
			f.flow(1, 100000, 500, 500*ms, Instant(2*time.Second))
			f.flow(3, 1000, 100, 500*ms, Instant(2*time.Second))
			f.run(Instant(3 * time.Second))
			if f.deaths != 2 || len(f.blamed) != 1 || f.blamed[0].Model != 3 || len(f.blamed[0].Workers) != 2 {
				t.Errorf("%d workers died, blamed: %v", f.deaths, f.blamed)
			}
			if n := ends[3][Poisonous]; n > 1 {
				t.Errorf("%d requests were called poisonous", n)
			}
			delete(ends[3], Poisonous) // the one that was tried
			expectEndings(t, ends[3], ModelStopped)
			expectEndings(t, ends[1], Done)
		})
	}
}

// Workers of one machine die with it, one connection after the other. Neither
// is the request that was tried next at fault, nor the model.
func TestWorkersThatDieTogetherSayNothing(t *testing.T) {
	for _, cold := range []bool{false, true} {
		for _, between := range []time.Duration{0, ms, 60 * ms} {
			t.Run(fmt.Sprintf("cold %v, %v apart", cold, between), func(t *testing.T) {
				f := warmed(t, 4, 1, 1)
				if cold {
					f = newFakeFleet(newEDF(Options{}), t.Fatalf)
					f.start(resnets(4, 1, 100))
				}
				f.kill(func(Action) bool { return false })
				f.ask(1, time.Second, 1, 2, 3)
				for i, name := range []string{"w1", "w2", "w3"} {
					f.at(Instant(ms).Add(time.Duration(i)*between), func() []Event { return []Event{f.workerDown(name, true)} })
				}
				f.run(Instant(2 * time.Second))
				if f.deaths != 3 || len(f.blamed) > 0 || f.reasons[Done] != 3 {
					t.Errorf("%d deaths, blamed: %v, requests: %v", f.deaths, f.blamed, f.reasons)
				}
			})
		}
	}
}

// Two poisonous requests have come one after the other, and the model has
// answered between their deaths: it is not the model.
func TestPopularModelIsNotBlamed(t *testing.T) {
	f := warmed(t, 6, 1, 1)
	f.kill(contains(1, 2))
	f.flow(1, 1000, 500, 500*ms, Instant(3*time.Second))
	f.run(Instant(300 * ms))
	f.ask(1, 700*ms, 1)
	f.run(Instant(1500 * ms))
	f.ask(1, 700*ms, 2)
	f.run(Instant(4 * time.Second))
	if f.deaths != 4 || len(f.blamed) > 0 || f.reasons[Poisonous] != 2 || f.reasons[ModelStopped] > 0 {
		t.Errorf("%d deaths, blamed: %v, requests: %v", f.deaths, f.blamed, f.reasons)
	}
	if others := f.reasons[Done] + 2; others != len(f.requests) {
		t.Errorf("not all others were answered: %v", f.reasons)
	}
}

// A model that once answered and then kills with every request: a second
// request's trial gives it away.
func TestModelThatBeginsToKillIsBlamed(t *testing.T) {
	f := warmed(t, 6, 1, 1)
	f.ask(1, 0, 1)
	f.run(Instant(50 * ms))
	f.kill(func(Action) bool { return true })
	f.ask(1, 0, 2, 3, 4)
	f.run(Instant(2 * time.Second))
	if f.deaths != 3 || len(f.blamed) != 1 || f.reasons[Poisonous] != 2 || f.reasons[ModelStopped] != 1 {
		t.Errorf("%d deaths, blamed: %v, requests: %v", f.deaths, f.blamed, f.reasons)
	}
}

// One worker is left, with two devices, and others' work for both of them: one
// trial at a time runs there, on a device of its own; the other one goes on.
func TestTrialsAreAloneOnTheirWorker(t *testing.T) {
	f := warmed(t, 1, 2, 2)
	spec := f.workers["w1"].spec
	spec.Name = "w0"
	f.step(f.workerUp(spec))
	f.ask(1, 0, 1)
	f.run(Instant(50 * ms))
	f.ask(1, time.Second, 11, 12, 13, 14)
	var during int
	f.kill(func(a Action) bool {
		if f.trialOn(f.workers[a.Worker]) != 0 {
			during++
		}
		return false
	})
	f.step(f.workerDown("w0", true))
	f.flow(2, 1000, ceiling, 300*ms, Instant(time.Second))
	f.run(Instant(2 * time.Second))
	for id := range []RequestID{11, 12, 13, 14} {
		if f.requests[RequestID(id+11)].deaths != 1 {
			t.Fatalf("request %d was not at the worker that died", id+11)
		}
	}
	if len(f.trials) != 4 || during == 0 {
		t.Errorf("%d trials, want 4, and %d batches on the other device during them", len(f.trials), during)
	}
	if f.reasons[Done] != len(f.requests) {
		t.Errorf("requests: %v", f.reasons)
	}
}

// All that is left is under twice the load it can bear, all of it more urgent.
func TestTrialsDoNotStarve(t *testing.T) {
	for _, models := range []int{1, 2} {
		t.Run(fmt.Sprintf("load of model %d", models), func(t *testing.T) {
			f := warmedFor(t, newOrrery(Options{}), 3, 1, 2)
			f.kill(func(Action) bool { return false })
			f.ask(1, 2*time.Second, 1)
			f.flow(ModelID(models), 1000, 4*ceiling, 100*ms, Instant(time.Second))
			f.step(f.workerDown("w1", true))
			var answered Instant
			others := 0
			f.completed = func(r Request, c Completion) {
				switch {
				case r.ID == 1 && c.Reason == Done:
					answered = f.now
				case c.Reason == Done:
					others++
				}
			}
			f.run(Instant(2 * time.Second))
			if f.requests[1].deaths != 1 || answered == 0 || answered > Instant(150*ms) {
				t.Errorf("after %d deaths it was answered at %v", f.requests[1].deaths, time.Duration(answered))
			}
			if float64(others) < 1.5*ceiling {
				t.Errorf("%d others were answered in a second", others)
			}
		})
	}
}

// Under overload the most urgent request is nearly too late when the device is
// free for a trial: it must not be the one that is waited for.
func TestSuspectModelIsClearedUnderOverload(t *testing.T) {
	f := warmed(t, 2, 1, 2)
	f.kill(func(Action) bool { return false })
	f.flow(1, 1000, 2*ceiling, 100*ms, Instant(time.Second))
	f.flow(2, 100000, 2*ceiling, 100*ms, Instant(time.Second))
	f.run(Instant(300 * ms))
	f.step(f.workerDown("w1", true))
	var cleared Instant
	f.completed = func(r Request, c Completion) {
		if f.doubted[1] == innocent && cleared == 0 {
			cleared = f.now
		}
	}
	if f.doubted[1] == innocent {
		t.Fatal("model 1 is not suspect")
	}
	f.run(Instant(2 * time.Second))
	if cleared == 0 || cleared > Instant(400*ms) {
		t.Errorf("the model was cleared at %v", time.Duration(cleared))
	}
}

// A trial that hangs keeps other trials from its worker, but not from others:
// those that have no weights yet are given them.
func TestTrialThatHangs(t *testing.T) {
	f := newFakeFleet(newEDF(Options{}), t.Fatalf)
	s := resnets(3, 1, 100)
	for i := range 2 {
		s.Workers[i].Devices[0].Resident = []Resident{{1, 7}}
	}
	s.Workers[1].Devices = slices.Repeat(s.Workers[1].Devices, 2)
	f.start(s)
	f.ask(1, 0, 1, 2)
	hangs := true
	f.fate = func(a Action) fakeFate {
		fate := fakeFate{duration: trueTime(a)}
		if a.Kind == Infer && hangs {
			hangs = false
			fate.delay = 2 * time.Second
		}
		return fate
	}
	f.step(f.workerDown("w1", true))
	f.run(Instant(time.Second))
	// The one that hangs, a load on w3, and the two requests there.
	if len(f.abandoned) != 1 || f.reasons[Done] != 2 || len(f.trials) != 4 {
		t.Errorf("%d abandoned, %d trials, requests: %v", len(f.abandoned), len(f.trials), f.reasons)
	}
	// The late result has no one to answer; the device is used again.
	before := f.actions
	f.run(Instant(3 * time.Second))
	f.ask(1, 0, 3, 4)
	f.run(Instant(4 * time.Second))
	if f.reasons[Done] != 4 || f.actions == before {
		t.Errorf("%d actions more, requests: %v", f.actions-before, f.reasons)
	}
}

// lostWith has requests 1 to n of model 1 at a worker that has died; w2 is left
// and may not be tried yet.
func lostWith(t *testing.T, n RequestID) *fakeFleet {
	t.Helper()
	f := warmed(t, 2, 1, 2)
	var ids []RequestID
	for id := RequestID(1); id <= n; id++ {
		ids = append(ids, id)
	}
	f.ask(1, 0, ids...)
	f.step(f.workerDown("w1", true))
	if got := len(f.policy.(*core).models[1].suspects); got != int(n) {
		t.Fatalf("%d suspects wait, want %d", got, n)
	}
	return f
}

func TestSuspectsFollowTheirModel(t *testing.T) {
	t.Run("removed", func(t *testing.T) {
		f := lostWith(t, 3)
		f.step(ModelRemoved{1})
		if f.reasons[UnknownModel] != 3 {
			t.Errorf("requests: %v", f.reasons)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		p := lostWith(t, 3).policy.(*core)
		var out Decisions
		p.Step(Instant(ms), []Event{ModelReplaced{1, 2}}, &out)
		for now := Instant(200 * ms); len(p.requests) > 0 && now < Instant(time.Second); now = now.Add(ms) {
			var events []Event
			for _, a := range out.Actions {
				if a.Model != 2 || len(a.Requests) > 1 {
					t.Errorf("%+v, want a trial of model 2", a)
				}
				events = append(events, Finished{&Result{Action: a.ID, Engine: 3 * ms}})
			}
			out.Reset()
			p.Step(now, events, &out)
		}
		if len(p.requests) > 0 {
			t.Errorf("%d requests are left", len(p.requests))
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		f := lostWith(t, 3)
		f.step(Cancel{2})
		f.run(Instant(time.Second))
		if f.reasons[Cancelled] != 1 || f.reasons[Done] != 2 || len(f.trials) != 2 {
			t.Errorf("%d trials, requests: %v", len(f.trials), f.reasons)
		}
	})
	t.Run("stopped by the cluster and let go again", func(t *testing.T) {
		f := lostWith(t, 3)
		f.step(ModelBlamed{1, true})
		if f.reasons[ModelStopped] != 3 || len(f.blamed) > 0 {
			t.Errorf("blamed: %v, requests: %v", f.blamed, f.reasons)
		}
		f.step(ModelBlamed{1, false})
		f.ask(1, 0, 10, 11)
		f.run(Instant(50 * ms)) // no trial needs to settle
		if f.reasons[Done] != 2 || len(f.trials) > 0 {
			t.Errorf("%d trials, requests: %v", len(f.trials), f.reasons)
		}
	})
}

// Suspects stay suspects when the policy changes.
func TestSuspectsOutliveAChangeOfPolicy(t *testing.T) {
	f := lostWith(t, 8)
	f.ask(1, time.Second, 9, 10) // wait, since their model is suspect
	f.ask(2, 0, 11, 12, 13)      // run
	f.step(PolicyChanged{"edf"})
	f.run(Instant(time.Second))
	if f.reasons[Done] != 13 || len(f.trials) == 0 {
		t.Errorf("requests: %v after %d trials, want all 13 done", f.reasons, len(f.trials))
	}
}

// A worker that is replaced by one of its name has left, not died.
func TestReplacedWorkerIsNoDeath(t *testing.T) {
	f := warmed(t, 1, 1, 1)
	f.fate = func(a Action) fakeFate { return fakeFate{silent: true} }
	f.ask(1, 0, 1)
	for range 3 {
		f.run(f.now.Add(5 * ms))
		f.step(f.workerUp(f.workers["w1"].spec))
	}
	f.fate = nil
	f.step(f.workerUp(f.workers["w1"].spec))
	f.run(Instant(time.Second))
	if f.reasons[Done] != 1 || len(f.trials) > 0 {
		t.Errorf("%d trials, requests: %v", len(f.trials), f.reasons)
	}
}

// What runs beside a trial only happened to be there when its worker dies.
func TestBystandersOfATrialAreTriedNext(t *testing.T) {
	f := warmed(t, 2, 2, 2)
	f.step(f.workerUp(Worker{Name: "w9", Devices: slices.Clone(f.workers["w1"].spec.Devices), Holds: []ModelID{1, 2}}))
	f.kill(contains(1))
	f.ask(1, 0, 100)
	f.run(Instant(20 * ms))
	f.ask(1, 0, 1)
	for at := 20 * ms; at < 300*ms; at += ms {
		id := RequestID(1000 + at/ms)
		f.at(Instant(at), func() []Event { return []Event{f.submit(Request{ID: id, Model: 2, Rows: 1, Arrived: f.now})} })
	}
	f.run(Instant(2 * time.Second))
	bystanders := 0
	for id, r := range f.requests {
		if id != 1 && r.deaths > 0 {
			bystanders++
		}
	}
	if f.deaths != 2 || f.reasons[Poisonous] != 1 || f.reasons[Done] != len(f.requests)-1 || bystanders == 0 {
		t.Errorf("%d deaths, %d bystanders, requests: %v", f.deaths, bystanders, f.reasons)
	}
}

func TestReasonsHaveNames(t *testing.T) {
	names := make(map[string]bool)
	for r := Done; r <= GivenUp; r++ {
		names[r.String()] = true
	}
	if len(names) != int(GivenUp)+1 || names["unknown"] || !names["GivenUp"] || (GivenUp+1).String() != "unknown" {
		t.Errorf("names: %v", names)
	}
}

func TestResetEmptiesAllDecisions(t *testing.T) {
	d := Decisions{make([]Action, 1), make([]Completion, 1), make([]Repair, 1), make([]ActionID, 1), make([]Blame, 1), 1}
	d.Reset()
	if n := len(d.Actions) + len(d.Completions) + len(d.Repairs) + len(d.Abandoned) + len(d.Blamed); n > 0 || d.Wake != 0 {
		t.Errorf("%+v is left", d)
	}
}

// Weights that kill were on their way to two workers. A request that the first
// one died with is not tried on the second, which is about to die as well.
func TestTrialKeepsAwayFromWhatElseIsSuspect(t *testing.T) {
	f := warmed(t, 3, 1, 1)
	m, profile := resnet(3, "V100")
	f.models[3] = m
	f.step(ModelAdded{&m}, ProfileChanged{&profile})
	for _, name := range []string{"w1", "w2"} {
		f.workers[name].spec.Holds = []ModelID{1, 3}
		f.step(Held{name, []ModelID{1, 3}})
	}
	f.fate = func(a Action) fakeFate {
		fate := fakeFate{duration: trueTime(a), dies: a.Kind == LoadWeights}
		if fate.dies && a.Worker == "w2" {
			fate.duration = 300 * ms
		}
		return fate
	}
	for id := RequestID(30); id < 80; id++ { // so many that two copies are wanted
		f.ask(3, 0, id)
	}
	f.step()
	f.run(Instant(7 * ms))
	f.ask(1, 0, 1)
	f.at(Instant(110*ms), func() []Event { return []Event{f.submit(Request{ID: 2, Model: 1, Rows: 1, Arrived: f.now})} })
	f.workers["w3"].up = false
	f.step(WorkerDown{Name: "w3"})
	f.run(Instant(250 * ms))
	if f.deaths != 1 || f.requests[1].deaths != 1 || f.reasons[Done] > 0 {
		t.Fatalf("%d workers died, request 1 with %d, requests: %v", f.deaths, f.requests[1].deaths, f.reasons)
	}
	f.run(Instant(400 * ms))
	spec := f.workers["w3"].spec
	f.step(f.workerUp(spec))
	f.run(Instant(time.Second))
	if f.deaths != 2 || f.requests[1].deaths != 1 || f.reasons[Done] != 2 {
		t.Errorf("%d workers died, request 1 with %d, requests: %v", f.deaths, f.requests[1].deaths, f.reasons)
	}
}

// The trial of the only request dies a second time: that says nothing of others.
func TestOneRequestDoesNotConvictItsModel(t *testing.T) {
	f := warmed(t, 5, 1, 1)
	f.ask(1, 0, 100)
	f.run(Instant(50 * ms))
	f.kill(contains(1, 2))
	f.ask(1, 0, 1)
	f.run(Instant(60 * ms))
	f.step(Cancel{1})
	f.ask(1, 0, 2) // an innocent one, but that its model is suspect
	f.run(Instant(time.Second))
	if f.deaths != 3 || len(f.blamed) > 0 || f.reasons[Poisonous] != 1 {
		t.Errorf("%d deaths, blamed: %v, requests: %v", f.deaths, f.blamed, f.reasons)
	}
}

// Two requests of a model that has been cleared are tried at once, on workers
// that die together: that is one event, and not evidence against the model.
func TestTrialsThatDieTogetherDoNotConvictTheModel(t *testing.T) {
	f := warmed(t, 4, 1, 1)
	f.ask(1, 0, 100)
	f.run(Instant(50 * ms))
	f.ask(1, 0, 1, 2, 3)
	f.step(f.workerDown("w1", true))
	var dead []string
	f.fate = func(a Action) fakeFate {
		if contains(2, 3)(a) && len(dead) < 2 {
			dead = append(dead, a.Worker)
			if len(dead) == 2 {
				f.after(ms, func() []Event { return []Event{f.workerDown(dead[0], true), f.workerDown(dead[1], true)} })
			}
		}
		return fakeFate{duration: trueTime(a)}
	}
	f.run(Instant(time.Second))
	f.ask(1, 0, 4)
	f.run(Instant(2 * time.Second))
	if f.deaths != 3 || len(f.blamed) > 0 || f.reasons[Done] != 4 || f.reasons[Poisonous] != 1 {
		t.Errorf("%d deaths, blamed: %v, requests: %v", f.deaths, f.blamed, f.reasons)
	}
}

// The weights of a suspect model go to one device at a time, even when that one
// is silent, and to none while a device has them.
func TestSuspectModelIsNotSpread(t *testing.T) {
	for _, cold := range []bool{true, false} {
		s := resnets(4, 1, 100)
		s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
		if !cold {
			s.Workers[1].Devices[0].Resident = []Resident{{1, 7}}
		}
		f := newFakeFleet(newEDF(Options{}), t.Fatalf)
		f.start(s)
		var loads []string
		f.fate = func(a Action) fakeFate {
			if a.Kind == LoadWeights {
				loads = append(loads, a.Worker)
			}
			return fakeFate{duration: trueTime(a), silent: f.lastDeath > 0}
		}
		f.run(Instant(ms))
		f.ask(1, 0, 1, 2, 3)
		f.step(f.workerDown("w1", true))
		loads = nil
		f.run(Instant(102 * ms)) // The first trial runs, or the load.
		f.step()
		for cold && f.now < Instant(300*ms) {
			f.run(f.now.Add(15 * ms))
		}
		if want := map[bool]int{true: 1, false: 0}[cold]; len(loads) != want || len(f.trials) != 1 {
			t.Errorf("cold %v: loaded on %v, %d trials", cold, loads, len(f.trials))
		}
	}
}

func TestStoppedModelIsNotWarmed(t *testing.T) {
	f := newFakeFleet(newEDF(Options{}), t.Fatalf)
	f.start(resnets(1, 1, 100))
	f.step(f.submit(Request{ID: 1, Model: 1, Rows: 1, Deadline: Instant(5 * ms)}), ModelBlamed{1, true})
	if f.actions > 0 || f.reasons[Infeasible] != 1 {
		t.Errorf("%d actions, requests: %v", f.actions, f.reasons)
	}
}

func TestBlameNamesWorkersInOrder(t *testing.T) {
	f := warmed(t, 2, 1, 1)
	f.kill(func(Action) bool { return true })
	w1 := f.workers["w1"].spec
	f.step(f.workerDown("w1", false))
	f.ask(1, 0, 1)
	f.run(Instant(10 * ms))
	f.step(f.workerUp(w1))
	f.run(Instant(200 * ms))
	if len(f.blamed) != 1 || !slices.Equal(f.blamed[0].Workers, []string{"w1", "w2"}) {
		t.Errorf("blamed: %v", f.blamed)
	}
}

// A device that is late seems to be free first. It is not waited for.
func TestTrialIsNotKeptForALateDevice(t *testing.T) {
	f := newFakeFleet(newEDF(Options{SuspectSettle: 1}), t.Fatalf)
	f.settle = 1
	s := resnets(4, 2, 100)
	for i := range s.Workers {
		s.Workers[i].Devices[0].Resident = []Resident{{1, 7}, {2, 7}}
	}
	s.Workers[0].Holds = []ModelID{1}
	f.start(s)
	f.fate = func(a Action) fakeFate {
		return fakeFate{duration: trueTime(a), silent: a.Worker == "w2"}
	}
	f.flow(2, 1000, 4*ceiling, 100*ms, Instant(300*ms))
	f.run(Instant(100 * ms))
	f.ask(1, 0, 1)
	f.step(f.workerDown("w1", true))
	if f.requests[1].deaths != 1 || f.doubted[2] != innocent {
		t.Fatalf("request 1 has %d deaths, model 2 is suspect: %v", f.requests[1].deaths, f.doubted[2] != innocent)
	}
	f.run(Instant(150 * ms))
	if f.requests[1].completions != 1 {
		t.Error("the suspect has not been answered")
	}
}

// A verdict that the cluster has given is not given again.
func TestStoppedModelIsNotBlamedAgain(t *testing.T) {
	f := lostWith(t, 2)
	f.kill(func(Action) bool { return true })
	f.at(Instant(101*ms), func() []Event { return []Event{ModelBlamed{1, true}} })
	f.run(Instant(200 * ms))
	if f.deaths != 2 || len(f.trials) != 1 || len(f.blamed) > 0 || f.reasons[ModelStopped] != 1 {
		t.Errorf("%d deaths, %d trials, blamed: %v, requests: %v", f.deaths, len(f.trials), f.blamed, f.reasons)
	}
}

func TestMostUrgentSuspectIsTriedFirst(t *testing.T) {
	f := warmed(t, 2, 1, 2)
	f.step(f.submit(Request{ID: 1, Model: 1, Rows: 1, Deadline: Instant(2 * time.Second)}),
		f.submit(Request{ID: 2, Model: 2, Rows: 1, Deadline: Instant(time.Second)}))
	f.step(f.workerDown("w1", true))
	spec := f.workers["w2"].spec
	f.step(f.workerDown("w2", true))
	f.run(Instant(ms))
	f.step(f.workerUp(spec))
	var order []RequestID
	f.completed = func(r Request, c Completion) { order = append(order, r.ID) }
	f.run(Instant(time.Second))
	if !slices.Equal(order, []RequestID{2, 1}) || len(f.trials) != 2 {
		t.Errorf("requests %v were answered in this order, by %d trials", order, len(f.trials))
	}
}
