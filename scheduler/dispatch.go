package scheduler

import (
	"container/heap"
	"time"
)

// batch is a choice of requests of one queue: timed[from:from+timed] and
// loose[:loose].
type batch struct {
	queue       *queue
	from        int
	timed       int
	loose       int
	rows        int
	timedRows   int
	expected    time.Duration
	minDeadline Instant // 0: none has one
}

// dispatch gives work to the devices that have room, those that will be free
// first first.
func (p *EDF) dispatch() {
	if len(p.active) == 0 {
		return
	}
	p.roomy = p.roomy[:0]
	for order, d := range p.devices {
		if p.hasRoom(d) {
			p.roomy = append(p.roomy, room{d, d.execution.free(p.now), order})
		}
	}
	heap.Init(&p.roomy)
	for len(p.active) > 0 && len(p.roomy) > 0 {
		first := &p.roomy[0]
		pl, q := p.mostUrgent(first.device)
		if q != nil {
			p.send(pl, p.bestBatch(pl, q))
		}
		if q == nil || !p.hasRoom(first.device) {
			heap.Pop(&p.roomy)
			continue
		}
		first.free = first.device.execution.free(p.now)
		heap.Fix(&p.roomy, 0)
	}
}

func (p *EDF) hasRoom(d *device) bool {
	l, ahead := &d.execution, p.options.ScheduleAhead
	return len(d.resident) > 0 && !d.trying && !d.reserved && !l.late(p.now, ahead) &&
		(len(l.actions) < 2 || l.free(p.now).Sub(p.now) <= ahead)
}

// room is a device that may be given work. Of those that are free at the same
// time the first by the workers' names is taken, so that at low load whole
// workers stay idle.
type room struct {
	device *device
	free   Instant
	order  int
}

type rooms []room

func (r rooms) Len() int { return len(r) }
func (r rooms) Less(i, j int) bool {
	return r[i].free < r[j].free || r[i].free == r[j].free && r[i].order < r[j].order
}
func (r rooms) Swap(i, j int) { r[i], r[j] = r[j], r[i] }

// Push implements heap.Interface.
func (r *rooms) Push(x any) { *r = append(*r, x.(room)) }

// Pop implements heap.Interface.
func (r *rooms) Pop() any {
	last := len(*r) - 1
	*r = (*r)[:last]
	return nil
}

// mostUrgent is the queue with the most urgent request that the device can
// answer in time, nil when there is none.
func (p *EDF) mostUrgent(d *device) (pl *place, q *queue) {
	var first *request
	consider := func(at *place) {
		if !p.mayRun(at) {
			return
		}
		for _, candidate := range at.model.queues {
			if r := p.firstInTime(at, candidate); r != nil &&
				(first == nil || moreUrgent(r, first, p.options.BestEffortAge)) {
				first, pl, q = r, at, candidate
			}
		}
	}
	// Both sets can be large; the smaller one is enough.
	if len(p.active) < len(d.resident) {
		for _, m := range p.active {
			if at := d.byModel[m.ID]; at != nil && at.state == resident {
				consider(at)
			}
		}
		return pl, q
	}
	for _, at := range d.resident {
		consider(at)
	}
	return pl, q
}

// mayRun says whether a batch of the model may be sent to where its weights
// are now. A suspect model is only tried out.
func (p *EDF) mayRun(pl *place) bool {
	if pl.model.waiting == 0 || pl.model.doubt.level != innocent || !pl.usable() {
		return false
	}
	if pl.backOff.until > p.now {
		p.wakeAt(pl.backOff.until)
		return false
	}
	return true
}

// answered is when a batch of so many rows would be answered if it were the
// next of the device.
func (p *EDF) answered(pl *place, rows int) Instant {
	return pl.device.execution.free(p.now).
		Add(pl.timing.execution(p.now, rows) + p.options.NetworkLag)
}

// firstTimed is the index of the first request with a deadline that can be met.
func (p *EDF) firstTimed(pl *place, q *queue) int {
	i := q.since(p.answered(pl, 1))
	for i < len(q.timed) && q.timed[i].rows > 1 && q.timed[i].Deadline < p.answered(pl, q.timed[i].rows) {
		i++
	}
	return i
}

func (p *EDF) firstInTime(pl *place, q *queue) *request {
	var r *request
	if i := p.firstTimed(pl, q); i < len(q.timed) {
		r = q.timed[i]
	}
	if len(q.loose) > 0 && (r == nil || moreUrgent(q.loose[0], r, p.options.BestEffortAge)) {
		r = q.loose[0]
	}
	return r
}

// bestBatch chooses from a queue that has a request in time.
func (p *EDF) bestBatch(pl *place, q *queue) batch {
	most := pl.model.batchRows()
	best := p.fill(pl, q, p.firstTimed(pl, q), most)
	if !p.overloaded(pl.model) || best.timed == 0 || !pl.model.Batched {
		return best
	}
	for i := range pl.timing.exec {
		rows := min(pl.timing.exec[i].rows, most)
		b := p.fill(pl, q, q.since(p.answered(pl, rows)), rows)
		if int64(b.timedRows)*int64(best.expected) > int64(best.timedRows)*int64(b.expected) {
			best = b
		}
	}
	return best
}

func (p *EDF) overloaded(m *model) bool {
	return m.missed != 0 && p.now.Sub(m.missed) < p.options.OverloadMemory
}

// fill takes requests from timed[from:] and loose by urgency, for as long as
// the batch has at most so many rows and meets every deadline in it.
func (p *EDF) fill(pl *place, q *queue, from, mostRows int) batch {
	b := batch{queue: q, from: from}
	for {
		var r *request
		if i := from + b.timed; i < len(q.timed) {
			r = q.timed[i]
		}
		if b.loose < len(q.loose) && (r == nil || moreUrgent(q.loose[b.loose], r, p.options.BestEffortAge)) {
			r = q.loose[b.loose]
		}
		if r == nil || b.rows > 0 && (b.rows+r.rows > mostRows || !pl.model.Batched) {
			return b
		}
		deadline := b.minDeadline
		if r.Deadline != 0 && (deadline == 0 || r.Deadline < deadline) {
			deadline = r.Deadline
		}
		if deadline != 0 && p.answered(pl, b.rows+r.rows) > deadline {
			return b
		}
		b.rows += r.rows
		b.expected = pl.timing.execution(p.now, b.rows)
		b.minDeadline = deadline
		if r.Deadline != 0 {
			b.timed++
			b.timedRows += r.rows
		} else {
			b.loose++
		}
	}
}

// send makes an Infer of the batch.
func (p *EDF) send(pl *place, b batch) {
	a := &action{batch: make([]*request, 0, b.timed+b.loose)}
	a.batch = append(a.batch, b.queue.timed[b.from:b.from+b.timed]...)
	a.batch = append(a.batch, b.queue.loose[:b.loose]...)
	b.queue.timed = cut(b.queue.timed, b.from, b.from+b.timed)
	b.queue.loose = cut(b.queue.loose, 0, b.loose)

	for _, r := range a.batch {
		p.left(r, b.queue)
	}
	p.infer(pl, a, b.rows, b.expected, b.minDeadline)
}

// infer has a.batch executed, which waits no longer. deadline is the first of
// its requests' deadlines.
func (p *EDF) infer(pl *place, a *action, rows int, expected time.Duration, deadline Instant) {
	ids := make([]RequestID, len(a.batch))
	for i, r := range a.batch {
		ids[i] = r.ID
		r.action = a
		if r.Deadline != 0 {
			p.timers.set(r, r.Deadline)
		}
	}
	a.Action = Action{Kind: Infer, Expected: expected, Requests: ids, Rows: rows}
	if deadline != 0 {
		a.Latest = max(p.now, deadline.Add(-expected-p.options.NetworkLag))
	}
	pl.running++
	pl.used = p.now
	p.act(pl, a)
}
