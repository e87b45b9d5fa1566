package controller

import (
	"github.com/orrery-project/orrery/scheduler"
)

// watch is what the dispatcher tells the coordinator, on whose loop it is dealt
// with. It implements workerWatch.
type watch struct{ k *coordinator }

var _ workerWatch = watch{}

func (o watch) unanswered(worker string) {
	o.k.mailbox.post(func() {
		if w := o.k.connections[worker]; w != nil && o.k.lostAlone() {
			o.k.strike(w, "it does not answer in time")
		}
	})
}

func (o watch) atFault(worker string) { o.k.mailbox.post(func() { o.k.failing(worker) }) }

func (o watch) blamed(b scheduler.Blame) {
	o.k.mailbox.post(func() { o.k.blame(uint64(b.Model), b.Workers, "ran") })
}

func (o watch) forgiven(worker string) { o.k.mailbox.post(func() { o.k.forgive(worker) }) }

func (o watch) repaired(r scheduler.Repair) {
	o.k.mailbox.post(func() {
		truth := "the weights are not there"
		if r.Present {
			truth = "the weights are there"
		}
		if w := o.k.connections[r.Worker]; w != nil {
			o.k.repaired(w, repairWeights, uint64(r.Model), truth)
		}
	})
}

func (o watch) live() liveWorkers { return o.k.workers() }
