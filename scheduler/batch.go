package scheduler

import (
	"slices"
	"time"
)

// batchParts is from how many queues a batch is made at most.
const batchParts = 4

// batch is a choice of requests that may run together, of one model and class:
// parts of queues, or else single requests.
type batch struct {
	parts       [batchParts]part
	used        int // parts
	picked      []*request
	rows        int
	expected    time.Duration
	minDeadline Instant // 0: none has one
}

// part is what a batch takes of one queue: timed[from:from+timed], loose[:loose].
type part struct {
	queue              *queue
	from, timed, loose int
}

// bestEffort says that requests without a deadline are in the batch.
func (b *batch) bestEffort() bool {
	for i := range b.parts[:b.used] {
		if b.parts[i].loose > 0 {
			return true
		}
	}
	return slices.ContainsFunc(b.picked, func(r *request) bool { return r.Deadline == 0 })
}

// count is how many requests are in the batch.
func (b *batch) count() (n int) {
	n = len(b.picked)
	for i := range b.parts[:b.used] {
		n += b.parts[i].timed + b.parts[i].loose
	}
	return n
}

// fill makes a batch of timed[from:] and loose of a queue, by urgency, and then of
// the other queues of its class: as many as have at most so many rows and meet
// every deadline among them.
func (p *core) fill(pl *place, q *queue, from, mostRows int) batch {
	b := p.fillOne(pl, q, from, mostRows)
	p.fillUp(pl, &b, mostRows, ranks, never)
	return b
}

// fillOne does so from that queue alone.
func (p *core) fillOne(pl *place, q *queue, from, mostRows int) (b batch) {
	p.fillFrom(pl, &b, p.begins(pl.device), q, from, mostRows, never)
	return b
}

// fillUp adds requests of the other queues of ranks before one, the first rank
// first, as long as the batch is answered by an instant. Of a queue it takes the most
// urgent ones, or those that leave time for a full batch if they are more.
func (p *core) fillUp(pl *place, b *batch, mostRows int, before uint8, by Instant) {
	start, m := p.begins(pl.device), pl.model
	for len(m.queues) > 1 && b.used < batchParts && b.rows > 0 && b.rows < mostRows && m.Batched {
		next := b.nextQueue(m)
		if next == nil || next.rank >= before {
			return
		}
		with := *b
		from := next.since(start.Add(pl.execution(p.now, b.rows+1)))
		p.fillFrom(pl, &with, start, next, from, mostRows, by)
		if with.rows < mostRows && from < len(next.timed) && with.leaves(next) {
			younger := *b
			if i := next.since(start.Add(pl.execution(p.now, mostRows))); i > from {
				p.fillFrom(pl, &younger, start, next, i, mostRows, by)
			}
			if younger.rows > with.rows {
				with = younger
			}
		}
		if with.rows == b.rows {
			return
		}
		*b = with
	}
}

// leaves says that the batch does not have all of a queue to its end.
func (b *batch) leaves(q *queue) bool {
	last := &b.parts[max(0, b.used-1)]
	return last.queue != q || last.from+last.timed < len(q.timed)
}

// nextQueue is the queue of the first rank that goes with the batch and has not
// been asked.
func (b *batch) nextQueue(m *model) (next *queue) {
	first := b.parts[0].queue
candidates:
	for _, q := range m.queues {
		if q.class != first.class || q.bound != first.bound || next != nil && next.rank <= q.rank {
			continue
		}
		for i := range b.parts[:b.used] {
			if b.parts[i].queue == q {
				continue candidates
			}
		}
		next = q
	}
	return next
}

// fillFrom adds requests of one queue, and says how many rows.
func (p *core) fillFrom(pl *place, b *batch, start Instant, q *queue, from, mostRows int, by Instant) (added int) {
	part := part{queue: q, from: from}
	age := p.options.BestEffortAge
	for {
		var r *request
		if i := from + part.timed; i < len(q.timed) {
			r = q.timed[i]
		}
		if part.loose < len(q.loose) && (r == nil || moreUrgent(q.loose[part.loose], r, age)) {
			r = q.loose[part.loose]
		}
		if r == nil || !p.join(pl, b, start, r, mostRows, by) {
			break
		}
		added += r.rows
		if r.Deadline != 0 {
			part.timed++
		} else {
			part.loose++
		}
	}
	if added > 0 {
		b.parts[b.used] = part
		b.used++
	}
	return added
}

// join counts a request into a batch that starts at an instant, unless that would
// have too many rows, miss a deadline, or end later than by.
func (p *core) join(pl *place, b *batch, start Instant, r *request, mostRows int, by Instant) bool {
	if b.rows > 0 && (b.rows+r.rows > mostRows || !pl.model.Batched) {
		return false
	}
	expected := pl.execution(p.now, b.rows+r.rows)
	deadline := b.minDeadline
	if r.Deadline != 0 && (deadline == 0 || r.Deadline < deadline) {
		deadline = r.Deadline
	}
	end := start.Add(expected)
	if deadline != 0 && end > deadline || end > by {
		return false
	}
	b.rows += r.rows
	b.expected, b.minDeadline = expected, deadline
	return true
}

// firstTimed is the index of the first request with a deadline that can be met.
func (p *core) firstTimed(pl *place, q *queue) int {
	i := 0
	if least := p.answered(pl, 1); len(q.timed) > 0 && q.timed[0].Deadline < least {
		i = q.since(least)
	}
	for i < len(q.timed) && q.timed[i].rows > 1 && q.timed[i].Deadline < p.answered(pl, q.timed[i].rows) {
		i++
	}
	return i
}

// firstInTime is the first request that the device can answer in time, if it is
// the next that it runs.
func (p *core) firstInTime(pl *place, q *queue) *request {
	var r *request
	if i := p.firstTimed(pl, q); i < len(q.timed) {
		r = q.timed[i]
	}
	if len(q.loose) > 0 && (r == nil || moreUrgent(q.loose[0], r, p.options.BestEffortAge)) {
		r = q.loose[0]
	}
	return r
}
