package scheduler

import (
	"slices"
	"time"
)

// resolve follows the replacements of a model.
func resolve(m *model) *model {
	for m.replacement != nil {
		m = m.replacement
	}
	return m
}

// submit admits a request, or completes it at once when it can't be answered.
func (p *core) submit(given *Request) {
	if p.requests[given.ID] != nil {
		return
	}
	p.lastSeq++
	r := p.newRequest()
	r.Request, r.rows, r.seq = given, max(1, given.Rows), p.lastSeq
	p.requests[r.ID] = r
	m := p.models[r.Model]
	if m != nil {
		m = resolve(m)
		r.model = m
		if r.rows <= m.batchRows() {
			m.demand.add(p.now, r.rows)
		}
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
	case r.Deadline != 0 && !p.feasible(r):
		p.refuse(r)
	default:
		p.admit(r)
	}
}

// newRequest is memory for a request, taken from a larger piece.
func (p *core) newRequest() *request {
	if len(p.requestPool) == 0 {
		p.requestPool = make([]request, 64)
	}
	r := &p.requestPool[0]
	p.requestPool = p.requestPool[1:]
	return r
}

// admit lets the strategy judge a request that could be answered.
func (p *core) admit(r *request) {
	if end, ok := p.strategy.admit(p, r); !ok {
		p.complete(r, end)
		return
	}
	p.enqueue(r)
}

// lag is what the way to a worker and back takes at least.
func (p *core) lag() time.Duration {
	if p.now > p.lagFresh || p.lagFresh == 0 {
		p.leastLag, p.lagFresh = p.options.NetworkLag, p.now.Add(lagLasts)
		for i, w := range p.workers {
			if lag := w.trip.lag(p.now); i == 0 || lag < p.leastLag {
				p.leastLag = lag
			}
		}
	}
	return p.leastLag
}

// lagLasts is how long the least lag is not computed anew.
const lagLasts = 20 * time.Millisecond

// feasible says whether a request could be answered in time if nothing else had
// to be done.
func (p *core) feasible(r *request) bool {
	best, _ := r.model.bestCase(p.now, r.rows)
	return r.Deadline >= p.now.Add(best+p.lag()+p.loadsAhead(r.model))
}

// loadsAhead is how long the weights of a model that is nowhere wait until the loads
// that are wanted before it have begun.
func (p *core) loadsAhead(m *model) time.Duration {
	if m.present > 0 || len(p.devices) == 0 {
		return 0
	}
	first := never
	load := time.Duration(0)
	for _, pl := range m.places {
		if pl.usable() {
			if at := pl.device.transfer.free(p.now); at < first {
				first, load = at, pl.load(p.now)
			}
		}
	}
	if first == never {
		return 0
	}
	before := len(p.cold)
	if m.cold {
		before--
	}
	return first.Sub(p.now) + load*time.Duration(before)/time.Duration(len(p.devices))
}

// refuse ends a request that can't be answered in time.
func (p *core) refuse(r *request) {
	best, cold := r.model.bestCase(p.now, r.rows)
	ahead := p.loadsAhead(r.model)
	possible := p.now.Add(best + p.lag() + ahead)
	c := Completion{Reason: Infeasible, Possible: possible}
	switch {
	case cold == 0:
	case r.Deadline >= possible.Add(-ahead): // There is too much to load.
		c.RetryAfter = ahead
	case r.Deadline >= possible.Add(-ahead-cold):
		// Only the weights are missing. Refusing every such request and never
		// loading would keep the model cold for ever.
		c.RetryAfter = cold
		p.wantWarm(r.model, 1)
	}
	p.complete(r, c)
}

// enqueue lets a request wait at its model.
func (p *core) enqueue(r *request) {
	m := r.model
	r.waits = true
	if r.deaths > 0 {
		p.suspectWaits(r)
	} else {
		m.queue(r).add(r)
	}
	m.waiting++
	m.count(r, r.rows)
	if r.bound != nil {
		r.bound.bound++
	}
	if m.waiting == 1 {
		m.active = len(p.active)
		p.active = append(p.active, m)
	}
	switch {
	case !m.mixed && r.rows > 1:
		m.mixed = true
		m.expiry = p.firstExpiry(m)
	case m.mixed && r.Deadline != 0:
		if at := p.lateAt(r); m.expiry == 0 || at < m.expiry {
			m.expiry = at
		}
	}
	p.keys[m.slot] = min(p.keys[m.slot], p.key(r))
	p.changedModel(m)
	if r.bound != nil {
		p.touch(r.bound)
	} else {
		p.stir(m)
	}
	p.lacksWeights(m)
}

// ranks is how many ranks of requests there are.
const ranks = 16

// key orders the heads of models: by urgency, which the strategy may have shifted.
func (p *core) key(r *request) Instant {
	return r.urgency(p.options.BestEffortAge).Add(r.shift)
}

// lessWaits keeps the accounts of a model that has fewer waiting requests.
func (p *core) lessWaits(m *model) {
	p.changedModel(m)
	key := never
	for _, q := range m.queues {
		for _, l := range [...][]*request{q.timed, q.loose} {
			if len(l) > 0 {
				key = min(key, p.key(l[0]))
			}
		}
	}
	if len(m.suspects) > 0 {
		key = min(key, p.key(m.suspects[0]))
	}
	p.keys[m.slot] = key
	if m.waiting > 0 {
		return
	}
	last := p.active[len(p.active)-1]
	p.active[m.active] = last
	last.active = m.active
	p.active = p.active[:len(p.active)-1]
	m.active = -1
	m.mixed = false
}

// dequeue takes a waiting request out of its queue.
func (p *core) dequeue(r *request) {
	m := r.model
	r.waits = false
	m.waiting--
	m.count(r, -r.rows)
	if r.bound != nil {
		r.bound.bound--
	}
	if r.deaths > 0 {
		i := slices.Index(m.suspects, r)
		m.suspects = slices.Delete(m.suspects, i, i+1)
	} else {
		q := m.queue(r)
		q.remove(r)
		if q.empty() {
			m.release(q)
		}
	}
	p.lessWaits(m)
}

// lateAt is the last instant at which a waiting request could start and be
// answered in time. It is optimistic about weights.
func (p *core) lateAt(r *request) Instant {
	if e, ok := r.model.fastest(p.now, r.rows); ok {
		return r.Deadline.Add(-e - p.lag())
	}
	return r.Deadline
}

// again is for a request that comes back from a worker unanswered. started
// says that it may have been executed there.
func (p *core) again(r *request, started bool) {
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
		r.rank, r.shift, r.bound, r.tenant = 0, 0, nil, nil
		p.admit(r) // and if it is too late by now, this step will say so
	}
}

// missed notes that a request is not answered for want of time.
func (p *core) missed(r *request) { r.model.missed[r.rank], p.lastMiss = p.now, p.now }

// givenUp is the end of a request that waits, or would, for the sake of others.
func (p *core) givenUp(r *request) Completion {
	p.missed(r)
	c := Completion{Reason: GivenUp, RetryAfter: p.backlog(r.model)}
	if r.model.usable > 0 { // else its worker has just been lost
		best, _ := r.model.bestCase(p.now, r.rows)
		c.Possible = p.now.Add(best + p.lag() + c.RetryAfter)
	}
	return c
}

// backlog is how long what waits for a model would take its devices, but for what has
// no deadline and lets others go first.
func (p *core) backlog(m *model) time.Duration {
	full := m.batchRows()
	e, ok := m.fastest(p.now, full)
	if !ok || m.timed == 0 {
		return 0
	}
	return max(p.options.ScheduleAhead, e*time.Duration((m.timed+full-1)/full)/time.Duration(max(1, m.present)))
}

// tooLate ends a request that doesn't run and can't be answered in time.
func (p *core) tooLate(r *request) {
	p.missed(r)
	switch {
	case r.started:
		p.complete(r, Completion{Reason: DeadlinePassed})
	case r.model.usable == 0:
		p.complete(r, Completion{Reason: NoWorker})
	default:
		best, _ := r.model.bestCase(p.now, r.rows)
		p.complete(r, Completion{Reason: TooLate, Possible: p.now.Add(best + p.lag()), RetryAfter: p.backlog(r.model)})
	}
}

func (p *core) completeWaiting(m *model, why Reason) {
	for m.waiting > 0 {
		p.complete(m.head(p.options.BestEffortAge), Completion{Reason: why})
	}
}

// complete ends a request, wherever it is.
func (p *core) complete(r *request, c Completion) {
	if r.waits {
		p.dequeue(r)
	}
	r.over = true
	delete(p.requests, r.ID)
	c.Request = r.ID
	c.Started = r.started || r.action != nil
	p.out.Completions = append(p.out.Completions, c)
}
