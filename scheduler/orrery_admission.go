package scheduler

import "time"

// The levels of priority: 1 is the highest; what says nothing is in the middle.
const (
	defaultLevel = 4
	lowestLevel  = 7
	overShare    = lowestLevel + 1 // is added for tenants that have had their share
)

// level is the rank of a priority.
func level(priority uint64) uint8 {
	if priority == 0 {
		return defaultLevel
	}
	return uint8(min(priority, lowestLevel))
}

// admit ranks a request, and refuses it, or gives up another one, when the model
// has more waiting than it will be able to answer.
func (o *orrery) admit(p *core, r *request) (Completion, bool) {
	r.tenant = o.tenants.of(p.now, r.Tenant)
	r.tenant.ask(p.now, p.cost(r))
	r.rank = level(r.Priority)
	if r.tenant.over && p.lastMiss != 0 && p.now.Sub(p.lastMiss) < shareMemory {
		r.rank += overShare
	}
	r.shift = shift(r)
	if r.Deadline == 0 || !p.missedLately(r.model, ranks-1) {
		return Completion{}, true
	}
	return o.makeWay(p, r)
}

// A request of a level above the default counts as due before its deadline, by a
// share of the time that it has for each level; one below, and one of a tenant that
// has had its share, after it. So it is answered sooner, but not one by one as they
// come: that would make all batches small.
const (
	levelShift = 0.4
	overShift  = 0.5
)

// shift is how much less urgent a request is than its deadline says.
func shift(r *request) time.Duration {
	if r.Deadline == 0 {
		return 0
	}
	level, share := int(r.rank), 0.0
	if level >= overShare {
		level, share = level-overShare, overShift
	}
	share += levelShift * float64(level-defaultLevel)
	return time.Duration(share * float64(r.Deadline.Sub(r.Arrived)))
}

// cost is the device time that a request takes in a full batch, on the fastest
// device: who has to run in small ones does not use more for that.
func (p *core) cost(r *request) time.Duration {
	most := r.model.batchRows()
	full, _ := r.model.fastest(p.now, most)
	return full * time.Duration(r.rows) / time.Duration(most)
}

// serviceRate is how fast a model's requests are being run.
type serviceRate struct {
	rows fading  // that were sent
	sent Instant // when the last batch was
}

// rateMemory is how long what was sent counts.
const rateMemory = 500 * time.Millisecond

func (o *orrery) rate(m *model) *serviceRate {
	for int(m.slot) >= len(o.rates) {
		o.rates = append(o.rates, serviceRate{})
	}
	return &o.rates[m.slot]
}

// makeWay is for a request of a model that misses deadlines. Once more is waiting, with
// a deadline, than two full batches and half as much again as has been run in the time that the
// request has, somebody will not be answered, and is better told now. That is the
// oldest of the last rank, if it will not last until the next batch, else the one
// that comes.
func (o *orrery) makeWay(p *core, r *request) (Completion, bool) {
	m := r.model
	most := m.batchRows()
	if m.timed < 2*most {
		return Completion{}, true
	}
	s := o.rate(m)
	rate := s.rows.now(p.now, rateMemory) / rateMemory.Seconds() // rows a second
	left := r.Deadline.Sub(p.now).Seconds()
	if float64(m.timed) < float64(2*most)+1.5*rate*left {
		return Completion{}, true
	}
	last := r
	for _, q := range m.queues {
		if len(q.timed) > 0 && (q.rank > last.rank || q.rank == last.rank && q.timed[0].Deadline <= last.Deadline) {
			last = q.timed[0]
		}
	}
	between := time.Duration(float64(most) / max(rate, 1) * float64(time.Second))
	full, _ := m.fastest(p.now, most)
	if last != r && last.rank == r.rank && max(p.now, s.sent.Add(between)).Add(full+p.lag()) <= last.Deadline {
		last = r
	}
	end := p.givenUp(last)
	if last == r {
		return end, false
	}
	p.complete(last, end)
	return Completion{}, true
}

// missedMemory is how long after a request was too late its model counts as
// overloaded.
const missedMemory = 200 * time.Millisecond

// missedLately says whether requests of that rank, or of one before it, were too
// late not long ago.
func (p *core) missedLately(m *model, rank uint8) bool {
	for _, at := range m.missed[:rank+1] {
		if at != 0 && p.now.Sub(at) < missedMemory {
			return true
		}
	}
	return false
}
