package scheduler

import "math"

// This file is about requests that a strategy binds to one device. As soon as that
// can't run them any more, or is late, they are bound anew, so that nothing waits
// for a device that will not take it.

// fit says that requests may be bound to a place.
func (p *core) fit(pl *place) bool {
	return pl != nil && !pl.device.gone && pl.countedUsable > 0 && pl.state == resident && pl.backOff.until <= p.now &&
		!pl.device.execution.late(p.now)
}

// eachFit calls f for the devices that a request for a model may be bound to, in
// the order of the workers' names.
func (p *core) eachFit(m *model, f func(*device)) {
	both(m.runs, m.runs, func(i int) (stop bool) {
		if d := p.devices[i]; p.fit(d.byModel[m.ID]) {
			f(d)
		}
		return false
	})
}

// mayBeUnfit is for a device that may have become unfit for what is bound to it.
func (p *core) mayBeUnfit(d *device) {
	if d.bound > 0 && !d.unfit {
		d.unfit = true
		p.unfit = append(p.unfit, d)
	}
}

// rebind has the strategy judge anew what is bound to devices that are unfit for
// it, and says whether there was any.
func (p *core) rebind() bool {
	if len(p.unfit) == 0 {
		return false
	}
	for _, d := range p.unfit {
		d.unfit = false
	}
	p.unfit = p.unfit[:0]
	some := false
	p.readmit(func(m *model, q *queue) bool {
		if q.bound == nil || p.fit(q.bound.byModel[m.ID]) {
			return false
		}
		some = true
		return true
	})
	return some
}

// length is how many requests a device has: bound to it, or at it.
func (d *device) length() int {
	n := d.bound
	for _, a := range d.execution.actions {
		n += len(a.batch)
	}
	return n
}

// speed is how fast a worker says it is, in comparison with others; 1 when it says
// nothing that makes sense.
func speed(said float64) float64 {
	if !(said > 0) || math.IsInf(said, 1) {
		return 1
	}
	return said
}
