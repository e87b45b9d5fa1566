package scheduler

import "time"

// lookahead is how many models a device chooses from: the most urgent ones.
const lookahead = 12

// option is a batch that a device could run next.
type option struct {
	place *place
	// batch and share are known once it has been considered.
	considered bool
	batch      batch
	// share is the time that this device would spend on it, if the others that have
	// its weights do their part.
	share time.Duration
	out   bool // it is given up for the sake of others
}

// rank is that of the queue that the batch is of.
func (x *option) rank() uint8 { return x.batch.parts[0].queue.rank }

// worse says whether x is to be given up before y.
func (x *option) worse(y *option) bool {
	if x.rank() != y.rank() {
		return x.rank() > y.rank()
	}
	return int64(x.batch.rows)*int64(y.batch.expected) < int64(y.batch.rows)*int64(x.batch.expected)
}

// density is rows for the time.
func (x *option) density() float64 { return float64(x.batch.rows) / float64(x.batch.expected) }

// gather collects the most urgent models that the device may run.
func (o *orrery) gather(p *core, d *device) {
	// Few may not run although they wait, so that looking at the keys alone, which
	// lie side by side, will mostly do.
	if !o.gatherIf(p, d, nil) {
		o.gatherIf(p, d, p.mayRun)
	}
}

// gatherIf does so among those that may, nil: all; ok: all that it found may run.
func (o *orrery) gatherIf(p *core, d *device, may func(*place) bool) (ok bool) {
	n := 0
	var keys [lookahead]Instant
	var places [lookahead]*place
	worst := never
	add := func(pl *place, key Instant) {
		if may != nil && !may(pl) {
			return
		}
		i := n
		if n == lookahead {
			i--
		} else {
			n++
		}
		for i > 0 && keys[i-1] > key {
			keys[i], places[i] = keys[i-1], places[i-1]
			i--
		}
		keys[i], places[i] = key, pl
		if n == lookahead {
			worst = keys[n-1]
		}
	}
	if len(p.active) < len(d.resident)/8 {
		for _, m := range p.active {
			if key := p.keys[m.slot]; key < worst && m.runs.has(d.order) {
				add(d.byModel[m.ID], key)
			}
		}
	} else {
		all, resident := p.keys, d.resident[:len(d.slots)]
		for i, slot := range d.slots {
			if key := all[slot]; key < worst {
				add(resident[i], key)
			}
		}
	}
	o.options, o.more = o.options[:0], n == lookahead
	for _, pl := range places[:n] {
		if !p.mayRun(pl) {
			return false
		}
		if len(pl.model.queues) > 0 { // else only suspects wait
			o.options = append(o.options, option{place: pl})
		}
	}
	return true
}

// queueOf is the queue of the first rank that has a request in time, and of these
// the most urgent.
func (o *orrery) queueOf(p *core, pl *place) (best *queue) {
	var least Instant
	for _, q := range pl.model.queues {
		if best != nil && q.rank > best.rank {
			continue
		}
		if r := p.firstInTime(pl, q); r != nil {
			if key := p.key(r); best == nil || q.rank < best.rank || key < least {
				best, least = q, key
			}
		}
	}
	return best
}

// consider finds the fullest batch of an option, once.
func (o *orrery) consider(p *core, i int) {
	x := &o.options[i]
	if x.considered {
		return
	}
	x.considered = true
	pl := x.place
	q := pl.model.queues[0]
	if len(pl.model.queues) > 1 {
		q = o.queueOf(p, pl)
	}
	if q != nil {
		x.batch = p.fillOne(pl, q, p.firstTimed(pl, q), pl.model.batchRows())
		if x.batch.rows > 0 && p.missedLately(pl.model, q.rank) {
			o.grow(p, x, p.begins(pl.device))
		}
		x.share = x.batch.expected / time.Duration(max(1, pl.model.present))
	}
	x.out = x.batch.rows == 0
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
		b := p.fillOne(pl, q, q.since(start.Add(pl.execution(p.now, n))), most)
		// What other ranks add to it is no reason to give up any of this one.
		if b.used > 0 && int64(b.parts[0].timed)*int64(best.expected) > int64(best.parts[0].timed)*int64(b.expected) {
			best = b
		}
	}
	x.batch = best
}
