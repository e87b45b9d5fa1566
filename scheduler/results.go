package scheduler

import (
	"slices"
	"time"
)

// finished takes in the result of an action. One that is not outstanding (its
// worker was lost, or it is reported twice) is ignored.
func (p *core) finished(res *Result) {
	a := p.actions[res.Action]
	if a == nil {
		return
	}
	delete(p.actions, a.ID)
	a.place.device.host.heard = p.now
	p.trialOver(a)
	switch a.Kind {
	case Infer:
		d := a.place.device
		p.traveled(d.host, a, res)
		d.execution.remove(p.now, a, &d.host.trip)
		p.watch(d)
		a.place.running--
		p.inferFinished(a, res)
	case LoadWeights:
		p.traveled(a.place.device.host, a, res)
		a.place.device.transfer.remove(p.now, a, &a.place.device.host.trip)
		a.place.device.loading--
		p.loadFinished(a, res)
	case EvictWeights:
		a.place.device.transfer.remove(p.now, a, &a.place.device.host.trip)
		// Still there: a later load will have to make room again.
		if res.Outcome != OK && !res.Absent && a.place.state == absent {
			a.place.become(resident, a.pages)
			return
		}
	}
	if a.Kind != Infer || a.place.running == 0 && len(p.cold)+len(p.warm) > 0 {
		p.placing = true // There may be room, or weights that can make it.
	}
	p.touch(a.place.device)
	p.evictRemoved(a.place)
	p.tidy(a.place)
}

func (p *core) inferFinished(a *action, res *Result) {
	pl := a.place
	switch {
	case res.Outcome == OK:
		p.measured(pl, a.Rows, res.Engine)
		pl.backOff.succeed()
		pl.model.answered = true
		p.clear(pl.model, suspectInfer)
	case res.Outcome == Skipped:
	case res.Outcome == Refused && !res.Absent && a.Latest != 0 && p.now >= a.Latest:
		// Most likely too late, which is nobody's fault.
	default:
		p.penalise(pl)
	}
	if res.Outcome != OK && res.Absent && pl.state == resident && a.ID > pl.loadedBy {
		pl.become(absent, 0)
	}
	for _, r := range a.batch {
		if !r.over {
			p.answer(r, a, res)
		}
	}
}

// answer settles one request of a batch that has a result.
func (p *core) answer(r *request, a *action, res *Result) {
	switch {
	case slices.Contains(res.Rejected, r.ID):
		p.complete(r, Completion{Reason: Rejected, Action: a.ID})
	case res.Outcome == Refused, res.Outcome == Skipped, slices.Contains(res.Returned, r.ID):
		p.again(r, false)
	case r.Deadline != 0 && p.now > r.Deadline:
		p.complete(r, Completion{Reason: DeadlinePassed})
	case res.Outcome == OK:
		p.complete(r, Completion{Reason: Done, Action: a.ID})
	default:
		p.complete(r, Completion{Reason: ExecutionFailed, Action: a.ID})
	}
}

func (p *core) loadFinished(a *action, res *Result) {
	pl := a.place
	if pl.state != arriving {
		return
	}
	if res.Outcome != OK {
		pl.become(absent, 0)
		if res.Outcome != Skipped {
			p.penalise(pl)
		}
		return
	}
	p.clear(pl.model, suspectLoad)
	pl.timing.load.record(p.now, res.Engine)
	pl.used = p.now
	pl.become(resident, pl.taken)
}

// traveled takes in how long an action and its result were on their way.
func (p *core) traveled(w *worker, a *action, res *Result) {
	if a.alone && res.Outcome == OK {
		w.trip.record(p.now, p.now.Sub(a.Earliest)-res.Engine)
	}
	w.trip.heard = p.now
	// What is planned for a device is on the safe side by the jitter, twice.
	if ahead := w.trip.lag(p.now) + 2*w.trip.jitter(p.now); ahead != w.ahead {
		w.ahead = ahead
		for _, d := range w.devices {
			p.touch(d)
		}
	}
}

// measured takes in how long a batch took.
func (p *core) measured(pl *place, rows int, engine time.Duration) {
	if engine <= 0 || !pl.timing.profiled {
		return
	}
	d := pl.device
	was := d.pace.factor
	if profiled := pl.timing.profiledTime(rows); profiled > 0 {
		d.pace.record(p.now, pl.model.ID, float64(engine)/float64(profiled))
	}
	if d.pace.factor > 0 {
		p.slow = p.now
	} else {
		pl.timing.record(p.now, rows, engine)
	}
	if was != d.pace.factor {
		p.touch(d)
	}
}

func (p *core) penalise(pl *place) {
	was := pl.backOff.until
	pl.backOff.fail(p.now, p.options.BackOff, p.options.MaxBackOff)
	if pl.backOff.until != was {
		p.paused = append(p.paused, pl)
		p.mayBeUnfit(pl.device)
	}
}

// tidy forgets a place that nothing refers to any more.
func (p *core) tidy(pl *place) {
	if pl.held || pl.state != absent {
		return
	}
	if pl.device.byModel[pl.model.ID] == pl && p.vacate(pl) {
		if i := slices.Index(pl.device.places, pl); i >= 0 {
			pl.device.places = slices.Delete(pl.device.places, i, i+1)
		}
	}
}
