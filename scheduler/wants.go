package scheduler

import (
	"cmp"
	"slices"
	"time"
)

// want is a model that ought to be on one device more.
type want struct {
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

// wants lists the models that lack a device, the most urgent first.
func (p *core) wants(someIdle, look bool) []want {
	var all []want
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
		n := want{model: m, rank: head.urgency(p.options.BestEffortAge), last: m.lastDeadline(), gain: drained}
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
			all = append(all, want{model: m, rank: never, last: never, gain: never, mayEvict: true, warm: true})
		}
	}
	slices.SortFunc(all, func(a, b want) int {
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
