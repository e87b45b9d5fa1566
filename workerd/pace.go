package workerd

import "time"

// paceKey names what is run alike: a model and the rows of a batch.
type paceKey struct {
	model uint64
	rows  int
}

// pace is about how long a batch takes, and when that was last seen, in ns of the worker's clock.
type pace struct {
	took, at int64
}

const (
	// paceShare is how much of a slower run is believed at once: one part in so many.
	paceShare = 8
	// paceFor is how long a pace is believed that no run confirms: should it be wrong, nothing might be run at all.
	paceFor = 5 * time.Second
)

// note learns from a run. A faster one is believed at once, a slower one in part: a hiccup shall not make the worker think
// that it can't answer in time.
func (d *device) note(model uint64, rows int, took int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := paceKey{model, rows}
	if known, ok := d.pace[k]; ok && took > known.took {
		took = known.took + (took-known.took)/paceShare
	}
	d.pace[k] = pace{took, d.clock()}
	d.inferred = d.clock()
}

// takes is about how long a batch will take, ns; 0 when nobody knows. The lock is held.
func (d *device) takes(model uint64, rows int) int64 {
	known, ok := d.pace[paceKey{model, rows}]
	if !ok || d.clock()-known.at > int64(paceFor) {
		return 0
	}
	return known.took
}
