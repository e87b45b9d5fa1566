package scheduler

import "time"

// dispatch gives work to the devices that have room, as far as something has
// changed for them: those that will be free first first.
func (p *core) dispatch() {
	for len(p.stirred) > 0 || len(p.moved) > 0 {
		if d := p.nextStirred(); d != nil {
			p.serve(d)
			continue
		}
		if len(p.moved) == 0 {
			return
		}
		last := len(p.moved) - 1
		m := p.moved[last]
		p.moved = p.moved[:last]
		m.stirred = false
		p.offer(m)
	}
}

// nextStirred takes out the stirred device that will be free first; of those that
// are free at the same time the first by the workers' names, so that at low load
// whole workers stay idle.
func (p *core) nextStirred() *device {
	if len(p.active) == 0 {
		for _, d := range p.stirred {
			d.stirred = false
		}
		p.stirred = p.stirred[:0]
	}
	if len(p.stirred) == 0 {
		return nil
	}
	first := 0
	if len(p.stirred) > 1 {
		free := p.stirred[0].execution.free(p.now)
		for i, d := range p.stirred[1:] {
			at := d.execution.free(p.now)
			if at < free || at == free && d.order < p.stirred[first].order {
				first, free = i+1, at
			}
		}
	}
	d := p.stirred[first]
	last := len(p.stirred) - 1
	p.stirred[first] = p.stirred[last]
	p.stirred = p.stirred[:last]
	d.stirred = false
	return d
}

// serve fills the room that a device has.
func (p *core) serve(d *device) {
	for p.hasRoom(d) {
		pl, b := p.strategy.choose(p, d)
		if b.rows == 0 {
			return
		}
		p.send(pl, &b)
	}
}

// offer finds devices for what waits for a model.
func (p *core) offer(m *model) {
	clear(p.declined)
	for _, q := range m.queues {
		if q.bound != nil {
			p.touch(q.bound)
		}
	}
	for m.waiting > 0 {
		d := p.roomiest(m, p.declined)
		if d == nil {
			return
		}
		pl, b := p.strategy.choose(p, d)
		if b.rows == 0 {
			// It may fail, or be too slow, where another one is not.
			p.declined.put(d.order, true)
			continue
		}
		p.send(pl, &b)
	}
}

// roomiest is the device with room and the model's weights that can answer first,
// but for some; nil when there is none.
func (p *core) roomiest(m *model, but bitset) (best *device) {
	var soonest Instant
	uneven := p.uneven()
	both(m.runs, p.roomy, func(i int) (stop bool) {
		if but.has(i) {
			return false
		}
		d := p.devices[i]
		at := d.execution.free(p.now)
		if uneven {
			at = at.Add(d.byModel[m.ID].execution(p.now, 1))
		}
		if best == nil || at < soonest {
			best, soonest = d, at
		}
		return !uneven && at == p.now
	})
	return best
}

// uneven says that not all devices are equally fast.
func (p *core) uneven() bool {
	return p.kinds || p.slow != 0 && p.now.Sub(p.slow) <= windowStale
}

func (p *core) hasRoom(d *device) bool {
	l := &d.execution
	return len(d.resident) > 0 && !d.trying && !d.reserved && !l.late(p.now) &&
		l.free(p.now).Sub(p.now) <= p.ahead(d)
}

// ahead is how long before it should be done with all others a device is given its
// next batch: no later than when that would arrive after they are done.
func (p *core) ahead(d *device) time.Duration {
	return max(p.options.ScheduleAhead, d.host.ahead)
}

// touch is for a device that may have got room, or have lost it.
func (p *core) touch(d *device) {
	if d.gone {
		return
	}
	if !d.changed {
		d.changed = true
		p.changed.devices = append(p.changed.devices, d)
	}
	if d.execution.late(p.now) {
		p.mayBeUnfit(d)
	}
	room := p.hasRoom(d)
	p.roomy.put(d.order, room)
	if room && !d.stirred {
		d.stirred = true
		p.stirred = append(p.stirred, d)
	}
}

// stir is for a model that may run where it could not before.
func (p *core) stir(m *model) {
	if m.waiting > 0 && !m.stirred {
		m.stirred = true
		p.moved = append(p.moved, m)
	}
}

// mayRun says whether a batch of the model may be sent to where its weights
// are now. A suspect model is only tried out.
func (p *core) mayRun(pl *place) bool {
	return pl.model.waiting > 0 && pl.model.doubt.level == innocent && pl.countedUsable > 0 && pl.backOff.until <= p.now
}

// begins is when the result of a batch that takes no time would be there if it
// were the next of the device.
func (p *core) begins(d *device) Instant {
	return max(d.execution.free(p.now), p.now.Add(d.host.trip.lag(p.now)))
}

// answered is when a batch of so many rows would be answered if it were the
// next of the device.
func (p *core) answered(pl *place, rows int) Instant {
	return p.begins(pl.device).Add(pl.execution(p.now, rows))
}

// send makes an Infer of the batch.
func (p *core) send(pl *place, b *batch) {
	a := &action{batch: make([]*request, 0, b.count())}
	if b.bestEffort() {
		pl.model.obliged = p.now
	}
	for _, r := range b.picked {
		p.dequeue(r)
		a.batch = append(a.batch, r)
	}
	if b.used > 0 {
		p.dequeueParts(pl.model, a, b)
	}
	p.infer(pl, a, b.rows, b.expected, b.minDeadline)
	p.strategy.sent(p, a)
}

// dequeueParts moves the parts of a batch from the queues of their model to the
// action.
func (p *core) dequeueParts(m *model, a *action, b *batch) {
	for i := range b.parts[:b.used] {
		part := &b.parts[i]
		q := part.queue
		a.batch = append(a.batch, q.timed[part.from:part.from+part.timed]...)
		a.batch = append(a.batch, q.loose[:part.loose]...)
		q.timed = cut(q.timed, part.from, part.from+part.timed)
		q.loose = cut(q.loose, 0, part.loose)
	}
	for _, r := range a.batch {
		r.waits = false
		m.count(r, -r.rows)
		if r.bound != nil {
			r.bound.bound--
		}
	}
	m.waiting -= len(a.batch)
	for i := range b.parts[:b.used] {
		if q := b.parts[i].queue; q.empty() {
			m.release(q)
		}
	}
	p.lessWaits(m)
}

// infer has a.batch executed, which waits no longer. deadline is the first of
// its requests' deadlines.
func (p *core) infer(pl *place, a *action, rows int, expected time.Duration, deadline Instant) {
	ids := p.ids(len(a.batch))
	for i, r := range a.batch {
		ids[i] = r.ID
		r.action = a
	}
	a.Action = Action{Kind: Infer, Expected: expected, Requests: ids, Rows: rows}
	a.passed = deadline
	if deadline != 0 {
		a.Latest = max(p.now, deadline.Add(-expected-pl.device.host.trip.back(p.now)))
	}
	pl.running++
	pl.used = p.now
	p.act(pl, a)
}

// ids is memory for the ids of a batch, which the caller of the policy keeps.
func (p *core) ids(n int) []RequestID {
	if len(p.idPool) < n {
		p.idPool = make([]RequestID, max(n, 1024))
	}
	ids := p.idPool[:n:n]
	p.idPool = p.idPool[n:]
	return ids
}
