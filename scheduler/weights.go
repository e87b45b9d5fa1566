package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// A device's transfer engine is given at most so many loads, for the same
// reason as two batches: the next starts while the result is on its way.
const loadsAhead = 2

// demand is a model that ought to be on one device more.
type demand struct {
	model *model
	rank  Instant // the more urgent first
	// last is the latest deadline that still makes a load worth its while.
	last Instant
	// gain: the weights must be there before; other devices have them already.
	gain Instant
	// mayEvict others whose need is less; else only free pages are used.
	mayEvict bool
	// warm: it is wanted whether anything waits or not, as a pinned model is.
	warm bool
}

// wantWarm notes that a model ought to be on so many devices although nothing
// waits.
func (p *core) wantWarm(m *model, devices int) {
	if m.warm == 0 && devices > 0 {
		p.warm = append(p.warm, m)
	}
	m.warm = max(m.warm, devices)
	p.placing = true
}

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

// keepPinned has the weights of a pinned model loaded as long as too few devices
// have them.
func (p *core) keepPinned(m *model) {
	if m.known && !m.stopped && m.present < min(m.Pinned, m.usable) {
		p.wantWarm(m, m.Pinned)
	}
}

// unpin forgets that weights of the model are to come, if it had more pins before.
func (p *core) unpin(m *model, pinned int) {
	if pinned < m.Pinned && m.warm > 0 {
		m.warm = 0
		p.warm = slices.DeleteFunc(p.warm, func(w *model) bool { return w == m })
	}
}

// pinned says that the model would be on too few devices without its weights here.
// Where nobody could use them they are not pinned.
func (pl *place) pinned() bool {
	m := pl.model
	return m.known && !m.stopped && pl.countedPresent == 1 && m.present <= m.Pinned
}

// lacksWeights notes that requests wait for a model that is nowhere.
func (p *core) lacksWeights(m *model) {
	if m.present == 0 && m.waiting > 0 {
		p.placing = true
		if !m.cold {
			m.cold = true
			p.cold = append(p.cold, m)
		}
	}
}

// demandMemory is for how long a request counts as demand for its model's weights.
const demandMemory = 10 * time.Second

// demanded is how many rows of a model have been asked for of late.
type demanded struct{ fading }

func (d *demanded) add(now Instant, rows int) { d.fading.add(now, float64(rows), demandMemory) }

func (d *demanded) now(now Instant) float64 { return d.fading.now(now, demandMemory) }

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
	for _, n := range p.demands(idle, look) {
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
	return d.loading < loadsAhead && !d.transfer.late(p.now) &&
		!d.execution.late(p.now)
}

// demands lists the models that lack a device, the most urgent first.
func (p *core) demands(someIdle, look bool) []demand {
	var all []demand
	p.cold = slices.DeleteFunc(p.cold, func(m *model) bool {
		m.cold = m.present == 0 && m.waiting > 0
		return !m.cold
	})
	candidates := append(p.wanting[:0], p.cold...)
	if look {
		for range min(lookAt, len(p.active)) {
			p.cursor = (p.cursor + 1) % len(p.active)
			if m := p.active[p.cursor]; !m.cold && (someIdle || m.doubt.level != innocent || p.missedLately(m, ranks-1)) {
				candidates = append(candidates, m)
			}
		}
	}
	p.wanting = candidates
	for _, m := range candidates {
		if m.usable == 0 {
			continue
		}
		ready, drained := p.outlook(m)
		if ready != never && (!someIdle || m.doubt.level != innocent) {
			continue
		}
		head := m.head(p.options.BestEffortAge)
		n := demand{model: m, rank: head.urgency(p.options.BestEffortAge), last: m.lastDeadline(), gain: drained}
		n.mayEvict = ready == never || drained > n.last ||
			head.Deadline != 0 && ready > p.lateAt(head)
		all = append(all, n)
	}
	p.warm = slices.DeleteFunc(p.warm, func(m *model) bool {
		if m.stopped || m.present >= min(m.warm, m.usable) {
			m.warm = 0
		}
		return m.warm == 0
	})
	for _, m := range p.warm {
		if m.waiting == 0 || m.present > 0 { // else it is one of the cold
			all = append(all, demand{model: m, rank: never, last: never, gain: never, mayEvict: true, warm: true})
		}
	}
	slices.SortFunc(all, func(a, b demand) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.model.ID, b.model.ID))
	})
	return all
}

// outlook is when the first of the devices that have the model's weights, or
// will have, can start on it, and when they will have run all that waits.
func (p *core) outlook(m *model) (ready, drained Instant) {
	ready = never
	var fastest *place
	devices := 0
	// What hangs may keep all trials from its worker.
	trialsOnly := m.doubt.level != innocent || len(m.suspects) == m.waiting
	for _, pl := range m.places {
		if pl.state == absent || !pl.usable() || pl.device.execution.late(p.now) ||
			trialsOnly && pl.device.host.hangs() {
			continue
		}
		at := max(pl.device.execution.free(p.now), pl.backOff.until)
		if pl.state == arriving {
			if pl.device.transfer.late(p.now) {
				continue
			}
			at = max(at, pl.device.transfer.free(p.now))
		}
		devices++
		if at < ready {
			ready, fastest = at, pl
		}
	}
	if ready == never {
		return never, never
	}
	full := m.batchRows()
	batches := (m.rows + full - 1) / full
	if !m.Batched {
		full, batches = 1, m.waiting
	}
	work := fastest.execution(p.now, min(full, m.rows)) * time.Duration(batches) / time.Duration(devices)
	return ready, ready.Add(work)
}

// load sends the weights to the best device, if there is one.
func (p *core) load(n demand) {
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

func (p *core) explainLoad(n demand, to *place, victims []*place) {
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

// victims are the weights that have to go before a load: those that nobody
// waits for first, and of these the ones that will be missed least; never any that
// are in use, nor any that are needed more urgently than the ones that come.
func (p *core) victims(pl *place, n demand) (victims []*place, ok bool) {
	d := pl.device
	pages, _ := d.fits(n.model.WeightsBytes)
	lacking := pages - d.free()
	if lacking <= 0 {
		return nil, true
	}
	if !n.mayEvict {
		return nil, false
	}
	victims, ok = p.cheapest(d, lacking, n.rank)
	if n.model.present > 0 && !n.warm && slices.ContainsFunc(victims, func(v *place) bool { return !p.yields(v, pl) }) {
		return nil, false
	}
	if !ok || !slices.ContainsFunc(victims, func(v *place) bool { return p.loss(v) > p.loss(pl)+lossMargin }) {
		return victims, ok
	}
	d.evictions.fill(p.now)
	return victims, d.evictions.left >= 1
}

// yields says whether weights may go for a further copy of others. Else devices
// would exchange copies for ever: what is asked for and would be nowhere else stays
// unless the others need the copy, and so does what is asked for half as much.
func (p *core) yields(v, to *place) bool {
	if v.model.present == 1 && p.loss(v) > lossOfNone && to.model.present >= p.copiesNeeded(to) {
		return false
	}
	return 2*v.model.demand.now(p.now) < to.model.demand.now(p.now)
}

// An exchange of weights that are asked for much more for others that are asked
// for much less soon has to be undone. A device makes few of these.
const (
	lossMargin    = 3 // doublings
	evictionRate  = 5 // a second
	evictionBurst = 5
)

// evictionBudget is how many such exchanges a device may still make.
type evictionBudget struct {
	left float64
	at   Instant
}

func (b *evictionBudget) fill(now Instant) {
	b.left = min(evictionBurst, b.left+evictionRate*now.Sub(b.at).Seconds())
	b.at = now
}

// cheapest are the weights that are given up for so many pages, if there are
// enough: none that are waited for as urgently as rank, and none that are pinned.
func (p *core) cheapest(d *device, lacking int, rank Instant) (victims []*place, ok bool) {
	var candidates []*place
	reclaimable := 0
	for _, v := range d.resident {
		if v.running > 0 || v.pinned() || v.taken == 0 || v.model.waiting > 0 && v.usable() &&
			v.model.head(p.options.BestEffortAge).urgency(p.options.BestEffortAge) <= rank {
			continue
		}
		candidates = append(candidates, v)
		reclaimable += v.taken
	}
	if reclaimable < lacking {
		return nil, false
	}
	slices.SortFunc(candidates, func(a, b *place) int {
		return cmp.Or(
			cmp.Compare(min(1, a.model.waiting), min(1, b.model.waiting)),
			cmp.Compare(p.loss(a), p.loss(b)),
			cmp.Compare(a.used, b.used),
			cmp.Compare(a.model.ID, b.model.ID))
	})
	for i, v := range candidates {
		lacking -= v.taken
		if lacking <= 0 {
			return candidates[:i+1], true
		}
	}
	return nil, false
}

// loss is what would be missed without the weights of a place: the rows that come
// for them, to within a doubling, in the share of the place. A copy beyond what the
// model needs is missed least.
func (p *core) loss(pl *place) int {
	m := pl.model
	rows := m.demand.now(p.now)
	if m.present > p.copiesNeeded(pl) {
		return math.MinInt
	}
	rows /= float64(max(1, m.present))
	if rows < 0.25 {
		return lossOfNone
	}
	return int(math.Ceil(math.Log2(rows)))
}

// copiesNeeded is on how many devices a model has to be for what is asked of it, if
// they are like that of the place. It reckons with small batches: when a model is on
// too few devices the others can't help it, and full batches can't be relied on where
// many models share a device.
func (p *core) copiesNeeded(pl *place) int {
	if !pl.timing.profiled {
		return 0
	}
	small := max(1, pl.model.batchRows()/16)
	each := pl.execution(p.now, small).Seconds() / float64(small)
	busy := pl.model.demand.now(p.now) / demandMemory.Seconds() * each
	return 1 + int(busy/copyShare)
}

const (
	// lossOfNone is that of weights that are hardly asked for.
	lossOfNone = -3
	// copyShare is how much of a device one copy may keep busy before another one is
	// needed: there are other models, and batches are not always full.
	copyShare = 0.3
)

// evict takes the weights off the device. The pages count as free at once: the
// worker carries out transfers in the order of the actions.
func (p *core) evict(pl *place) {
	a := &action{Action: Action{Kind: EvictWeights}, pages: pl.taken}
	pl.become(absent, 0)
	p.act(pl, a)
}

// evictRemoved frees the pages of a model that has been removed, as soon as
// nothing uses them.
func (p *core) evictRemoved(pl *place) {
	if pl.model.removed && pl.state == resident && pl.running == 0 {
		p.evict(pl)
	}
}
