package scheduler

// edf is the policy "earliest deadline first": a device that has room takes the
// model whose most urgent request it can still answer in time, and as many
// requests of the same shape class as that deadline allows (Liu and Layland 1973,
// with batches).
//
// It is a baseline. Under overload it is a trap: the most urgent request is then
// always one that is nearly too late and leaves no time for a full batch.
type edf struct{ plain }

// plain is the part of a strategy that the simple ones have in common.
type plain struct{}

func (plain) admit(*core, *request) (Completion, bool) { return Completion{}, true }
func (plain) spreads() bool                            { return false }
func (plain) sent(*core, *action)                      {}

func (edf) choose(p *core, d *device) (*place, batch) {
	var first *request
	var from *queue
	var at *place
	p.eachRunnable(d, func(pl *place) {
		for _, q := range pl.model.queues {
			if r := p.firstInTime(pl, q); r != nil &&
				(first == nil || moreUrgent(r, first, p.options.BestEffortAge)) {
				first, at, from = r, pl, q
			}
		}
	})
	if at == nil {
		return nil, batch{}
	}
	return at, p.fill(at, from, p.firstTimed(at, from), at.model.batchRows())
}

// eachRunnable calls f for each model that waits and may run on a device now.
func (p *core) eachRunnable(d *device, f func(*place)) {
	// Both sets can be large; the smaller one is enough.
	if len(p.active) < len(d.resident)/8 {
		for _, m := range p.active {
			if m.runs.has(d.order) {
				if pl := d.byModel[m.ID]; p.mayRun(pl) {
					f(pl)
				}
			}
		}
		return
	}
	for i, slot := range d.slots {
		if p.keys[slot] == never {
			continue
		}
		if pl := d.resident[i]; p.mayRun(pl) {
			f(pl)
		}
	}
}
