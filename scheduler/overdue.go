package scheduler

import (
	"slices"
	"time"
)

// A device that is late gets nothing new; what it has been given can still come.
// When a result is overdue, nothing is expected of it at all: what the device
// was to run is run elsewhere, and the caller cancels it there. That is soft:
// no worker is given up, and a device that answers after all is back at once.

// stallMercy is how long results are waited for after a stall of the caller.
const stallMercy = 50 * time.Millisecond

// overdueAt is when the result of the first action is overdue. 0: the lane is
// idle.
func (l *lane) overdueAt(grace time.Duration) Instant {
	if len(l.actions) == 0 {
		return 0
	}
	first := l.actions[0]
	return first.due.Add(max(grace, 3*first.Expected))
}

// hangs says that a device of the worker is overdue.
func (w *worker) hangs() bool {
	return slices.ContainsFunc(w.devices, func(d *device) bool { return d.execution.overdue })
}

// watch has the first action of a device looked after; to be called whenever
// that is another one: it may be overdue before the one before it was to be over.
func (p *core) watch(d *device) {
	if d.execution.overdue {
		return // and known to be
	}
	at := d.execution.overdueAt(p.options.ResultGrace)
	if at != 0 && (p.overdue == 0 || at < p.overdue) {
		p.overdue = at
	}
}

// abandonOverdue takes the work from the devices whose results are overdue.
// core.overdue is too early for lanes that have moved on since it was noted, so
// that looking at all devices is needed about once a grace, not at each step.
func (p *core) abandonOverdue() {
	if p.overdue == 0 || p.now < p.overdue {
		return
	}
	if p.now.Sub(p.overdue) > p.options.ResultGrace/2 {
		// This step was due long ago: the caller has been held up, and the results
		// may have come meanwhile without being given to the policy yet.
		p.overdue = p.now.Add(stallMercy)
		return
	}
	p.overdue = 0
	for _, d := range p.devices {
		switch at := d.execution.overdueAt(p.options.ResultGrace); {
		case at > p.now:
			p.watch(d)
		case at != 0:
			p.abandon(d)
		}
	}
}

// abandon takes back all requests of a device. Its actions stay in the lane
// until they have results, and keep their weights in use.
func (p *core) abandon(d *device) {
	d.execution.overdue = true
	p.touch(d)
	for i, a := range d.execution.actions {
		if a.abandoned {
			continue
		}
		a.abandoned = true
		a.passed = 0
		p.out.Abandoned = append(p.out.Abandoned, a.ID)
		if a.trial {
			a.place.model.trials--
		}
		batch := a.batch
		a.batch = nil
		for _, r := range batch {
			if r.over {
				continue
			}
			if i == 0 {
				r.unanswered++ // The others merely waited.
			}
			p.again(r, true)
		}
	}
}
