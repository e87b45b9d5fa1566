package sim

import (
	"slices"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// job is an action on its way.
type job struct {
	scheduler.Action
	model   int32
	session uint32
	life    uint32
	started scheduler.Instant
	took    time.Duration
	// dropped: the session that asked for it is over.
	dropped bool
}

// residency is how far the weights of a model have come on a device.
type residency uint8

const (
	absent residency = iota
	loading
	resident
)

// lane is an engine of a device, execution or transfer, with its queue.
type lane struct {
	// queue is by earliest start, and then by arrival.
	queue   []*job
	running *job
}

func (l *lane) push(j *job) {
	i := len(l.queue)
	for i > 0 && l.queue[i-1].Earliest > j.Earliest {
		i--
	}
	l.queue = slices.Insert(l.queue, i, j)
}

// drop forgets the jobs of sessions that are over. What runs goes on.
func (l *lane) drop() {
	clear(l.queue)
	l.queue = l.queue[:0]
	if l.running != nil {
		l.running.dropped = true
	}
}

// uses says whether a job of the model waits or runs.
func (l *lane) uses(model int32) bool {
	return l.running != nil && l.running.model == model ||
		slices.ContainsFunc(l.queue, func(j *job) bool { return j.model == model })
}

// worker is a worker at work.
type worker struct {
	*Worker
	s       *simulation
	index   int32
	devices []*device
	// life counts its starts. alive and frozen are its process's state.
	life          uint32
	alive, frozen bool
	// session counts connections that began or ended; connected is what the
	// controller believes.
	session   uint32
	connected bool
	// lastOut and lastIn are when the last message of each direction arrives.
	lastOut, lastIn scheduler.Instant
	// deferred is what happens to it while it is frozen.
	deferred []event
}

// device is a device at work.
type device struct {
	*Device
	worker   *worker
	index    int32
	slowdown float64

	execution, transfer lane
	free                int         // pages
	state               []residency // by model
	looksAt             scheduler.Instant
	tally               tally
}

func newWorker(s *simulation, spec *Worker, index int) *worker {
	w := &worker{Worker: spec, s: s, index: int32(index), alive: true}
	for i := range spec.Devices {
		d := &spec.Devices[i]
		w.devices = append(w.devices, &device{Device: d, worker: w, index: int32(i),
			slowdown: slowdownOf(*d), free: d.Pages, state: make([]residency, len(s.models))})
	}
	return w
}

// pages is how many pages the weights of a model take.
func (d *device) pages(model int32) int {
	return int(max(1, (d.worker.s.models[model].WeightsBytes+d.PageBytes-1)/d.PageBytes))
}

// description is what a worker says of itself.
func (w *worker) description() *scheduler.Worker {
	out := &scheduler.Worker{Name: w.Name, Speed: w.Speed}
	if out.Speed == 0 {
		out.Speed = 1
	}
	for _, d := range w.devices {
		said := scheduler.Device{Kind: d.Kind, Pages: d.Pages, PageBytes: d.PageBytes}
		for m, state := range d.state {
			if state == resident {
				said.Resident = append(said.Resident, scheduler.Resident{Model: scheduler.ModelID(m + 1), Pages: d.pages(int32(m))})
			}
		}
		out.Devices = append(out.Devices, said)
	}
	if w.Holds == nil {
		for i := range w.s.models {
			out.Holds = append(out.Holds, w.s.models[i].id)
		}
	}
	for _, m := range w.Holds {
		out.Holds = append(out.Holds, w.s.models[m].id)
	}
	return out
}

// happen is what happens at the worker's end.
func (w *worker) happen(e *event) {
	switch {
	case !w.alive:
		return
	case w.frozen:
		w.deferred = append(w.deferred, *e)
		return
	}
	d := w.devices[e.which]
	switch e.kind {
	case actionArrives:
		if e.session != w.session {
			return // it is stale
		}
		if e.job.Kind == scheduler.Infer {
			d.execution.push(e.job)
		} else {
			d.transfer.push(e.job)
		}
	case cancelArrives:
		if i := slices.Index(d.execution.queue, e.job); i >= 0 {
			d.execution.queue = slices.Delete(d.execution.queue, i, i+1)
			d.answer(e.job, scheduler.Skipped, false)
		}
	case executed:
		if e.job.life != w.life {
			return
		}
		d.execution.running = nil
		if w.s.book.counts(w.s.now) {
			d.tally.batches++
			d.tally.rows += e.job.Rows
		}
		w.s.book.span(d, e.job, w.s.now)
		d.answer(e.job, scheduler.OK, false)
	case transferred:
		if e.job.life != w.life {
			return
		}
		d.transfer.running = nil
		d.become(e.job.model, resident)
		if w.s.book.counts(w.s.now) {
			d.tally.loads++
		}
		w.s.book.span(d, e.job, w.s.now)
		w.s.book.moved(w.s.now, true)
		if e.job.dropped {
			w.s.toController(w, event{kind: reportArrives}) // the leader does not know of it
		}
		d.answer(e.job, scheduler.OK, false)
	case look:
		if e.at >= d.looksAt { // later, if it was frozen
			d.looksAt = 0
		}
	}
	d.look()
}

// become notes where the weights of a model are.
func (d *device) become(model int32, to residency) {
	from := d.state[model]
	m := &d.worker.s.models[model]
	switch {
	case from == absent:
		d.free -= d.pages(model)
	case to == absent:
		d.free += d.pages(model)
	}
	if from == resident {
		m.resident--
	}
	if to == resident {
		m.resident++
	}
	d.state[model] = to
	if d.free < 0 || d.free > d.Pages {
		panic("sim: the account of pages is wrong")
	}
}

// answer sends the result of a job.
func (d *device) answer(j *job, outcome scheduler.Outcome, absent bool) {
	if j.dropped {
		return
	}
	d.worker.s.toController(d.worker, event{kind: resultArrives, result: &scheduler.Result{
		Action: j.ID, Outcome: outcome, Engine: j.took, Absent: absent}})
}

// look refuses what is late, starts what may begin, and has itself called again.
func (d *device) look() {
	now := d.worker.s.now
	d.refuseLate(&d.execution, now)
	d.refuseLate(&d.transfer, now)
	for d.transfer.running == nil {
		j := d.nextTransfer(now)
		if j == nil {
			break
		}
		d.move(j, now)
	}
	for d.execution.running == nil {
		j := d.nextInfer(now)
		if j == nil {
			break
		}
		d.infer(j, now)
	}
	d.lookAgain(now)
}

func (d *device) refuseLate(l *lane, now scheduler.Instant) {
	for i := 0; i < len(l.queue); {
		j := l.queue[i]
		if j.Latest == 0 || j.Latest >= now {
			i++
			continue
		}
		l.queue = slices.Delete(l.queue, i, i+1)
		d.tally.refused++
		d.answer(j, scheduler.Refused, j.Kind == scheduler.LoadWeights)
	}
}

func (d *device) nextTransfer(now scheduler.Instant) *job {
	if l := &d.transfer; len(l.queue) > 0 && l.queue[0].Earliest <= now {
		j := l.queue[0]
		l.queue = slices.Delete(l.queue, 0, 1)
		return j
	}
	return nil
}

// nextInfer is the first batch that may begin. One that awaits its weights lets
// others pass.
func (d *device) nextInfer(now scheduler.Instant) *job {
	l := &d.execution
	for i, j := range l.queue {
		if j.Earliest > now {
			return nil
		}
		if !d.awaits(j.model) {
			l.queue = slices.Delete(l.queue, i, i+1)
			return j
		}
	}
	return nil
}

// awaits says whether weights that are not here are about to come.
func (d *device) awaits(model int32) bool {
	if d.state[model] == resident {
		return false
	}
	loads := func(j *job) bool { return j.model == model && j.Kind == scheduler.LoadWeights }
	return d.transfer.running != nil && loads(d.transfer.running) || slices.ContainsFunc(d.transfer.queue, loads)
}

// move begins a transfer of weights; an eviction takes no time.
func (d *device) move(j *job, now scheduler.Instant) {
	s := d.worker.s
	if j.Kind == scheduler.EvictWeights {
		switch {
		case d.execution.uses(j.model):
			d.answer(j, scheduler.Refused, false)
		case d.state[j.model] != resident:
			d.answer(j, scheduler.Refused, true)
		default:
			d.become(j.model, absent)
			if s.book.counts(now) {
				d.tally.evictions++
			}
			s.book.moved(now, false)
			d.answer(j, scheduler.OK, false)
		}
		return
	}
	p := s.models[j.model].profile(d.Kind)
	switch {
	case p == nil || !d.worker.holds(j.model):
		d.answer(j, scheduler.Refused, true)
		return
	case d.state[j.model] == resident:
		d.answer(j, scheduler.OK, false)
		return
	case d.state[j.model] != absent || d.pages(j.model) > d.free:
		d.tally.refused++
		d.answer(j, scheduler.Refused, true)
		return
	}
	d.become(j.model, loading)
	j.started, j.life = now, d.worker.life
	j.took = max(1, time.Duration(float64(p.WeightsLoad)*d.slowdown))
	d.transfer.running = j
	s.agenda.push(event{at: now.Add(j.took), kind: transferred, who: d.worker.index, which: d.index, job: j})
}

func (w *worker) holds(model int32) bool {
	return w.Holds == nil || slices.Contains(w.Holds, int(model))
}

// infer begins a batch.
func (d *device) infer(j *job, now scheduler.Instant) {
	s := d.worker.s
	if d.state[j.model] != resident {
		d.tally.refused++
		d.answer(j, scheduler.Refused, true)
		return
	}
	factor := d.slowdown
	if s.scenario.ExecutionJitter > 0 {
		factor *= 1 + s.scenario.ExecutionJitter*(2*s.execution.Float64()-1)
	}
	j.started, j.life = now, d.worker.life
	j.took = max(1, time.Duration(float64(s.models[j.model].times[d.Kind][j.Rows])*factor)+s.scenario.ExecutionOverhead)
	d.execution.running = j
	d.tally.busy += s.book.within(now, now.Add(j.took))
	s.agenda.push(event{at: now.Add(j.took), kind: executed, who: d.worker.index, which: d.index, job: j})
}

// lookAgain plans a look when time alone makes a job late or lets it begin.
func (d *device) lookAgain(now scheduler.Instant) {
	var at scheduler.Instant
	sooner := func(t scheduler.Instant) {
		if t > now && (at == 0 || t < at) {
			at = t
		}
	}
	for _, l := range [...]*lane{&d.execution, &d.transfer} {
		for _, j := range l.queue {
			if j.Latest != 0 {
				sooner(j.Latest + 1)
			}
			if l.running == nil {
				sooner(j.Earliest)
			}
		}
	}
	if at != 0 && (d.looksAt == 0 || at < d.looksAt) {
		d.looksAt = at
		d.worker.s.agenda.push(event{at: at, kind: look, who: d.worker.index, which: d.index})
	}
}
