package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever the workers do, whatever the policy, every request is completed exactly
// once by its deadline; the other invariants are checked by fakeFleet at every
// decision.
func TestEveryRequestIsCompletedOnceInTime(t *testing.T) {
	for i := range 30 { // Some faults show in one of thousands of cases.
		t.Run(fmt.Sprint(i), rapid.MakeCheck(func(t *rapid.T) {
			w := newWild(t)
			for range rapid.IntRange(1, 60).Draw(t, "operations") {
				w.operation()
				w.f.run(w.f.now.Add(w.duration("pass", w.pace)))
			}
			w.finish()
		}))
	}
}

// wild is a fleet that things happen to.
type wild struct {
	t       *rapid.T
	f       *fakeFleet
	policy  string
	state   *State
	ids     RequestID
	models  ModelID
	calm    bool
	poison  RequestID // so many-th requests kill
	pace    time.Duration
	slow    map[string]int           // how many times slower devices of a worker are
	far     map[string]time.Duration // how much later its results are
	removed map[ModelID]bool
	untold  []Event // models and profiles that the policy has not heard of yet
}

func newWild(t *rapid.T) *wild {
	w := &wild{t: t, slow: make(map[string]int), far: make(map[string]time.Duration), removed: make(map[ModelID]bool)}
	options := Options{
		ResultGrace:   rapid.SampledFrom([]time.Duration{400 * ms, 40 * ms}).Draw(t, "grace"),
		SuspectSettle: rapid.SampledFrom([]time.Duration{100 * ms, 10 * ms}).Draw(t, "settle"),
	}
	w.policy = rapid.SampledFrom(Policies()).Draw(t, "policy")
	w.f = newFakeFleet(newNamed(w.policy, options), t.Fatalf)
	w.f.logf = t.Logf
	w.f.stepped = w.checkNothingIsLeftToDo
	w.f.grace, w.f.settle = options.ResultGrace, options.SuspectSettle
	w.pace = rapid.SampledFrom([]time.Duration{20 * ms, 20 * ms, 200 * ms}).Draw(t, "pace")
	w.state = &State{}
	w.poison = RequestID(rapid.IntRange(5, 200).Draw(t, "poison"))
	w.models = ModelID(rapid.SampledFrom([]int{1, 2, 3, 4, 5, 5, 5, 20}).Draw(t, "models"))
	var holds []ModelID
	for id := ModelID(1); id <= w.models; id++ {
		m, f := resnet(id, "a")
		m.Batched = rapid.IntRange(0, 4).Draw(t, "batched") < 4
		m.MaxRows = rapid.SampledFrom([]int{16, 3, 1}).Draw(t, "rows")
		m.WeightsBytes = int64(rapid.IntRange(0, 6).Draw(t, "weights")) << 20
		w.state.Models = append(w.state.Models, m)
		w.state.Profiles = append(w.state.Profiles, f)
		if rapid.Bool().Draw(t, "profile b") {
			slow := Profile{Model: id, DeviceKind: "b", WeightsLoad: 20 * time.Millisecond,
				Execution: []RowsTime{{1, 9 * time.Millisecond}, {4, 30 * time.Millisecond}}}
			w.state.Profiles = append(w.state.Profiles, slow)
		}
		if rapid.IntRange(0, 5).Draw(t, "held") < 5 {
			holds = append(holds, id)
		}
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "workers") {
		spec := Worker{Name: fmt.Sprintf("w%d", i), Holds: holds}
		for range rapid.IntRange(1, 2).Draw(t, "devices") {
			spec.Devices = append(spec.Devices, Device{Kind: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "kind"),
				Pages: rapid.IntRange(1, 12).Draw(t, "pages"), PageBytes: 1 << 20})
		}
		w.state.Workers = append(w.state.Workers, spec)
	}
	w.f.fate = w.fate
	told := &State{Workers: w.state.Workers}
	later := func() bool { return rapid.IntRange(0, 4).Draw(t, "later") == 4 }
	for _, m := range w.state.Models {
		if w.f.models[m.ID] = m; later() {
			w.untold = append(w.untold, ModelAdded{&m})
		} else {
			told.Models = append(told.Models, m)
		}
	}
	for _, f := range w.state.Profiles {
		if later() {
			w.untold = append(w.untold, ProfileChanged{&f})
		} else {
			told.Profiles = append(told.Profiles, f)
		}
	}
	w.f.start(told)
	return w
}

func (w *wild) duration(label string, most time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(most)).Draw(w.t, label))
}

func (w *wild) fate(a Action) fakeFate {
	fate := fakeFate{duration: max(1, a.Expected)}
	if w.calm {
		return fate
	}
	fate.delay = w.far[a.Worker]
	if slow := w.slow[a.Worker]; slow > 0 && a.Kind == Infer {
		fate.duration = w.profiled(a) * time.Duration(slow)
	}
	if slices.ContainsFunc(a.Requests, func(id RequestID) bool { return id%w.poison == 0 }) {
		fate.dies = true
		return fate
	}
	suspect := slices.ContainsFunc(a.Requests, func(id RequestID) bool { return w.f.requests[id].deaths > 0 })
	switch n := rapid.IntRange(0, 29).Draw(w.t, "fate"); {
	case n == 23, suspect && n < 6: // A trial that hangs needs much to come together.
		fate.silent = true
	case n == 19:
		fate.dies = true
	case n == 20:
		fate.outcome = Failed
	case n == 21:
		fate.outcome = Refused
	case n == 22:
		fate.outcome, fate.absent = Refused, true
	case n == 24 || n == 25:
		fate.delay += w.duration("delay", 200*time.Millisecond)
	case n > 25 && n < 29:
		fate.duration += w.duration("slow", 3*fate.duration)
	}
	return fate
}

// profiled is what the profile says of a batch.
func (w *wild) profiled(a Action) time.Duration {
	kind := w.f.workers[a.Worker].spec.Devices[a.Device].Kind
	i := slices.IndexFunc(w.state.Profiles, func(f Profile) bool { return f.Model == a.Model && f.DeviceKind == kind })
	execution := w.state.Profiles[i].Execution
	for _, e := range execution {
		if e.Rows >= a.Rows {
			return e.Time
		}
	}
	return a.Expected
}

func (w *wild) operation() {
	names := make([]string, len(w.state.Workers))
	for i, spec := range w.state.Workers {
		names[i] = spec.Name
	}
	var e Event
	switch rapid.IntRange(0, 25).Draw(w.t, "operation") {
	case 16, 17:
		name := rapid.SampledFrom(names).Draw(w.t, "reporter")
		if !w.f.workers[name].up {
			return
		}
		e = w.report(name)
	case 18:
		id := ModelID(rapid.Uint64Range(1, uint64(w.models)).Draw(w.t, "blamed"))
		if w.removed[id] {
			return
		}
		e = ModelBlamed{id, true}
	case 19:
		e = ModelBlamed{ModelID(rapid.Uint64Range(1, uint64(w.models)).Draw(w.t, "pardoned")), false}
	case 20:
		w.policy = rapid.SampledFrom(Policies()).Draw(w.t, "changed to")
		e = PolicyChanged{w.policy}
	case 23, 24:
		if len(w.untold) == 0 {
			return
		}
		e, w.untold = w.untold[0], w.untold[1:]
	case 25:
		if rapid.IntRange(0, 3).Draw(w.t, "removes") > 0 {
			return
		}
		id := ModelID(rapid.Uint64Range(1, uint64(w.models)).Draw(w.t, "removed"))
		w.removed[id] = true
		w.untold = slices.DeleteFunc(w.untold, func(e Event) bool { // or it would come again
			added, ok := e.(ModelAdded)
			return ok && added.Model.ID == id
		})
		e = ModelRemoved{id}
	case 21:
		w.slow[rapid.SampledFrom(names).Draw(w.t, "paced")] = rapid.IntRange(0, 4).Draw(w.t, "slower")
		return
	case 22:
		w.far[rapid.SampledFrom(names).Draw(w.t, "moved")] = w.duration("away", 10*ms)
		return
	case 11:
		name := rapid.SampledFrom(names).Draw(w.t, "down")
		if !w.f.workers[name].up {
			return
		}
		e = w.f.workerDown(name, rapid.Bool().Draw(w.t, "died"))
	case 12, 13:
		i := rapid.IntRange(0, len(names)-1).Draw(w.t, "up")
		e = w.f.workerUp(w.state.Workers[i])
	case 14:
		if w.ids == 0 {
			return
		}
		e = Cancel{RequestID(rapid.Uint64Range(1, uint64(w.ids)).Draw(w.t, "cancel"))}
	case 15:
		e = ProfileChanged{&w.state.Profiles[rapid.IntRange(0, len(w.state.Profiles)-1).Draw(w.t, "profile")]}
	case 10:
		name := rapid.SampledFrom(names).Draw(w.t, "holder")
		holds := w.someModels()
		w.f.workers[name].spec.Holds = holds
		e = Held{name, holds}
	default:
		w.burst()
		return
	}
	w.f.step(e)
}

func (w *wild) someModels() (some []ModelID) {
	for id := ModelID(1); id <= w.models; id++ {
		if rapid.IntRange(0, 3).Draw(w.t, "held") < 3 {
			some = append(some, id)
		}
	}
	return some
}

// report is what a worker says of its devices, where weights may have come and
// gone unseen.
func (w *wild) report(name string) Event {
	f := w.f.workers[name]
	said := &Worker{Name: name}
	for i, d := range f.devices {
		var there []Resident
		for id := ModelID(1); id <= w.models; id++ {
			pages := d.taken[id]
			switch change := rapid.IntRange(0, 9).Draw(w.t, "change"); {
			case d.moves(id):
				if change < 5 {
					there = append(there, Resident{id, change})
				}
				continue
			case d.resident[id] && change == 0:
				delete(d.resident, id)
				delete(d.taken, id)
				w.f.repairs = append(w.f.repairs, Repair{name, i, id, false})
				continue
			case !d.resident[id] && change > 1:
				continue
			case change == 1:
				pages++
				fallthrough
			case !d.resident[id]:
				d.resident[id], d.taken[id] = true, pages
				w.f.repairs = append(w.f.repairs, Repair{name, i, id, true})
			}
			there = append(there, Resident{id, pages})
		}
		slices.Reverse(there)
		said.Devices = append(said.Devices, Device{Resident: there})
	}
	return Reported{said}
}

func (w *wild) burst() {
	var events []Event
	for range rapid.IntRange(1, 30).Draw(w.t, "burst") {
		w.ids++
		r := Request{ID: w.ids, Model: ModelID(rapid.Uint64Range(1, uint64(w.models)).Draw(w.t, "model")),
			Class: rapid.SampledFrom([]string{"x", "y"}).Draw(w.t, "class"), Arrived: w.f.now}
		r.Rows = rapid.IntRange(1, w.f.models[r.Model].MaxRows).Draw(w.t, "rows")
		r.Priority = rapid.Uint64Range(0, 8).Draw(w.t, "priority")
		r.Tenant = rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(w.t, "tenant")
		if rapid.IntRange(0, 3).Draw(w.t, "timed") < 3 {
			r.Deadline = w.f.now.Add(w.duration("deadline", 150*time.Millisecond))
		}
		events = append(events, w.f.submit(r))
	}
	w.f.step(events...)
}

// policiesThatDefer are those that let a device wait for something better: what they
// would choose changes with time alone.
var policiesThatDefer = []string{"deferred", "clockwork"}

// checkNothingIsLeftToDo is for the end of a step: no device that has room has
// anything that its policy would run there now, or an event was missed.
func (w *wild) checkNothingIsLeftToDo() {
	p := w.f.policy.(*core)
	for _, d := range p.devices {
		if room := p.hasRoom(d); room != p.roomy.has(d.order) {
			w.t.Fatalf("%s/%d has room: %v, noted as %v", d.worker, d.index, room, !room)
		} else if !room || slices.Contains(policiesThatDefer, w.policy) {
			continue
		}
		if pl, b := p.strategy.choose(p, d); b.rows > 0 {
			w.t.Fatalf("%s/%d has room, and is not given %d rows of model %d", d.worker, d.index, b.rows, pl.model.ID)
		}
	}
}

// finish brings back the workers, so that best effort ends too.
func (w *wild) finish() {
	w.calm = true
	for _, spec := range w.state.Workers {
		w.f.step(w.f.workerUp(spec))
	}
	w.f.run(w.f.now.Add(10 * time.Second))
	for id := RequestID(1); id <= w.ids; id++ {
		if n := w.f.requests[id].completions; n != 1 {
			w.t.Fatalf("request %d was completed %d times", id, n)
		}
	}
	p := w.f.policy.(*core)
	if n := len(p.requests) + len(p.alarms) + len(p.active) + len(p.actions); n > 0 {
		w.t.Fatalf("%d things are left: %d requests, %d alarms, %d models, %d actions",
			n, len(p.requests), len(p.alarms), len(p.active), len(p.actions))
	}
	for _, m := range p.models {
		usable, present := 0, 0
		for _, pl := range m.places {
			if pl.usable() {
				usable++
				if pl.state != absent {
					present++
				}
			}
		}
		if m.usable != usable || m.present != present {
			w.t.Fatalf("model %d is usable at %d places and present at %d, counted as %d and %d",
				m.ID, usable, present, m.usable, m.present)
		}
	}
	for _, m := range p.models {
		if m.waiting != 0 || m.rows != 0 || m.timed != 0 {
			w.t.Fatalf("%d requests of model %d wait, with %d rows, %d of these timed", m.waiting, m.ID, m.rows, m.timed)
		}
		if m.trials > 0 || len(m.suspects) > 0 {
			w.t.Fatalf("model %d has %d trials, and %d suspects wait", m.ID, m.trials, len(m.suspects))
		}
	}
	for _, host := range p.workers {
		if host.trials > 0 {
			w.t.Fatalf("%s has %d trials", host.name, host.trials)
		}
	}
	for _, d := range p.devices {
		sum := 0
		for _, pl := range d.places {
			sum += pl.taken
			if (pl.state == resident) != slices.Contains(d.resident, pl) {
				w.t.Fatalf("model %d is in the wrong list", pl.model.ID)
			}
		}
		if sum != d.used {
			w.t.Fatalf("%d pages are accounted for, %d are taken", d.used, sum)
		}
	}
}
