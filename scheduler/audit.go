package scheduler

import (
	"cmp"
	"slices"
)

// reported compares the mirror of a worker's devices with what it says is
// there, and believes the worker. Weights that come or go are left alone: the
// report may be from before or after, and the result will tell.
func (p *core) reported(w *Worker) {
	i, ok := slices.BinarySearchFunc(p.workers, w.Name, byName)
	if !ok || len(p.workers[i].devices) != len(w.Devices) {
		return
	}
	for i, d := range p.workers[i].devices {
		p.audit(d, w.Devices[i].Resident)
	}
}

func (p *core) audit(d *device, said []Resident) {
	byModel := func(r Resident, id ModelID) int { return cmp.Compare(r.Model, id) }
	said = slices.Clone(said)
	slices.SortStableFunc(said, func(a, b Resident) int { return byModel(a, b.Model) })
	said = slices.CompactFunc(said, func(a, b Resident) bool { return a.Model == b.Model })

	for _, pl := range slices.Clone(d.resident) {
		if _, there := slices.BinarySearchFunc(said, pl.model.ID, byModel); there || p.inTransfer(pl) {
			continue
		}
		pl.become(absent, 0)
		p.repaired(pl, false)
		p.tidy(pl)
	}
	for _, r := range said {
		pl := d.byModel[r.Model]
		switch {
		case pl == nil:
			pl = p.place(d, r.Model)
		case p.inTransfer(pl):
			continue
		case pl.state == resident && pl.taken == r.Pages:
			p.evictRemoved(pl) // if that has failed before
			continue
		}
		pl.become(resident, r.Pages)
		p.repaired(pl, true)
		p.evictRemoved(pl)
	}
}

func (p *core) repaired(pl *place, present bool) {
	p.out.Repairs = append(p.out.Repairs, Repair{pl.device.worker, pl.device.index, pl.model.ID, present})
}
