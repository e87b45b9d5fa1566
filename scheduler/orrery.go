package scheduler

import (
	"math"
	"time"
)

// orrery is the default policy.
//
// A device that has room looks at the most urgent models that it may run, and at
// the fullest batch of each that is in time. As long as all of them can be answered
// one after the other, the most urgent goes first. When they can't, something has
// to be given up, and then it is what is answered least for its time: batches by
// the rule of Moore and Hodgson, and the most urgent requests of a batch when
// without them it can be so much fuller. So under overload the devices run full
// batches, of requests that are answered in time.
//
// Requests are ranked: those of tenants that have had less than their share of the
// devices go first, then those of a higher priority. A lower rank is given up
// before a higher one, and fills the batches of a higher one up.
type orrery struct {
	options []option // scratch
	tenants tenants
	paces   []servicePace // by slot of the model
}

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

// lookahead is how many models a device chooses from: the most urgent ones.
const lookahead = 16

// haste is how much of a request's time may pass for the sake of requests of lower
// ranks.
const haste = 0.65

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

// admit ranks a request, and refuses it, or gives up another one, when the model
// has more waiting than it will be able to answer.
func (o *orrery) admit(p *core, r *request) (Completion, bool) {
	r.tenant = o.tenants.of(p.now, r.Tenant)
	r.rank = level(r.Priority)
	if r.tenant.over && p.lastMiss != 0 && p.now.Sub(p.lastMiss) < shareMemory {
		r.rank += overShare
	}
	if r.Deadline == 0 || !p.missedLately(r.model, ranks-1) {
		return Completion{}, true
	}
	return o.makeWay(p, r)
}

// servicePace is how fast a model's requests are being run.
type servicePace struct {
	rows float64 // that were sent, fading; as of at
	at   Instant
	// sent is when the last batch was.
	sent Instant
}

// paceMemory is how long what was sent counts.
const paceMemory = 500 * time.Millisecond

func (s *servicePace) fade(now Instant) {
	s.rows *= math.Exp(-float64(now.Sub(s.at)) / float64(paceMemory))
	s.at = now
}

func (o *orrery) pace(m *model) *servicePace {
	for int(m.slot) >= len(o.paces) {
		o.paces = append(o.paces, servicePace{})
	}
	return &o.paces[m.slot]
}

// makeWay is for a request of a model that misses deadlines. Once more is waiting
// than two full batches and half as much again as has been run in the time that the
// request has, somebody will not be answered, and is better told now. That is the
// oldest of the last rank, if it will not last until the next batch, else the one
// that comes.
func (o *orrery) makeWay(p *core, r *request) (Completion, bool) {
	m := r.model
	most := m.batchRows()
	if m.rows < 2*most {
		return Completion{}, true
	}
	s := o.pace(m)
	s.fade(p.now)
	rate := s.rows / paceMemory.Seconds() // rows a second
	left := r.Deadline.Sub(p.now).Seconds()
	if float64(m.rows) < float64(2*most)+1.5*rate*left {
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

// sent implements strategy.
func (o *orrery) sent(p *core, a *action) {
	s := o.pace(a.place.model)
	s.fade(p.now)
	s.rows += float64(a.Rows)
	s.sent = p.now
	// As in a full batch: who has to run in small ones has not had more for that.
	most := a.place.model.batchRows()
	row := a.place.execution(p.now, most) / time.Duration(most)
	for _, r := range a.batch {
		if r.tenant != nil {
			r.tenant.charge(row * time.Duration(r.rows))
		}
	}
}

func (o *orrery) finished(*core, *action, *Result) {}

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
		x.batch = p.fillOne(x.place, q, p.firstTimed(x.place, q), x.place.model.batchRows())
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
	if crowded <= x.rank() || p.missedLately(x.place.model, x.rank()) {
		o.grow(p, x, start)
	}
	if len(x.place.model.queues) > 1 {
		p.fillUp(x.place, &x.batch, x.place.model.batchRows(), o.spare(x, best, start))
	}
	return x.place, x.batch
}

// spare is until when the device can be busy with one of its options so that the
// others of no lower rank are answered when haste of their time is over.
func (o *orrery) spare(x *option, chosen int, start Instant) Instant {
	by, at := never, start.Add(x.share)
	for i := range o.options {
		y := &o.options[i]
		if i == chosen || y.out || y.rank() > x.rank() || y.batch.minDeadline == 0 {
			continue
		}
		at = at.Add(y.share)
		r := y.batch.parts[0].queue.timed[y.batch.parts[0].from]
		aim := r.Arrived.Add(time.Duration(haste * float64(r.Deadline.Sub(r.Arrived))))
		by = min(by, start.Add(x.batch.expected+max(0, aim.Sub(at))))
	}
	return by
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
// time, of the last rank, the one with the fewest rows for its time (Moore and
// Hodgson 1968).
//
// crowded is the first rank that something was given up of.
func (o *orrery) drop(start Instant) (crowded uint8) {
	at := start
	crowded = ranks
	for i := range o.options {
		x := &o.options[i]
		if x.out {
			continue
		}
		at = at.Add(x.share)
		if x.batch.minDeadline == 0 || at <= x.batch.minDeadline {
			continue
		}
		worst := -1
		for j := range o.options[:i+1] {
			y := &o.options[j]
			if !y.out && (worst < 0 || y.worse(&o.options[worst])) {
				worst = j
			}
		}
		o.options[worst].out = true
		crowded = min(crowded, o.options[worst].rank())
		at = at.Add(-o.options[worst].share)
	}
	return crowded
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
