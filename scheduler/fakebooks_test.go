package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// books are what a fake fleet knows of suspects, overdue results and reports,
// kept apart from the policy's: it fails when the policy acts against them.
type books struct {
	grace, settle time.Duration // what the policy was told
	lastDeath     Instant
	deaths        int
	doubted       map[ModelID]suspicion
	stopped       map[ModelID]bool
	trials        map[ActionID]bool // true: of a suspect model
	abandoned     map[ActionID]bool
	convictable   map[ModelID]bool // a trial of it died
	condemned     []RequestID      // to be completed in this step
	repairs       []Repair         // that this step must make
	blamed        []Blame
}

func newBooks() books {
	return books{
		grace: 400 * ms, settle: 100 * ms,
		doubted:     make(map[ModelID]suspicion),
		stopped:     make(map[ModelID]bool),
		trials:      make(map[ActionID]bool),
		abandoned:   make(map[ActionID]bool),
		convictable: make(map[ModelID]bool),
	}
}

func (f *fakeFleet) book(e Event) {
	switch e := e.(type) {
	case Finished:
		f.bookResult(e.Result)
	case WorkerDown:
		f.lose(f.workers[e.Name], e.Died)
	case ModelBlamed:
		f.stopped[e.Model] = e.Blamed
		if !e.Blamed {
			delete(f.doubted, e.Model)
		}
	}
}

// bookResult takes an action that has a result out of the books.
func (f *fakeFleet) bookResult(res *Result) {
	is := func(a Action) bool { return a.ID == res.Action }
	for _, w := range f.workers {
		for _, d := range w.devices {
			if i := slices.IndexFunc(d.queue, is); i >= 0 {
				a := d.queue[i]
				d.queue = slices.Delete(d.queue, i, i+1)
				if i == 0 && len(d.queue) > 0 {
					d.due = f.now.Add(d.queue[0].Expected)
				}
				w.heard = f.now
				f.left(a)
				if res.Outcome == OK {
					delete(f.doubted, a.Model)
				}
			}
			if i := slices.IndexFunc(d.moving, is); i >= 0 {
				a := d.moving[i]
				d.moving = slices.Delete(d.moving, i, i+1)
				w.heard = f.now
				if res.Outcome == OK && a.Kind == LoadWeights && f.doubted[a.Model] == suspectLoad {
					delete(f.doubted, a.Model)
				}
			}
		}
	}
}

// left takes the requests out of an action, but for those that were moved.
func (f *fakeFleet) left(a Action) (requests []*fakeRequest) {
	for _, id := range a.Requests {
		if r := f.requests[id]; r.at == a.ID {
			r.at = 0
			requests = append(requests, r)
		}
	}
	return requests
}

// lose is for a worker that is gone.
func (f *fakeFleet) lose(w *fakeWorker, died bool) {
	proof := f.deaths == 0 || f.now >= f.lastDeath.Add(f.settle)
	if died {
		f.deaths++
		f.lastDeath = f.now
	}
	for _, d := range w.devices {
		for _, a := range slices.Concat(d.queue, d.moving) {
			requests := f.left(a)
			if !died || a.Kind == EvictWeights {
				continue
			}
			of, trial := f.trials[a.ID]
			for _, r := range requests {
				if r.completions == 0 && (trial && proof || r.deaths == 0) {
					r.deaths++
					if r.deaths > 1 {
						f.condemned = append(f.condemned, r.ID)
					}
				}
			}
			f.convictable[a.Model] = f.convictable[a.Model] || of && proof
			level := suspectInfer
			if a.Kind == LoadWeights {
				level = suspectLoad
			}
			f.doubted[a.Model] = max(f.doubted[a.Model], level)
		}
		d.queue, d.moving = nil, nil
	}
}

func (d *fakeDevice) moves(id ModelID) bool {
	return slices.ContainsFunc(d.moving, func(a Action) bool { return a.Model == id })
}

func (f *fakeFleet) checkRepairs(made []Repair) {
	order := func(a, b Repair) int {
		return cmp.Or(cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Model, b.Model))
	}
	slices.SortFunc(made, order)
	slices.SortFunc(f.repairs, order)
	if !slices.Equal(made, f.repairs) {
		f.fatalf("repaired %v, want %v", made, f.repairs)
	}
	f.repairs = nil
}

func (f *fakeFleet) overdue(d *fakeDevice) bool {
	return len(d.queue) > 0 && f.now >= d.due.Add(max(f.grace, 3*d.queue[0].Expected))
}

func (f *fakeFleet) checkAbandoned(ids []ActionID) {
	for _, id := range ids {
		found := false
		for _, w := range f.workers {
			for _, d := range w.devices {
				i := slices.IndexFunc(d.queue, func(a Action) bool { return a.ID == id })
				if i < 0 {
					continue
				}
				if !f.overdue(d) {
					f.fatalf("#%d is abandoned, %v is not overdue", id, d.queue[0].ID)
				}
				for _, r := range f.left(d.queue[i]) {
					if i == 0 && r.completions == 0 {
						r.unanswered++
						if r.unanswered > 1 {
							f.condemned = append(f.condemned, r.ID)
						}
					}
				}
				found = true
			}
		}
		if !found || f.abandoned[id] {
			f.fatalf("#%d is abandoned, and has been over (or abandoned before: %v)", id, f.abandoned[id])
		}
		f.abandoned[id] = true
	}
}

func (f *fakeFleet) checkBlamed(blamed []Blame) {
	for _, b := range blamed {
		if !f.convictable[b.Model] || f.doubted[b.Model] == innocent || f.stopped[b.Model] {
			f.fatalf("model %d is blamed", b.Model)
		}
		if len(b.Workers) == 0 || !slices.IsSorted(b.Workers) || len(slices.Compact(slices.Clone(b.Workers))) < len(b.Workers) {
			f.fatalf("model %d is blamed for %v", b.Model, b.Workers)
		}
		f.stopped[b.Model] = true
		f.blamed = append(f.blamed, b)
	}
	clear(f.convictable)
}

func (f *fakeFleet) checkReason(r *fakeRequest, c Completion) {
	r.at = 0
	bad := false
	switch c.Reason {
	case Poisonous:
		bad = r.deaths < 2
	case Unanswered:
		bad = r.unanswered < 2
	case ModelStopped:
		bad = !f.stopped[r.Model]
	}
	if bad || (r.deaths > 0 || r.unanswered > 0) && !c.Started {
		f.fatalf("request %d is %v (may have run: %v) after %d deaths and %d devices that did not answer",
			r.ID, c.Reason, c.Started, r.deaths, r.unanswered)
	}
}

// checkNothingForgotten is for the end of a step.
func (f *fakeFleet) checkNothingForgotten() {
	for _, id := range f.condemned {
		if f.requests[id].completions == 0 {
			f.fatalf("request %d goes on after two deaths or two devices that did not answer", id)
		}
	}
	f.condemned = nil
	for _, w := range f.workers {
		for _, d := range w.devices {
			i := slices.IndexFunc(d.queue, func(a Action) bool { return !f.abandoned[a.ID] })
			if w.up && f.overdue(d) && i >= 0 {
				f.fatalf("#%d is not abandoned, but #%d is overdue", d.queue[i].ID, d.queue[0].ID)
			}
		}
	}
}

// trialOn is what may kill a worker, and has no result. 0: nothing.
func (f *fakeFleet) trialOn(w *fakeWorker) ActionID {
	for _, d := range w.devices {
		for _, a := range slices.Concat(d.queue, d.moving) {
			if _, trial := f.trials[a.ID]; trial {
				return a.ID
			}
		}
	}
	return 0
}

func (f *fakeFleet) checkRisk(a Action, w *fakeWorker) {
	if other := f.trialOn(w); other != 0 {
		f.fatalf("the trial #%d is on %s, which has the trial #%d", a.ID, w.spec.Name, other)
	}
	for _, d := range w.devices {
		for _, other := range slices.Concat(d.queue, d.moving) {
			if other.Kind != EvictWeights && (f.doubted[other.Model] != innocent || f.stopped[other.Model]) {
				f.fatalf("the trial #%d is on %s, which has #%d of a suspect model", a.ID, w.spec.Name, other.ID)
			}
		}
	}
	if f.now < f.lastDeath.Add(f.settle) && (w.heard <= f.lastDeath || f.couldWait(a)) {
		f.fatalf("the trial #%d is on %s, which may have died with another", a.ID, w.spec.Name)
	}
}

// couldWait says that an action would still be in time if it waited until the last
// death has settled.
func (f *fakeFleet) couldWait(a Action) bool {
	if a.Kind != Infer {
		return true
	}
	deadline := f.requests[a.Requests[0]].Deadline
	if deadline == 0 {
		return true
	}
	// What the policy has measured of the network shows in when it starts at the latest.
	lag := 2*deadline.Sub(a.Latest.Add(a.Expected)) + 1
	return f.lastDeath.Add(f.settle).Add(a.Expected+lag) <= deadline
}

func (f *fakeFleet) checkTrial(a Action, w *fakeWorker, d *fakeDevice) {
	if f.stopped[a.Model] {
		f.fatalf("#%d is an Infer of model %d, which is stopped", a.ID, a.Model)
	}
	if f.overdue(d) {
		f.fatalf("#%d is behind #%d, which is overdue", a.ID, d.queue[0].ID)
	}
	suspect := f.doubted[a.Model] != innocent
	if !suspect && !slices.ContainsFunc(a.Requests, func(id RequestID) bool { return f.requests[id].deaths > 0 }) {
		if len(d.queue) > 0 {
			if _, trial := f.trials[d.queue[0].ID]; trial {
				f.fatalf("#%d is queued behind the trial #%d", a.ID, d.queue[0].ID)
			}
		}
		return
	}
	if len(d.queue) > 0 || len(a.Requests) > 1 {
		f.fatalf("the trial #%d has %d requests and is behind %d actions", a.ID, len(a.Requests), len(d.queue))
	}
	f.checkRisk(a, w)
	for _, name := range slices.Sorted(maps.Keys(f.workers)) {
		for _, d := range f.workers[name].devices {
			for _, other := range d.queue {
				if _, trial := f.trials[other.ID]; suspect && trial && other.Model == a.Model && !f.abandoned[other.ID] {
					f.fatalf("#%d and #%d are trials of the suspect model %d", other.ID, a.ID, a.Model)
				}
			}
		}
	}
	f.trials[a.ID] = suspect
}

func (f *fakeFleet) checkTrialLoad(a Action, w *fakeWorker) {
	if f.stopped[a.Model] {
		f.fatalf("#%d loads model %d, which is stopped", a.ID, a.Model)
	}
	if f.doubted[a.Model] == innocent {
		return
	}
	f.checkRisk(a, w)
	for _, other := range f.workers {
		for _, d := range other.devices {
			if slices.ContainsFunc(d.moving, func(m Action) bool { return m.Kind == LoadWeights && m.Model == a.Model }) {
				f.fatalf("#%d loads the suspect model %d, which is being loaded on %s", a.ID, a.Model, other.spec.Name)
			}
		}
	}
	f.trials[a.ID] = true
}
