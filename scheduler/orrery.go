package scheduler

import (
	"fmt"
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
	// batch and share are known once it has been considered.
	considered bool
	batch      batch
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
	rows fading  // that were sent
	sent Instant // when the last batch was
}

// paceMemory is how long what was sent counts.
const paceMemory = 500 * time.Millisecond

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
	rate := s.rows.now(p.now, paceMemory) / paceMemory.Seconds() // rows a second
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
	s.rows.add(p.now, float64(a.Rows), paceMemory)
	s.sent = p.now
	// As in a full batch: who has to run in small ones has not had more for that.
	most := a.place.model.batchRows()
	row := a.place.execution(p.now, most) / time.Duration(most)
	for _, r := range a.batch {
		if r.tenant != nil {
			r.tenant.charge(p.now, row*time.Duration(r.rows))
		}
	}
}

func (o *orrery) spreads() bool { return true }

func (o *orrery) finished(*core, *action, *Result) {}

func (o *orrery) choose(p *core, d *device) (*place, batch) {
	o.gather(p, d)
	start := p.begins(d)
	crowded := uint8(ranks)
	best := o.first(p, start)
	if best < 0 || !o.relaxed(p, best, start) {
		for i := range o.options {
			o.consider(p, i)
		}
		crowded = o.drop(start)
		for best = 0; best < len(o.options) && o.options[best].out; {
			best++
		}
	}
	if best == len(o.options) {
		return nil, batch{}
	}
	urgent := best
	if p.lastMiss != 0 && p.now.Sub(p.lastMiss) < missedMemory {
		best = o.densest(p, best)
	}
	x := &o.options[best]
	if crowded <= x.rank() || p.missedLately(x.place.model, x.rank()) {
		o.grow(p, x, start)
	}
	if p.options.Explain != nil {
		o.explain(p, x, best != urgent)
	}
	if len(x.place.model.queues) > 1 {
		p.fillUp(x.place, &x.batch, x.place.model.batchRows(), o.spare(x, best, start))
	}
	o.leave(p, x)
	return x.place, x.batch
}

// denser is how much more rows for the time an option must have to go before the
// most urgent one, while requests are lost.
const denser = 1.05

// explain says why an option is chosen.
func (o *orrery) explain(p *core, x *option, dense bool) {
	why := "is the most urgent of those that can be in time"
	if dense {
		why = "has a full batch, and requests are being lost"
	}
	p.options.Explain(fmt.Sprintf("model %d %s (%d of %d rows)", x.place.model.ID, why, x.batch.rows, x.place.model.rows))
	for i := range o.options {
		if y := &o.options[i]; y.out && y.batch.rows > 0 {
			p.options.Explain(fmt.Sprintf("model %d is left for now: not all can be in time, and its %d rows are the fewest for their time", y.place.model.ID, y.batch.rows))
		}
	}
	if n := x.batch.parts[0].from; n > 0 {
		p.options.Explain(fmt.Sprintf("without the first %d requests of model %d the batch is fuller", n, x.place.model.ID))
	}
}

// densest is the option of the same rank that answers most for its time, if that is
// so much more that the most urgent one is better left.
func (o *orrery) densest(p *core, first int) int {
	best, rank := first, o.options[first].rank()
	least := denser * o.options[first].density()
	for i := range o.options {
		o.consider(p, i)
		x := &o.options[i]
		if !x.out && x.rank() == rank && x.batch.rows >= x.place.model.batchRows() && x.density() > least {
			best, least = i, x.density()
		}
	}
	return best
}

// density is rows for the time.
func (x *option) density() float64 { return float64(x.batch.rows) / float64(x.batch.expected) }

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

// first is the first option that can be answered in time; −1: there is none.
func (o *orrery) first(p *core, start Instant) int {
	for i := range o.options {
		if o.consider(p, i); !o.options[i].out {
			return i
		}
	}
	return -1
}

// relaxed says that all options could be answered one after the other before the
// deadline of the most urgent, so that nothing has to be given up.
func (o *orrery) relaxed(p *core, best int, start Instant) bool {
	x := &o.options[best]
	if len(x.place.model.queues) > 1 {
		return false
	}
	if x.batch.minDeadline == 0 || len(o.options) == 1 {
		return true
	}
	at := start.Add(x.share)
	for i := best + 1; i < len(o.options) && at <= x.batch.minDeadline; i++ {
		pl := o.options[i].place
		at = at.Add(pl.execution(p.now, pl.model.batchRows()) / time.Duration(max(1, pl.model.present)))
	}
	return at <= x.batch.minDeadline
}

// leave gives up the requests that a batch has passed over to be fuller. They would
// be too late after it, and until then they would be the most urgent of all.
func (o *orrery) leave(p *core, x *option) {
	first := &x.batch.parts[0]
	for ; first.from > 0; first.from-- {
		r := first.queue.timed[0]
		p.complete(r, p.givenUp(r))
	}
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
	// Few may not run although they wait, so that looking at the keys alone, which
	// lie side by side, will mostly do.
	if !o.gatherIf(p, d, func(*place) bool { return true }) {
		o.gatherIf(p, d, p.mayRun)
	}
}

// gatherIf does so among those that may; ok: all that it found may run.
func (o *orrery) gatherIf(p *core, d *device, may func(*place) bool) (ok bool) {
	n := 0
	var keys [lookahead]Instant
	var places [lookahead]*place
	worst := never
	add := func(pl *place, key Instant) {
		if !may(pl) {
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
		for i, slot := range d.slots {
			if key := p.keys[slot]; key < worst {
				add(d.resident[i], key)
			}
		}
	}
	o.options = o.options[:0]
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
