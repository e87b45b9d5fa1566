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
// Requests are ranked: first those of tenants that have had no more than their share
// of the devices, then by priority. A rank is given up before a higher one, and a
// batch is made of the highest first; lower ones fill it up.
type orrery struct {
	options []option // scratch
	more    bool     // there may be others that the device could run
	tenants tenants
	rates   []serviceRate // by slot of the model
}

// Lower ranks fill batches up as long as others of no lower rank are answered before
// such a share of their time is over: less of it for tenants that have had theirs.
const (
	fillShare = 0.95
	haste     = 0.65
)

// sent implements strategy.
func (o *orrery) sent(p *core, a *action) {
	s := o.rate(a.place.model)
	s.rows.add(p.now, float64(a.Rows), rateMemory)
	s.sent = p.now
	for _, r := range a.batch {
		if r.tenant != nil {
			r.tenant.charge(p.now, p.cost(r))
		}
	}
}

func (o *orrery) spreads() bool { return true }

// choose implements strategy. When it makes a batch without a model's most urgent
// requests it gives these up, as a part of the decision.
func (o *orrery) choose(p *core, d *device) (*place, batch) {
	o.gather(p, d)
	start := p.begins(d)
	crowded := uint8(ranks)
	best := o.first(p, start)
	if best < 0 && o.more {
		// Those in front are too late here, though they may not be elsewhere, or are
		// suspects. The others are not to wait for them.
		o.gatherIf(p, d, func(pl *place) bool { return p.mayRun(pl) && o.queueOf(p, pl) != nil })
		best = o.first(p, start)
	}
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
	if o.losing(p, o.options[best].rank()) {
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
		o.fillUp(p, x, best, start)
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
		y := &o.options[i]
		if !y.out || y.batch.rows == 0 {
			continue
		}
		least := fmt.Sprintf("it does least for its time, with a batch of %d", y.batch.rows)
		if y.rank() > x.rank() {
			least = "it is of a lower rank"
		}
		p.options.Explain(fmt.Sprintf("model %d is left for now: not all can be in time, and %s", y.place.model.ID, least))
	}
	if n := x.batch.parts[0].from; n > 0 {
		p.options.Explain(fmt.Sprintf("the batch of model %d is fuller without its first: %d given up", x.place.model.ID, n))
	}
}

// losing says that requests of that rank, or one before it, are being lost of models that
// the device could run. What is lost elsewhere is not helped by it.
func (o *orrery) losing(p *core, rank uint8) bool {
	if p.lastMiss == 0 || p.now.Sub(p.lastMiss) >= missedMemory {
		return false
	}
	for i := range o.options {
		if p.missedLately(o.options[i].place.model, rank) {
			return true
		}
	}
	return false
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

// first is the first option that can be answered in time; −1: there is none.
func (o *orrery) first(p *core, start Instant) int {
	for i := range o.options {
		if o.consider(p, i); !o.options[i].out {
			return i
		}
	}
	return -1
}

// relaxed says that full batches of all options could be answered one after the
// other before the deadline of the most urgent, so that nothing has to be given up.
func (o *orrery) relaxed(p *core, best int, start Instant) bool {
	end := o.options[best].batch.minDeadline
	if end == 0 || len(o.options) == 1 && len(o.options[best].place.model.queues) == 1 {
		return true
	}
	at := start
	for i := best; i < len(o.options) && at <= end; i++ {
		pl := o.options[i].place
		at = at.Add(pl.execution(p.now, pl.model.batchRows()) / time.Duration(max(1, pl.model.present)))
	}
	return at <= end
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

// fillUp adds requests of other ranks to a batch, as long as the options of no
// lower rank than it can all be answered nevertheless.
func (o *orrery) fillUp(p *core, x *option, chosen int, start Instant) {
	most := x.place.model.batchRows()
	if x.rank() < overShare {
		p.fillUp(x.place, &x.batch, most, overShare, o.spare(x, chosen, start, fillShare))
		p.fillUp(x.place, &x.batch, most, ranks, o.spare(x, chosen, start, haste))
		return
	}
	p.fillUp(x.place, &x.batch, most, ranks, o.spare(x, chosen, start, fillShare))
}

// spare is until when the device can be busy with one of its options so that the
// others of no lower rank are answered before such a share of their time is over.
func (o *orrery) spare(x *option, chosen int, start Instant, share float64) Instant {
	by, at := never, start.Add(x.share)
	for i := range o.options {
		y := &o.options[i]
		if i == chosen || y.out || y.batch.used == 0 || y.rank() > x.rank() || y.batch.minDeadline == 0 {
			continue
		}
		at = at.Add(y.share)
		r := y.batch.parts[0].queue.timed[y.batch.parts[0].from]
		aim := r.Arrived.Add(time.Duration(share * float64(r.Deadline.Sub(r.Arrived))))
		by = min(by, start.Add(x.batch.expected+max(0, aim.Sub(at))))
	}
	return by
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
