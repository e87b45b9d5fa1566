package scheduler

import "slices"

// finished takes in the result of an action. One that is not outstanding (its
// worker was lost, or it is reported twice) is ignored.
func (p *EDF) finished(res *Result) {
	a := p.actions[res.Action]
	if a == nil {
		return
	}
	delete(p.actions, a.ID)
	a.place.device.host.heard = p.now
	p.trialOver(a)
	switch a.Kind {
	case Infer:
		a.place.device.execution.remove(p.now, a)
		p.watch(a.place.device)
		a.place.running--
		p.inferFinished(a, res)
	case LoadWeights:
		a.place.device.transfer.remove(p.now, a)
		a.place.device.loading--
		p.loadFinished(a, res)
	case EvictWeights:
		a.place.device.transfer.remove(p.now, a)
		// Still there: a later load will have to make room again.
		if res.Outcome != OK && !res.Absent && a.place.state == absent {
			a.place.become(resident, a.pages)
			return
		}
	}
	p.evictRemoved(a.place)
	p.tidy(a.place)
}

func (p *EDF) inferFinished(a *action, res *Result) {
	pl := a.place
	switch {
	case res.Outcome == OK:
		pl.timing.recordExecution(p.now, a.Rows, res.Engine)
		pl.backOff.succeed()
		pl.model.answered = true
		pl.model.clear(suspectInfer)
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
func (p *EDF) answer(r *request, a *action, res *Result) {
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

func (p *EDF) loadFinished(a *action, res *Result) {
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
	pl.model.clear(suspectLoad)
	pl.timing.load.record(p.now, res.Engine)
	pl.used = p.now
	pl.become(resident, pl.taken)
}

func (p *EDF) penalise(pl *place) {
	pl.backOff.fail(p.now, p.options.BackOff, p.options.MaxBackOff)
}

// tidy forgets a place that nothing refers to any more.
func (p *EDF) tidy(pl *place) {
	if pl.device.byModel[pl.model.ID] == pl && p.vacate(pl) {
		if i := slices.Index(pl.device.places, pl); i >= 0 {
			pl.device.places = slices.Delete(pl.device.places, i, i+1)
		}
	}
}
