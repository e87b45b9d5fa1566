package scheduler

// This file is about what happens by the mere passing of time.

// ring looks after what has come about by now.
func (p *core) ring() {
	for len(p.alarms) > 0 && p.alarms[0].at <= p.now {
		a := p.alarms[0].alarm
		p.alarms.set(a, 0)
		if a.device != nil {
			p.passDeadlines(a.device)
			p.touch(a.device)
			continue
		}
		p.ripe = append(p.ripe, a.model)
		p.changedModel(a.model)
		if a.model.again != 0 && a.model.again <= p.now {
			a.model.again = 0
			p.stir(a.model)
		}
	}
	still := p.paused[:0]
	for _, pl := range p.paused {
		if pl.backOff.until > p.now {
			still = append(still, pl)
			continue
		}
		p.stir(pl.model)
		p.touch(pl.device)
		p.placing = true
	}
	p.paused = still
}

// passDeadlines ends the requests of a device whose deadlines have passed.
func (p *core) passDeadlines(d *device) {
	for _, a := range d.execution.actions {
		if a.passed == 0 || a.passed > p.now {
			continue
		}
		a.passed = 0
		for _, r := range a.batch {
			switch {
			case r.over || r.Deadline == 0:
			case r.Deadline <= p.now:
				p.complete(r, Completion{Reason: DeadlinePassed})
			case a.passed == 0 || r.Deadline < a.passed:
				a.passed = r.Deadline
			}
		}
	}
}

// ripen ends the requests that no worker is left for.
func (p *core) ripen() {
	for _, m := range p.ripe {
		if m.waiting > 0 && m.usable == 0 && m.orphaned != 0 && m.orphaned.Add(p.options.NoWorkerGrace) <= p.now {
			p.completeWaiting(m, NoWorker)
		}
	}
	p.ripe = p.ripe[:0]
}

// expire ends the waiting requests of a model that can't be started in time.
func (p *core) expire(m *model) {
	var late []*request
	gather := func(timed []*request) {
		for _, r := range timed {
			switch {
			case r.Deadline == 0:
			case p.lateAt(r) <= p.now:
				late = append(late, r)
			case !m.mixed:
				return
			}
		}
	}
	gather(m.suspects)
	for _, q := range m.queues {
		gather(q.timed)
	}
	for _, r := range late {
		p.tooLate(r)
	}
	m.expiry = p.firstExpiry(m)
}

// firstExpiry is when the first waiting request of a model is too late.
func (p *core) firstExpiry(m *model) (first Instant) {
	if !m.mixed {
		return p.firstExpiryOfHeads(m)
	}
	consider := func(timed []*request) {
		for _, r := range timed {
			if r.Deadline != 0 {
				if at := p.lateAt(r); first == 0 || at < first {
					first = at
				}
			}
		}
	}
	consider(m.suspects)
	for _, q := range m.queues {
		consider(q.timed)
	}
	return first
}

// firstExpiryOfHeads is for requests of one row each: the first deadline decides.
func (p *core) firstExpiryOfHeads(m *model) Instant {
	var first *request
	for _, r := range m.suspects {
		if r.Deadline != 0 {
			first = r
			break
		}
	}
	for _, q := range m.queues {
		if len(q.timed) > 0 && (first == nil || q.timed[0].Deadline < first.Deadline) {
			first = q.timed[0]
		}
	}
	if first == nil {
		return 0
	}
	return p.lateAt(first)
}

// changedModel has the alarm of a model set at the end of the step.
func (p *core) changedModel(m *model) {
	if !m.changed {
		m.changed = true
		p.changed.models = append(p.changed.models, m)
	}
}

// reconsider asks for another look at a model at an instant.
func (p *core) reconsider(m *model, at Instant) {
	if m.again == 0 || at < m.again {
		m.again = at
		p.changedModel(m)
	}
}

// setAlarms sets the alarms of all that has changed, and the time of the next step.
func (p *core) setAlarms() {
	for i := 0; i < len(p.changed.models); i++ {
		m := p.changed.models[i]
		if !m.mixed {
			m.expiry = p.firstExpiry(m)
		}
		if m.expiry != 0 && m.expiry <= p.now && m.waiting > 0 {
			p.expire(m)
		}
		m.changed = false
		p.alarms.set(&m.alarm, p.nextOfModel(m))
	}
	p.changed.models = p.changed.models[:0]
	for _, d := range p.changed.devices {
		d.changed = false
		p.alarms.set(&d.alarm, p.nextOfDevice(d))
	}
	p.changed.devices = p.changed.devices[:0]
	p.wakeAt(p.alarms.first())
	p.wakeAt(p.overdue)
	for _, pl := range p.paused {
		p.wakeAt(pl.backOff.until)
	}
}

// sooner is the first of two instants of which 0 means none; those that are not
// in the future only an event can bring on.
func (p *core) sooner(a, b Instant) Instant {
	if b > p.now && (a == 0 || b < a) {
		return b
	}
	return a
}

func (p *core) nextOfModel(m *model) Instant {
	if m.waiting == 0 {
		m.expiry, m.again, m.orphaned = 0, 0, 0
		return 0
	}
	at := p.sooner(p.sooner(0, m.expiry), m.again)
	switch {
	case m.usable > 0:
		m.orphaned = 0
	case m.orphaned == 0:
		m.orphaned = p.now
		fallthrough
	default:
		at = p.sooner(at, m.orphaned.Add(p.options.NoWorkerGrace))
	}
	return at
}

func (p *core) nextOfDevice(d *device) (at Instant) {
	if d.gone {
		return 0
	}
	for _, a := range d.execution.actions {
		at = p.sooner(at, a.passed)
	}
	if l := &d.execution; len(l.actions) > 0 {
		if ahead := p.ahead(d); l.behind <= ahead { // else only a result makes room
			at = p.sooner(at, l.free(p.now).Add(-ahead))
		}
		at = p.sooner(at, l.lateAt())
	}
	return p.sooner(at, d.transfer.lateAt())
}
