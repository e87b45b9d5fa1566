package scheduler

import "time"

// orrery is the default policy.
type orrery struct {
	plain
	options []option // scratch
}

// lookahead is how many models a device chooses from: the most urgent ones.
const lookahead = 16

// option is a batch that a device could run next.
type option struct {
	place *place
	key   Instant
	batch batch
	// share is the time that this device would spend on it, if the others that have
	// its weights do their part.
	share time.Duration
	out   bool // it is given up for the sake of others
}

func (o *orrery) choose(p *core, d *device) (*place, batch) {
	o.gather(p, d)
	best := 0
	if len(o.options) == 0 {
		return nil, batch{}
	}
	start := p.begins(d)
	for i := range o.options {
		x := &o.options[i]
		q := o.queueOf(p, x.place)
		if q == nil {
			x.out = true
			continue
		}
		x.batch = p.fill(x.place, q, p.firstTimed(x.place, q), x.place.model.batchRows())
		x.share = x.batch.expected / time.Duration(max(1, x.place.model.present))
		if x.batch.rows == 0 {
			x.out = true
		}
	}
	crowded := o.drop(start)
	for best < len(o.options) && o.options[best].out {
		best++
	}
	if best == len(o.options) {
		return nil, batch{}
	}
	x := &o.options[best]
	if crowded || p.missedLately(x.place.model) {
		o.grow(p, x, start)
	}
	return x.place, x.batch
}

// gather collects the most urgent models that the device may run.
func (o *orrery) gather(p *core, d *device) {
	o.options = o.options[:0]
	p.eachRunnable(d, func(pl *place) {
		key := p.keys[pl.model.slot]
		i := len(o.options)
		if i == lookahead {
			if o.options[i-1].key <= key {
				return
			}
			i--
		} else {
			o.options = append(o.options, option{})
		}
		for i > 0 && o.options[i-1].key > key {
			o.options[i] = o.options[i-1]
			i--
		}
		o.options[i] = option{place: pl, key: key}
	})
}

// queueOf is the queue of a model that goes first, of those with a request in time.
func (o *orrery) queueOf(p *core, pl *place) (best *queue) {
	var least Instant
	for _, q := range pl.model.queues {
		if r := p.firstInTime(pl, q); r != nil {
			if key := p.key(r); best == nil || key < least {
				best, least = q, key
			}
		}
	}
	return best
}

// drop gives up batches until all others can be in time one after the other: each
// time the one with the fewest rows for its time (Moore and Hodgson 1968).
func (o *orrery) drop(start Instant) (crowded bool) {
	at := start
	for i := range o.options {
		x := &o.options[i]
		if x.out {
			continue
		}
		at = at.Add(x.share)
		if x.batch.minDeadline == 0 || at <= x.batch.minDeadline {
			continue
		}
		crowded = true
		worst := -1
		for j := range o.options[:i+1] {
			y := &o.options[j]
			if !y.out && (worst < 0 || int64(y.batch.rows)*int64(o.options[worst].batch.expected) <
				int64(o.options[worst].batch.rows)*int64(y.batch.expected)) {
				worst = j
			}
		}
		o.options[worst].out = true
		at = at.Add(-o.options[worst].share)
	}
	return crowded
}

// grow gives up the most urgent requests of a batch when that lets it be so much
// fuller that more are answered for the time. What is given up would not be missed:
// there is more than the devices can do.
func (o *orrery) grow(p *core, x *option, start Instant) {
	q, pl := x.batch.parts[0].queue, x.place
	most := pl.model.batchRows()
	if x.batch.rows >= most || !pl.model.Batched || x.batch.parts[0].timed == 0 {
		return
	}
	best := x.batch
	for _, n := range [...]int{most, most - most/4, most / 2, most / 4} {
		if n <= x.batch.rows {
			break
		}
		b := p.fill(pl, q, q.since(start.Add(pl.execution(p.now, n))), most)
		if int64(b.rows)*int64(best.expected) > int64(best.rows)*int64(b.expected) {
			best = b
		}
	}
	x.batch = best
}

// missedMemory is how long after a request was too late its model counts as
// overloaded.
const missedMemory = 200 * time.Millisecond

func (p *core) missedLately(m *model) bool {
	return m.missed != 0 && p.now.Sub(m.missed) < missedMemory
}
