package sim

import (
	"github.com/orrery-project/orrery/scheduler"
)

// record is a request, from its arrival to its end.
type record struct {
	generation uint32
	inHand     bool
	cold       bool // nobody had its weights when it came
	model      int32
	source     int32
	rows       int32
	arrived    scheduler.Instant
	deadline   scheduler.Instant
	given      *scheduler.Request
	id         scheduler.RequestID
}

// desk has the requests in hand. An id says where its record is, and of which of
// the requests that have been there it is.
type desk struct {
	records []record
	free    []uint32
	inHand  int
	// block is where the next requests that policies see are taken from; they
	// are not used again, since a policy may keep one.
	block []scheduler.Request
}

func (d *desk) find(id scheduler.RequestID) *record {
	slot := uint32(id)
	if int(slot) >= len(d.records) {
		return nil
	}
	if r := &d.records[slot]; r.inHand && r.id == id {
		return r
	}
	return nil
}

// take makes a record.
func (d *desk) take() *record {
	var slot uint32
	if n := len(d.free); n > 0 {
		slot = d.free[n-1]
		d.free = d.free[:n-1]
	} else {
		slot = uint32(len(d.records))
		d.records = append(d.records, record{})
	}
	r := &d.records[slot]
	*r = record{generation: r.generation + 1, inHand: true}
	r.id = scheduler.RequestID(r.generation)<<32 | scheduler.RequestID(slot)
	d.inHand++
	return r
}

// request is a fresh one for a policy to keep.
func (d *desk) request() *scheduler.Request {
	if len(d.block) == 0 {
		d.block = make([]scheduler.Request, 256)
	}
	r := &d.block[0]
	d.block = d.block[1:]
	return r
}

// again gives a request another id: it is submitted once more.
func (d *desk) again(r *record) {
	r.generation++
	r.id = scheduler.RequestID(r.generation)<<32 | r.id&0xffffffff
}

func (d *desk) drop(r *record) {
	r.inHand, r.given = false, nil
	d.free = append(d.free, uint32(r.id))
	d.inHand--
}

// submit takes a request in, from a source and for a model.
func (s *simulation) submit(who, model int32) {
	c := s.sources[who]
	r := s.desk.take()
	r.model, r.source, r.rows = model, who, int32(max(1, c.Rows))
	r.arrived, r.cold = s.now, s.models[model].resident == 0
	if c.SLO > 0 {
		r.deadline = s.now.Add(c.SLO)
	}
	s.book.arrived(r)
	if s.scenario.Narrator != nil {
		s.tell("request for model %d", s.models[model].id)
	}
	if s.policy == nil {
		s.hold(r)
		return
	}
	s.hand(r)
}

// hand gives a request to the policy.
func (s *simulation) hand(r *record) {
	c := s.sources[r.source]
	r.given = s.desk.request()
	*r.given = scheduler.Request{ID: r.id, Model: s.models[r.model].id, Rows: int(r.rows),
		Arrived: s.now, Deadline: r.deadline, Priority: c.Priority, Tenant: c.Tenant}
	s.events = append(s.events, scheduler.Submit{Request: r.given})
}

// hold keeps a request while there is no leader, for as long as its deadline
// allows.
func (s *simulation) hold(r *record) {
	if r.deadline != 0 {
		s.agenda.push(event{at: max(s.now, r.deadline), kind: heldTooLong, request: r.id})
	}
}

// complete ends a request as the policy says.
func (s *simulation) complete(c *scheduler.Completion) {
	r := s.desk.find(c.Request)
	if r == nil {
		s.breach("it completes request %d (%v), which is not in hand", c.Request, c.Reason)
		return
	}
	s.over(r, s.verdict(r, c))
}

// over ends a request: its client may send the next one.
func (s *simulation) over(r *record, e ended) {
	s.book.ended(s.now, r, e)
	if s.scenario.Narrator != nil {
		s.tell("   request for model %d of %v ends after %v: %s", s.models[r.model].id, r.arrived.Sub(epoch), s.now.Sub(r.arrived), e.why)
	}
	c := s.sources[r.source]
	if closed, ok := c.Arrivals.(Closed); ok {
		pause := closed.Think
		if e.outcome != good && e.outcome != late {
			pause = max(pause, refusalPause)
		}
		if at := s.now.Add(pause); at < c.end {
			s.agenda.push(event{at: at, kind: clientSends, who: r.source, which: r.model})
		}
	}
	s.desk.drop(r)
}

// verdict says what a completion means to the client.
func (s *simulation) verdict(r *record, c *scheduler.Completion) ended {
	e := ended{why: c.Reason.String(), answered: c.Reason == scheduler.Done}
	switch c.Reason {
	case scheduler.Done:
		e.outcome = good
		if r.deadline != 0 && s.now > r.deadline {
			e.outcome = late
		}
	case scheduler.DeadlinePassed:
		e.outcome = late
	case scheduler.ExecutionFailed, scheduler.Poisonous, scheduler.Unanswered:
		e.outcome = failed
	default:
		e.outcome = refused
	}
	return e
}

// settle ends what is left when the run stops.
func (s *simulation) settle() {
	for i := range s.desk.records {
		if r := &s.desk.records[i]; r.inHand {
			s.over(r, ended{outcome: failed, why: unfinished})
		}
	}
}
