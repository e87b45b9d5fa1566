package scheduler

import "slices"

// lend leaves pages of a device to the caller, as soon as they can be had.
func (p *core) lend(worker string, index, pages int) {
	i, ok := slices.BinarySearchFunc(p.workers, worker, byName)
	if !ok || index < 0 || index >= len(p.workers[i].devices) {
		return
	}
	d := p.workers[i].devices[index]
	d.lending = min(max(0, pages), d.pages)
	p.lends = true
	d.lent = min(d.lent, d.lending)
	p.placing = true
}

// makeRoom lends what has been asked for, all at once: pages that are free, and
// those of weights that nothing waits for. Until there are enough none is withheld.
func (p *core) makeRoom() {
	if !p.lends {
		return
	}
	p.lends = false
	for _, d := range p.devices {
		if d.lent == d.lending {
			continue
		}
		var victims []*place
		if lacking := d.lending - d.lent - d.free(); lacking > 0 {
			enough := false
			if victims, enough = p.cheapest(d, lacking, never); !enough {
				p.lends = true
				continue
			}
		}
		for _, v := range victims {
			p.evict(v)
		}
		d.lent = d.lending
	}
}
