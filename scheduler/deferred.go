package scheduler

import "time"

// deferred is the deferred batching of Symphony (Chen et al. 2023): a batch that
// starts as soon as a device is free is too small under load, so it waits, but never
// past the instant from which on waiting can't make it larger.
//
// The candidate of a queue is as many of the requests that are in time as their
// deadlines allow. It is due, on the device that could start it first, when one
// request more would no longer fit: a full one, or one without a deadline, at once.
// Of the candidates that are due on a device the one goes first whose latest start
// comes first.
type deferred struct{ plain }

// deferredJitter is how long before the last moment a batch is to start: alarms ring
// late, and the way to the worker varies.
const deferredJitter = time.Millisecond

func (deferred) choose(p *core, d *device) (at *place, best batch) {
	var first Instant
	p.eachRunnable(d, func(pl *place) {
		for _, q := range pl.model.queues {
			b := p.fillOne(pl, q, p.firstTimed(pl, q), pl.model.batchRows())
			if b.rows == 0 {
				continue
			}
			latest, due := dueAt(p, pl, &b)
			if when := p.leaves(pl.model, due); when > p.now {
				p.reconsider(pl.model, when)
			} else if best.rows == 0 || latest < first {
				at, best, first = pl, b, latest
			}
		}
	})
	return at, best
}

// dueAt is when a candidate has to start at the latest, and when it is due.
func dueAt(p *core, pl *place, b *batch) (latest, due Instant) {
	if b.minDeadline == 0 {
		return b.parts[0].queue.loose[0].urgency(p.options.BestEffortAge), p.now
	}
	latest = b.minDeadline.Add(-deferredJitter - b.expected)
	if b.rows >= pl.model.batchRows() || !pl.model.Batched {
		return latest, p.now
	}
	return latest, b.minDeadline.Add(-deferredJitter - pl.execution(p.now, b.rows+1))
}

// leaves is when a batch of a model has to be sent so that it starts at an instant,
// on the device that could start it first; not after now: it can't start later than
// that if it is sent now.
func (p *core) leaves(m *model, start Instant) Instant {
	d := p.roomiest(m, nil)
	if p.begins(d) >= start {
		return p.now
	}
	return start.Add(-d.host.trip.lag(p.now))
}
