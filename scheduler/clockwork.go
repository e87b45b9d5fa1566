package scheduler

import "time"

// clockwork is the policy of Clockwork (Gujarati et al., OSDI 2020): the scheduler
// of its published results, on the books of this package.
//
// There each model has a queue for each batch size that was profiled, and each
// device an order of strategies, which are a model and a size: by the latest start
// with which the front of that queue is still in time. So larger batches, whose
// latest starts are earlier, are tried first, and give way to smaller ones of their
// model where fewer requests wait. Here the queues are views of one: what a larger
// size leaves of a model that is in time for it.
//
// It differs from the original in what the core does for every policy: loads and
// evictions of weights, how long things are estimated to take, how far ahead a
// device is given work, until when it may start it, and that what can't be in time
// is refused rather than left to time out. A batch of requests with several rows
// each, which the original does not have, may have less rows than its size when no
// further request fits.
type clockwork struct{ plain }

// From Clockwork's controller.
const (
	// clockworkAim is how long before its deadline a request is to be answered.
	clockworkAim = 5 * time.Millisecond
	// clockworkLongest is what a batch of more than one takes at most.
	clockworkLongest = 25 * time.Millisecond
)

func (clockwork) choose(p *core, d *device) (at *place, best batch) {
	var first Instant
	p.eachRunnable(d, func(pl *place) {
		for _, q := range pl.model.queues {
			if b, latest := largestFull(p, pl, q); b.rows > 0 && (best.rows == 0 || latest < first) {
				at, best, first = pl, b, latest
			}
		}
	})
	return at, best
}

// largestFull is the strategy of a queue that would be tried first and can be had:
// the largest batch for which there are enough requests in time, and its latest
// start.
func largestFull(p *core, pl *place, q *queue) (b batch, latest Instant) {
	profile := pl.timing.profile
	for i := len(profile) - 1; i >= 0; i-- {
		if size := profile[i].Rows; size > 1 && size <= pl.model.batchRows() && pl.model.Batched &&
			pl.execution(p.now, size) <= clockworkLongest {
			if b, latest = full(p, pl, q, size); b.rows > 0 {
				return b, latest
			}
		}
	}
	return full(p, pl, q, 1)
}

// full is a batch of that size, if there are enough requests, and its latest start.
func full(p *core, pl *place, q *queue, size int) (b batch, latest Instant) {
	expected := pl.execution(p.now, size)
	start := p.begins(pl.device).Add(clockworkAim)
	from := q.since(start.Add(expected))
	for from < len(q.timed) && q.timed[from].rows > size && q.timed[from].Deadline < start.Add(pl.execution(p.now, q.timed[from].rows)) {
		from++
	}
	waiting := len(q.timed) - from + len(q.loose)
	if waiting == 0 || waiting < size && !pl.model.mixed {
		return b, 0
	}
	if b = p.fillOne(pl, q, from, size); b.rows < size && b.count() == waiting && size > 1 {
		return batch{}, 0
	}
	if b.rows == 0 {
		return b, 0
	}
	part := &b.parts[0]
	latest = never
	if part.timed > 0 {
		latest = q.timed[from].Deadline
	}
	if part.loose > 0 {
		latest = min(latest, q.loose[0].urgency(p.options.BestEffortAge))
	}
	return b, latest.Add(-expected)
}
