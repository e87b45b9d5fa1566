package scheduler

import (
	"cmp"
	"slices"
)

// fifo is the policy "first in, first out": a device that has room takes the
// oldest request that it can still answer in time, and what waits of the same
// model and shape class in the order of its arrival, as far as the batch keeps
// every deadline in it. It is how serving systems begin (Clipper 2017 and
// TensorFlow Serving batch a queue in this order), and knows urgency only as
// something to give up on.
//
// Of requests that are bound to devices, a device takes its own.
type fifo struct {
	plain
	picked []*request // scratch
}

func byArrival(a, b *request) int {
	return cmp.Or(cmp.Compare(a.Arrived, b.Arrived), cmp.Compare(a.seq, b.seq))
}

func (f *fifo) choose(p *core, d *device) (*place, batch) {
	var at *place
	var from *queue
	var first *request
	p.eachRunnable(d, func(pl *place) {
		for _, q := range pl.model.queues {
			p.eachInTime(pl, q, func(r *request) {
				if first == nil || byArrival(r, first) < 0 {
					first, at, from = r, pl, q
				}
			})
		}
	})
	if at == nil {
		return nil, batch{}
	}
	f.picked = f.picked[:0]
	for _, q := range at.model.queues {
		if q.class == from.class {
			p.eachInTime(at, q, func(r *request) { f.picked = append(f.picked, r) })
		}
	}
	slices.SortFunc(f.picked, byArrival)
	return at, p.inOrder(at, f.picked)
}

// eachInTime calls g for the requests of a queue that the device may run, and can
// answer in time if they are all that it runs next.
func (p *core) eachInTime(pl *place, q *queue, g func(*request)) {
	if q.bound != nil && q.bound != pl.device {
		return
	}
	for _, r := range q.timed[p.firstTimed(pl, q):] {
		if r.rows == 1 || p.answered(pl, r.rows) <= r.Deadline {
			g(r)
		}
	}
	for _, r := range q.loose {
		g(r)
	}
}

// inOrder makes a batch of the first of some requests.
func (p *core) inOrder(pl *place, all []*request) (b batch) {
	start := p.begins(pl.device)
	for i, r := range all {
		if !p.join(pl, &b, start, r, pl.model.batchRows(), never) {
			break
		}
		b.picked = all[:i+1]
	}
	return b
}
