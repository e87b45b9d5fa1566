package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A device's transfer engine is given at most so many loads, for the same
// reason as two batches: the next starts while the result is on its way.
const loadsAtOnce = 2

// weights is what the core keeps for placing weights.
type weights struct {
	warm    []*model // wanted on a device although nothing waits
	wanting []*model // scratch
	cold    []*model // with waiting requests, and on no device
	// placing: something has changed that may let weights be loaded. nextLook is
	// when the models that wait are looked at without that.
	placing  bool
	nextLook Instant
	cursor   int  // in active
	lends    bool // pages of a device are still to be lent
	// listed are all models with a record, spreading is a cursor in it.
	listed    []*model
	spreading int
}

// Models that wait, although they have weights somewhere, may want another device.
// That is looked at now and then, for some of them, so that the cost does not grow
// with their number.
const (
	lookEvery = 5 * time.Millisecond
	lookAt    = 32
)

// placeWeights loads the weights that waiting requests lack.
func (p *core) placeWeights() {
	look := len(p.active) > 0 && p.now >= p.nextLook
	if !look && !p.placing {
		if len(p.active) > 0 {
			p.wakeAt(p.nextLook)
		}
		return
	}
	p.placing = false
	if look {
		p.nextLook = p.now.Add(lookEvery)
	}
	open, idle := false, false
	for _, d := range p.devices {
		open = open || p.mayLoad(d)
		idle = idle || d.idle()
	}
	if !open {
		return // and an event will tell
	}
	if len(p.active) > 0 {
		p.wakeAt(p.nextLook)
	}
	for _, n := range p.wants(idle, look) {
		p.load(n)
	}
	if look && p.strategy.spreads() {
		p.spread()
	}
}

// spread has weights that are in demand loaded on further devices, as long as
// these have free pages and transfer nothing: the next requests then find more
// devices that can run them. Nothing is evicted for it, so that it ends.
func (p *core) spread() {
	open := slices.ContainsFunc(p.devices, func(d *device) bool { return d.free() > 0 && len(d.transfer.actions) == 0 })
	if !open {
		return
	}
	for range min(lookAt, len(p.listed)) {
		p.spreading = (p.spreading + 1) % len(p.listed)
		m := p.listed[p.spreading]
		if !m.known || m.stopped || !m.answered || m.doubt.level != innocent || m.present == 0 || m.present >= m.usable || m.demand.now(p.now) < 1 {
			continue
		}
		var best *place
		for _, pl := range m.places {
			d := pl.device
			if pl.state != absent || !pl.usable() || len(d.transfer.actions) > 0 || !p.mayLoad(d) || pl.backOff.until > p.now {
				continue
			}
			if pages, _ := d.fits(m.WeightsBytes); pages <= d.free() && (best == nil || d.free() > best.device.free()) {
				best = pl
			}
		}
		if best != nil {
			if p.options.Explain != nil {
				p.options.Explain(fmt.Sprintf("model %d is in demand, and %s/%d has free pages", m.ID, best.device.worker, best.device.index))
			}
			p.bring(best)
		}
	}
}

// bring has the weights of a place loaded; there must be room.
func (p *core) bring(pl *place) *action {
	pages, _ := pl.device.fits(pl.model.WeightsBytes)
	a := &action{Action: Action{Kind: LoadWeights, Expected: pl.load(p.now)}}
	pl.become(arriving, pages)
	pl.device.loading++
	p.act(pl, a)
	pl.loadedBy = a.ID
	return a
}

func (p *core) mayLoad(d *device) bool {
	return d.loading < loadsAtOnce && !d.transfer.late(p.now) &&
		!d.execution.late(p.now)
}

// load sends the weights to the best device, if there is one.
func (p *core) load(n want) {
	type option struct {
		place   *place
		victims []*place
		ready   Instant
	}
	if n.warm && n.model.present >= min(n.model.warm, n.model.usable) {
		return // by now
	}
	suspect := n.model.doubt.level != innocent
	if suspect && n.model.arrives() {
		return // one at a time
	}
	var best *option
	for _, pl := range n.model.places {
		d := pl.device
		if pl.state != absent || !pl.usable() || !p.mayLoad(d) || n.gain != never && !d.idle() {
			continue
		}
		if pl.backOff.until > p.now {
			continue // and another look when it ends
		}
		ready := max(d.transfer.free(p.now).Add(pl.load(p.now)), d.execution.free(p.now))
		if ready >= n.gain || n.last != never &&
			ready.Add(pl.execution(p.now, 1)+d.host.trip.lag(p.now)) > n.last {
			continue
		}
		if suspect && !p.mayRisk(d.host, false) {
			p.placing = true // until it may be
			continue
		}
		victims, ok := p.victims(pl, n)
		if !ok {
			continue
		}
		o := option{pl, victims, ready}
		if best == nil || cmp.Or(
			cmp.Compare(min(1, len(o.victims)), min(1, len(best.victims))),
			cmp.Compare(o.ready, best.ready),
			cmp.Compare(d.worker, best.place.device.worker),
			cmp.Compare(d.index, best.place.device.index)) < 0 {
			best = &o
		}
	}
	if best == nil {
		return
	}
	if p.options.Explain != nil {
		p.explainLoad(n, best.place, best.victims)
	}
	for _, v := range best.victims {
		if p.loss(v) > p.loss(best.place)+lossMargin {
			best.place.device.evictions.left--
		}
		p.evict(v)
	}
	a := p.bring(best.place)
	if suspect {
		a.trial = true
		best.place.device.host.trials++
	}
}

func (p *core) explainLoad(n want, to *place, victims []*place) {
	why := "is wanted although nothing waits"
	switch {
	case n.warm:
	case n.model.waiting > 0 && n.model.present == 0:
		why = "is nowhere, and requests wait"
	case n.model.waiting > 0:
		why = "is answered sooner from a further device"
	}
	p.options.Explain(fmt.Sprintf("model %d %s: %s/%d has it soonest", n.model.ID, why, to.device.worker, to.device.index))
	for _, v := range victims {
		p.options.Explain(fmt.Sprintf("model %d makes room: it will be missed least", v.model.ID))
	}
}
