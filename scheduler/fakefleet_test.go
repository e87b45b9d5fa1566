package scheduler

import (
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// fakeFleet carries out what a policy decides, on a clock of its own, and
// checks every decision against its own books. It fails by calling fatalf.
type fakeFleet struct {
	fatalf func(format string, args ...any)
	policy Policy
	now    Instant
	wake   Instant
	agenda agenda
	seq    int

	lag      time.Duration // what the policy was told
	workers  map[string]*fakeWorker
	models   map[ModelID]Model
	requests map[RequestID]*fakeRequest
	reasons  map[Reason]int
	actions  int

	books

	// fate decides what becomes of an action; nil: it takes what was expected.
	fate func(a Action) fakeFate
	// logf is told of all events and decisions; nil: nobody wants to know.
	logf func(format string, args ...any)
	// stepped is called at the end of each step.
	stepped func()
	// completed is told of completions.
	completed func(r Request, c Completion)
}

type fakeFate struct {
	outcome  Outcome
	absent   bool
	duration time.Duration
	delay    time.Duration // of the result
	silent   bool          // no result ever
	dies     bool          // the worker, instead of a result
}

type fakeRequest struct {
	Request
	completions int
	at          ActionID // where it runs, as far as the policy has said. 0: nowhere
	// Workers that died with it, devices that did not answer in time.
	deaths, unanswered int
}

type fakeWorker struct {
	spec    Worker
	up      bool
	life    int
	heard   Instant
	devices []*fakeDevice
}

type fakeDevice struct {
	pages    int
	taken    map[ModelID]int  // resident or loading
	resident map[ModelID]bool // a load has been reported
	loadedBy map[ModelID]ActionID
	queue    []Action // Infers that have not been reported
	due      Instant  // of the first of them
	moving   []Action // of weights, not reported
	free     Instant  // in truth
	transfer Instant  // in truth
}

type appointment struct {
	at  Instant
	seq int
	do  func() []Event
}

type agenda []appointment

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(appointment)) }
func (a *agenda) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

func newFakeFleet(p Policy, fatalf func(string, ...any)) *fakeFleet {
	return &fakeFleet{
		fatalf: fatalf, policy: p, lag: time.Millisecond,
		workers:  make(map[string]*fakeWorker),
		models:   make(map[ModelID]Model),
		requests: make(map[RequestID]*fakeRequest),
		reasons:  make(map[Reason]int),
		books:    newBooks(),
	}
}

func (f *fakeFleet) at(t Instant, do func() []Event) {
	f.seq++
	heap.Push(&f.agenda, appointment{max(t, f.now), f.seq, do})
}

func (f *fakeFleet) after(d time.Duration, do func() []Event) { f.at(f.now.Add(d), do) }

func (f *fakeFleet) start(s *State) {
	for _, m := range s.Models {
		f.models[m.ID] = m
	}
	for _, w := range s.Workers {
		f.raise(w)
	}
	f.step(Start{s})
}

func (f *fakeFleet) raise(spec Worker) {
	life := 1
	if old := f.workers[spec.Name]; old != nil {
		life = old.life + 1
		f.lose(old, false)
	}
	w := &fakeWorker{spec: spec, up: true, life: life, heard: f.now}
	for _, d := range spec.Devices {
		fd := &fakeDevice{pages: d.Pages, taken: make(map[ModelID]int), resident: make(map[ModelID]bool),
			loadedBy: make(map[ModelID]ActionID)}
		for _, r := range d.Resident {
			fd.taken[r.Model], fd.resident[r.Model] = r.Pages, true
		}
		w.devices = append(w.devices, fd)
	}
	f.workers[spec.Name] = w
}

func (f *fakeFleet) workerUp(spec Worker) Event {
	f.raise(spec)
	return WorkerUp{&spec}
}

func (f *fakeFleet) workerDown(name string, died bool) Event {
	f.workers[name].up = false
	return WorkerDown{Name: name, Died: died}
}

func (f *fakeFleet) submit(r Request) Event {
	if f.requests[r.ID] != nil {
		f.fatalf("the test submitted %d twice", r.ID)
	}
	f.requests[r.ID] = &fakeRequest{Request: r}
	return Submit{&r}
}

// run lets time pass until end: appointments and the policy's wake-ups.
func (f *fakeFleet) run(end Instant) {
	for {
		next := end
		if f.wake != 0 {
			next = min(next, f.wake)
		}
		if len(f.agenda) > 0 {
			next = min(next, f.agenda[0].at)
		}
		f.now = next
		var events []Event
		for len(f.agenda) > 0 && f.agenda[0].at <= next {
			events = append(events, heap.Pop(&f.agenda).(appointment).do()...)
		}
		f.step(events...)
		if next == end && (len(f.agenda) == 0 || f.agenda[0].at > end) {
			return
		}
	}
}

func (f *fakeFleet) step(events ...Event) {
	for _, e := range events {
		f.book(e)
	}
	var out Decisions
	f.policy.Step(f.now, events, &out)
	if f.logf != nil {
		f.log(events, &out)
	}
	f.checkRepairs(out.Repairs)
	f.checkAbandoned(out.Abandoned)
	f.checkBlamed(out.Blamed)
	for _, a := range out.Actions {
		f.actions++
		f.carryOut(a)
	}
	for _, c := range out.Completions {
		r := f.requests[c.Request]
		if r == nil {
			f.fatalf("completion of %d, which was never submitted", c.Request)
		}
		r.completions++
		if r.completions > 1 {
			f.fatalf("request %d was completed twice, now %v", c.Request, c.Reason)
		}
		if r.Deadline != 0 && r.Deadline > r.Arrived && f.now > r.Deadline {
			f.fatalf("request %d was completed (%v) %v after its deadline", c.Request, c.Reason, f.now.Sub(r.Deadline))
		}
		f.checkReason(r, c)
		f.reasons[c.Reason]++
		if f.completed != nil {
			f.completed(r.Request, c)
		}
	}
	if out.Wake != 0 && out.Wake <= f.now {
		f.fatalf("wake at %d is not after now, %d", out.Wake, f.now)
	}
	f.checkNothingForgotten()
	f.wake = out.Wake
	if f.stepped != nil {
		f.stepped()
	}
}

func (f *fakeFleet) log(events []Event, out *Decisions) {
	f.logf("at %v:", time.Duration(f.now))
	for _, e := range events {
		switch e := e.(type) {
		case Submit:
			f.logf("  submitted: %+v", *e.Request)
		case Finished:
			f.logf("  result: %+v", *e.Result)
		default:
			f.logf("  event: %+v", e)
		}
	}
	for _, a := range out.Actions {
		f.logf("  action: %+v", a)
	}
	for _, c := range out.Completions {
		f.logf("  completed: %d with %v", c.Request, c.Reason)
	}
	if len(out.Abandoned)+len(out.Blamed) > 0 {
		f.logf("  abandoned: %v, blamed: %v", out.Abandoned, out.Blamed)
	}
	f.logf("  wake: %v", time.Duration(out.Wake))
}

func (f *fakeFleet) carryOut(a Action) {
	w := f.workers[a.Worker]
	if w == nil || !w.up {
		f.fatalf("%v was sent to %s, which is down", a.Kind, a.Worker)
	}
	d := w.devices[a.Device]
	life := w.life
	fate := fakeFate{duration: a.Expected}
	if f.fate != nil {
		fate = f.fate(a)
	}
	var free *Instant
	var settle func(ok bool)
	switch a.Kind {
	case Infer:
		f.checkInfer(a, w, d)
		f.checkTrial(a, w, d)
		if len(d.queue) == 0 {
			d.due = f.now.Add(a.Expected)
		}
		d.queue = append(d.queue, a)
		free = &d.free
		settle = func(ok bool) {
			if !ok && fate.absent && a.ID > d.loadedBy[a.Model] {
				delete(d.taken, a.Model)
				delete(d.resident, a.Model)
			}
		}
	case LoadWeights:
		f.checkTrialLoad(a, w)
		pages := pagesOf(f.models[a.Model], w.spec.Devices[a.Device])
		if _, ok := d.taken[a.Model]; ok {
			f.fatalf("weights of %d are loaded twice on %s/%d", a.Model, a.Worker, a.Device)
		}
		d.taken[a.Model], d.loadedBy[a.Model] = pages, a.ID
		if sum := d.sum(); sum > d.pages {
			f.fatalf("%d of %d pages are taken on %s/%d", sum, d.pages, a.Worker, a.Device)
		}
		free = &d.transfer
		settle = func(ok bool) {
			if ok {
				d.resident[a.Model] = true
			} else {
				delete(d.taken, a.Model)
			}
		}
	case EvictWeights:
		if !d.resident[a.Model] {
			f.fatalf("weights of %d are evicted and not resident on %s/%d", a.Model, a.Worker, a.Device)
		}
		if slices.ContainsFunc(d.queue, func(q Action) bool { return q.Model == a.Model }) {
			f.fatalf("weights of %d are evicted while they are in use", a.Model)
		}
		delete(d.taken, a.Model)
		delete(d.resident, a.Model)
		fate = fakeFate{}
		free = &d.transfer
		settle = func(bool) {}
	}
	if a.Kind != Infer {
		d.moving = append(d.moving, a)
	}
	start := max(f.now.Add(f.lag/2), *free)
	result := &Result{Action: a.ID, Outcome: fate.outcome, Absent: fate.absent, Engine: fate.duration}
	if a.Latest != 0 && start > a.Latest {
		result.Outcome, result.Absent = Refused, false
		fate.absent = false
	}
	end := start
	if result.Outcome != Refused {
		end = start.Add(fate.duration)
		*free = end
	}
	if fate.silent {
		return
	}
	f.at(end.Add(f.lag/2+fate.delay), func() []Event {
		if fate.dies && result.Outcome == OK {
			if w.life != life || !w.up || f.workers[a.Worker] != w {
				return nil
			}
			return []Event{f.workerDown(a.Worker, true)}
		}
		if w.life == life && w.up && f.workers[a.Worker] == w {
			settle(result.Outcome == OK)
		}
		return []Event{Finished{result}}
	})
}

func (d *fakeDevice) sum() (sum int) {
	for _, n := range d.taken {
		sum += n
	}
	return sum
}

func (f *fakeFleet) checkInfer(a Action, w *fakeWorker, d *fakeDevice) {
	if !d.resident[a.Model] {
		f.fatalf("Infer of %d on %s/%d, where its weights are not resident", a.Model, a.Worker, a.Device)
	}
	if !slices.Contains(w.spec.Holds, a.Model) {
		f.fatalf("Infer of %d on %s, which doesn't hold it", a.Model, a.Worker)
	}
	start := f.now
	if len(d.queue) > 0 {
		start = max(start, d.due)
		for _, q := range d.queue[1:] {
			start = start.Add(q.Expected)
		}
	}
	rows, class := 0, ""
	for i, id := range a.Requests {
		r := f.requests[id]
		rows += r.Rows
		if i == 0 {
			class = r.Class
		}
		if r.at != 0 {
			f.fatalf("request %d is in #%d and in #%d", id, r.at, a.ID)
		}
		r.at = a.ID
		if r.Class != class || r.Model != a.Model || r.completions > 0 {
			f.fatalf("request %d (model %d, class %q, completed %d times) is in a batch of model %d, class %q",
				id, r.Model, r.Class, r.completions, a.Model, class)
		}
		if r.Deadline != 0 && start.Add(a.Expected) > r.Deadline {
			f.fatalf("the batch with request %d is planned to end %v after its deadline",
				id, start.Add(a.Expected).Sub(r.Deadline))
		}
		if r.Deadline != 0 && (a.Latest == 0 || a.Latest > f.now && a.Latest.Add(a.Expected) > r.Deadline) {
			f.fatalf("request %d may start at %d and end after its deadline", id, a.Latest)
		}
	}
	m := f.models[a.Model]
	if rows != a.Rows || rows > m.MaxRows || !m.Batched && len(a.Requests) > 1 {
		f.fatalf("batch of %d rows (said to be %d) in %d requests for a model of %d, batched %v",
			rows, a.Rows, len(a.Requests), m.MaxRows, m.Batched)
	}
}

func pagesOf(m Model, d Device) int { return int((m.WeightsBytes + d.PageBytes - 1) / d.PageBytes) }

// resnet is like ResNet50 on a V100.
func resnet(id ModelID, kind string) (Model, Profile) {
	us := func(n int) time.Duration { return time.Duration(n) * time.Microsecond }
	return Model{ID: id, MaxRows: 16, Batched: true, WeightsBytes: 102 << 20},
		Profile{Model: id, DeviceKind: kind, WeightsLoad: us(8310), Execution: []RowsTime{
			{1, us(2730)}, {2, us(4050)}, {4, us(5880)}, {8, us(9930)}, {16, us(17330)}}}
}

// resnets is a fleet of workers with one device each, which all hold n models.
func resnets(workers, models, pages int) *State {
	s := &State{}
	var holds []ModelID
	for id := ModelID(1); id <= ModelID(models); id++ {
		m, f := resnet(id, "V100")
		s.Models, s.Profiles, holds = append(s.Models, m), append(s.Profiles, f), append(holds, id)
	}
	for i := range workers {
		s.Workers = append(s.Workers, Worker{Name: fmt.Sprintf("w%d", i+1), Holds: holds, Speed: 1,
			Devices: []Device{{Kind: "V100", Pages: pages, PageBytes: 16 << 20}}})
	}
	return s
}
