package scheduler

import "slices"

// resolve follows the replacements of a model.
func resolve(m *model) *model {
	for m.replacement != nil {
		m = m.replacement
	}
	return m
}

// submit admits a request, or completes it at once when it can't be answered.
func (p *EDF) submit(given *Request) {
	if p.requests[given.ID] != nil {
		return
	}
	p.lastSeq++
	r := &request{Request: given, rows: max(1, given.Rows), seq: p.lastSeq, index: -1}
	p.requests[r.ID] = r
	m := p.models[r.Model]
	if m != nil {
		m = resolve(m)
		r.model = m
	}
	switch {
	case m == nil || !m.known:
		p.complete(r, Completion{Reason: UnknownModel})
	case m.stopped:
		p.complete(r, Completion{Reason: ModelStopped})
	case r.rows > m.batchRows():
		p.complete(r, Completion{Reason: Rejected})
	case m.usable == 0 && m.tooBig():
		p.complete(r, Completion{Reason: NoRoom})
	case m.usable == 0:
		p.complete(r, Completion{Reason: NoWorker})
	case r.Deadline != 0:
		p.admitByDeadline(r)
	default:
		p.enqueue(r)
	}
}

func (p *EDF) admitByDeadline(r *request) {
	best, cold := r.model.bestCase(p.now, r.rows)
	possible := p.now.Add(best + p.options.NetworkLag)
	if r.Deadline >= possible {
		p.enqueue(r)
		return
	}
	c := Completion{Reason: Infeasible, Possible: possible}
	if cold > 0 && r.Deadline >= possible.Add(-cold) {
		// Only the weights are missing. Refusing every such request and never
		// loading would keep the model cold for ever.
		c.RetryAfter = cold
		p.wantWarm(r.model, 1)
	}
	p.complete(r, c)
}

// enqueue lets a request wait at its model.
func (p *EDF) enqueue(r *request) {
	m := r.model
	r.waits = true
	if r.deaths > 0 {
		p.suspectWaits(r)
	} else {
		m.queue(r.Class).add(r)
	}
	m.waiting++
	m.rows += r.rows
	if m.waiting == 1 {
		m.active = len(p.active)
		p.active = append(p.active, m)
	}
	if r.Deadline != 0 {
		p.timers.set(r, p.lateAt(r))
	}
}

// left keeps the counts when a request has been taken out of its queue q, or
// from among the suspects (q is nil).
func (p *EDF) left(r *request, q *queue) {
	m := r.model
	r.waits = false
	m.waiting--
	m.rows -= r.rows
	if q != nil && q.empty() {
		for i := range m.queues {
			if m.queues[i] == q {
				last := len(m.queues) - 1
				m.queues[i] = m.queues[last]
				m.queues[last] = nil
				m.queues = m.queues[:last]
				break
			}
		}
	}
	if m.waiting == 0 {
		last := p.active[len(p.active)-1]
		p.active[m.active] = last
		last.active = m.active
		p.active = p.active[:len(p.active)-1]
		m.active = -1
		m.orphaned = 0
	}
}

// dequeue takes a waiting request out of its queue.
func (p *EDF) dequeue(r *request) {
	if r.deaths > 0 {
		i := slices.Index(r.model.suspects, r)
		r.model.suspects = slices.Delete(r.model.suspects, i, i+1)
		p.left(r, nil)
		return
	}
	q := r.model.queue(r.Class)
	q.remove(r)
	p.left(r, q)
}

// lateAt is the last instant at which a waiting request could start and be
// answered in time. It is optimistic about weights.
func (p *EDF) lateAt(r *request) Instant {
	if e, ok := r.model.fastest(p.now, r.rows); ok {
		return r.Deadline.Add(-e - p.options.NetworkLag)
	}
	return r.Deadline
}

// again is for a request that comes back from a worker unanswered. started
// says that it may have been executed there.
func (p *EDF) again(r *request, started bool) {
	r.action = nil
	r.model = resolve(r.model)
	r.started = r.started || started
	switch {
	case r.deaths > 1:
		p.complete(r, Completion{Reason: Poisonous})
	case r.unanswered > 1:
		p.complete(r, Completion{Reason: Unanswered})
	case !r.model.known:
		p.complete(r, Completion{Reason: UnknownModel})
	case r.model.stopped:
		p.complete(r, Completion{Reason: ModelStopped})
	case r.rows > r.model.batchRows():
		p.complete(r, Completion{Reason: Rejected})
	default:
		p.enqueue(r) // and if it is too late by now, this step will say so
	}
}

// tooLate ends a request that doesn't run and can't be answered in time.
func (p *EDF) tooLate(r *request) {
	r.model.missed = p.now
	switch {
	case r.started:
		p.complete(r, Completion{Reason: DeadlinePassed})
	case r.model.usable == 0:
		p.complete(r, Completion{Reason: NoWorker})
	default:
		best, _ := r.model.bestCase(p.now, r.rows)
		p.complete(r, Completion{Reason: TooLate, Possible: p.now.Add(best + p.options.NetworkLag)})
	}
}

// expire ends the requests whose instant has come.
func (p *EDF) expire() {
	for len(p.timers) > 0 && p.timers[0].when <= p.now {
		r := p.timers[0]
		if r.action != nil {
			p.complete(r, Completion{Reason: DeadlinePassed})
			continue
		}
		// The estimates have moved since the timer was set.
		if at := p.lateAt(r); at > p.now {
			p.timers.set(r, at)
			continue
		}
		p.tooLate(r)
	}
}

// settleOrphans ends what waits for workers that don't come back.
func (p *EDF) settleOrphans() {
	for i := len(p.active) - 1; i >= 0; i-- {
		m := p.active[i]
		switch {
		case m.usable > 0:
			m.orphaned = 0
			continue
		case m.orphaned == 0:
			m.orphaned = p.now
		}
		if end := m.orphaned.Add(p.options.NoWorkerGrace); end > p.now {
			p.wakeAt(end)
			continue
		}
		p.completeWaiting(m, NoWorker)
	}
}

func (p *EDF) completeWaiting(m *model, why Reason) {
	for m.waiting > 0 {
		p.complete(m.head(p.options.BestEffortAge), Completion{Reason: why})
	}
}

// complete ends a request, wherever it is.
func (p *EDF) complete(r *request, c Completion) {
	p.timers.drop(r)
	if r.waits {
		p.dequeue(r)
	}
	r.over = true
	delete(p.requests, r.ID)
	c.Request = r.ID
	c.Started = r.started || r.action != nil
	p.out.Completions = append(p.out.Completions, c)
}
