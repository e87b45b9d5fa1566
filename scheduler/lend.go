package scheduler

import "slices"

// lend leaves pages of a device to the caller.
func (p *EDF) lend(worker string, index, pages int) {
	i, ok := slices.BinarySearchFunc(p.workers, worker, byName)
	if !ok || index < 0 || index >= len(p.workers[i].devices) {
		return
	}
	d := p.workers[i].devices[index]
	d.lent = min(max(0, pages), d.pages)
}

// makeRoom evicts what nothing waits for from devices that have lent more pages
// than are free. What can't be had now is had when it can.
func (p *EDF) makeRoom() {
	for _, d := range p.devices {
		if d.lent == 0 || d.free() >= 0 {
			continue
		}
		victims, ok := p.cheapest(d, -d.free(), never)
		if !ok {
			continue
		}
		for _, v := range victims {
			p.evict(v)
		}
	}
}
