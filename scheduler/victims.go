package scheduler

import (
	"cmp"
	"math"
	"slices"
)

// victims are the weights that have to go before a load: those that nobody
// waits for first, and of these the ones that will be missed least; never any that
// are in use, nor any that are needed more urgently than the ones that come.
func (p *core) victims(pl *place, n want) (victims []*place, ok bool) {
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
