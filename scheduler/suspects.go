package scheduler

import (
	"cmp"
	"slices"
	"sort"
)

// Some requests kill the worker that runs them, and so do some models. When a
// worker's process dies, all that it had been given is suspect, though most of
// it only happened to be there. A suspect request is tried out: it runs alone,
// so that a second death is its own doing. A suspect model is tried out one
// request at a time, until one is answered. So a poisonous request costs two
// workers and nobody else's answer, and a model that always kills costs two.

// suspicion is what a model has to do to be cleared.
type suspicion int

const (
	innocent     suspicion = iota
	suspectLoad            // its weights were being loaded: load, or answer
	suspectInfer           // it was to run: answer
)

// doubt is what speaks against a model.
type doubt struct {
	level suspicion
	// since: later actions were sent although it was suspect.
	since ActionID
	// workers died with it.
	workers []string
	// tried is the request whose trial died last, if one has.
	tried RequestID
	died  bool
}

// suspects is what a policy keeps for trials.
type suspects struct {
	lastDeath  Instant     // of a worker; before the first, one that has settled
	wary       []*model    // which are suspect, or have suspects waiting
	reserved   []*device   // renewed at each step
	candidates []candidate // scratch
}

// clear is for a model that has been loaded or has answered.
func (p *core) clear(m *model, by suspicion) {
	if m.doubt.level != innocent && m.doubt.level <= by {
		m.doubt = doubt{}
		p.stir(m)
	}
}

// arrives says whether weights of the model are on the way to a device.
func (m *model) arrives() bool {
	return slices.ContainsFunc(m.places, func(pl *place) bool { return pl.state == arriving })
}

// workerDied suspects what a worker died with, or finds it guilty. A death right
// behind another one proves nothing: workers of one machine die together, and so
// do those that somebody kills one after the other.
func (p *core) workerDied(name string, lost []*action) {
	proof := p.now >= p.settled()
	p.lastDeath = p.now
	var guilty *model
	for _, a := range lost {
		if proof && p.convicts(a) {
			guilty = a.place.model
		}
	}
	for _, a := range lost {
		if a.Kind == EvictWeights {
			continue
		}
		for _, r := range a.batch {
			if r.deaths == 0 || proof {
				r.deaths++ // A second one is that of a trial: suspects run as nothing else.
			}
		}
		p.suspect(a, name, a.trial && proof)
	}
	if guilty != nil {
		slices.Sort(guilty.doubt.workers)
		p.out.Blamed = append(p.out.Blamed, Blame{guilty.ID, slices.Clone(guilty.doubt.workers)})
		p.stop(guilty)
	}
}

// convicts says whether the death of a worker with this action is enough to
// blame the action's model. One request that killed twice is at fault itself,
// if its model has answered others.
func (p *core) convicts(a *action) bool {
	m := a.place.model
	if !a.trial || m.doubt.level == innocent || a.ID <= m.doubt.since || m.stopped || !m.known {
		return false
	}
	return a.Kind == LoadWeights || !m.answered || m.doubt.died && m.doubt.tried != a.Requests[0]
}

// suspect doubts the model of an action that a worker died with. tried says that
// it was a trial whose end counts.
func (p *core) suspect(a *action, name string, tried bool) {
	m := a.place.model
	d := &m.doubt
	if d.level == innocent {
		d.since = p.lastAction
	}
	if !slices.Contains(d.workers, name) {
		d.workers = append(d.workers, name)
	}
	d.level = max(d.level, suspectLoad)
	if a.Kind == Infer {
		d.level = suspectInfer
		if tried {
			d.died, d.tried = true, a.Requests[0]
		}
	}
	p.beWary(m)
}

func (p *core) beWary(m *model) {
	if !m.wary {
		m.wary = true
		p.wary = append(p.wary, m)
	}
}

// stop ends the service of a model.
func (p *core) stop(m *model) {
	m.stopped = true
	p.completeWaiting(m, ModelStopped)
}

// modelBlamed takes in what the cluster has agreed on.
func (p *core) modelBlamed(id ModelID, blamed bool) {
	switch m := p.models[id]; {
	case blamed && !p.gone[id]:
		p.stop(p.model(id))
	case m != nil && !blamed:
		m.stopped, m.doubt = false, doubt{}
		p.stir(m)
		p.keepPinned(m)
	}
}

// suspectWaits lets a suspect request wait for its trial.
func (p *core) suspectWaits(r *request) {
	m := r.model
	i := sort.Search(len(m.suspects), func(i int) bool {
		return moreUrgent(r, m.suspects[i], p.options.BestEffortAge)
	})
	m.suspects = slices.Insert(m.suspects, i, r)
	p.beWary(m)
}

// trialsAhead is how many suspects of a model are considered beyond one for
// each worker: the most urgent may be too late for all devices that are free.
const trialsAhead = 16

// candidate is a request that is to be tried out; with a suspect model it is
// any of its requests, and request is the one that ranks it.
type candidate struct {
	model   *model
	request *request
}

// tryOutSuspects begins the trials that can begin, and reserves devices for
// those that wait for one.
func (p *core) tryOutSuspects() {
	for _, d := range p.reserved {
		d.reserved, d.host.reserved = false, false
		p.touch(d)
	}
	p.reserved = p.reserved[:0]
	if len(p.wary) == 0 {
		return
	}
	open := 0
	for _, w := range p.workers {
		if w.trials == 0 {
			open++
		}
	}
	for _, c := range p.suspectsByUrgency() {
		if open == 0 {
			return
		}
		if p.tryOut(c) {
			open--
		}
	}
}

func (p *core) suspectsByUrgency() []candidate {
	age := p.options.BestEffortAge
	p.wary = slices.DeleteFunc(p.wary, func(m *model) bool {
		m.wary = m.known && !m.stopped && (m.doubt.level != innocent || len(m.suspects) > 0)
		return !m.wary
	})
	all := p.candidates[:0]
	for _, m := range p.wary {
		switch {
		case m.doubt.level == innocent:
			for _, r := range m.suspects[:min(len(m.suspects), len(p.workers)+trialsAhead)] {
				all = append(all, candidate{m, r})
			}
		case m.waiting > 0 && m.trials == 0:
			all = append(all, candidate{m, m.head(age)})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(a.request.urgency(age), b.request.urgency(age)),
			cmp.Compare(a.request.seq, b.request.seq))
	})
	p.candidates = all
	return all
}

// tryOut begins a trial on an idle device, or reserves the device that could
// answer it first. It says whether there was one.
func (p *core) tryOut(c candidate) bool {
	var at *place
	var first *request
	rank := func(pl *place, r *request) (busy int, answered Instant) {
		return min(1, len(pl.device.execution.actions)), p.answered(pl, r.rows)
	}
	for _, pl := range c.model.places {
		if !p.mayTry(pl) {
			continue
		}
		r := p.trialAt(pl, c)
		if r == nil || !p.mayRisk(pl.device.host, p.cannotWait(pl, r)) {
			continue
		}
		if at != nil {
			busy, answered := rank(pl, r)
			leastBusy, soonest := rank(at, first)
			if cmp.Or(
				cmp.Compare(busy, leastBusy),
				cmp.Compare(answered, soonest),
				cmp.Compare(pl.device.worker, at.device.worker),
				cmp.Compare(pl.device.index, at.device.index)) >= 0 {
				continue
			}
		}
		at, first = pl, r
	}
	if at == nil {
		return false
	}
	d := at.device
	if len(d.execution.actions) > 0 {
		d.reserved, d.host.reserved = true, true
		p.touch(d)
		p.reserved = append(p.reserved, d)
		return true
	}
	p.dequeue(first)
	d.trying = true
	d.host.trials++
	at.model.trials++
	a := &action{trial: true, batch: []*request{first}}
	p.infer(at, a, first.rows, at.execution(p.now, first.rows), first.Deadline)
	return true
}

// mayTry says whether a trial could begin at a place once its device is idle.
func (p *core) mayTry(pl *place) bool {
	if pl.state != resident || !pl.usable() || pl.device.execution.late(p.now) {
		return false
	}
	if pl.backOff.until > p.now {
		p.wakeAt(pl.backOff.until)
		return false
	}
	return true
}

// mayRisk says whether something that may kill it can be sent to a worker: it
// has nothing of that sort yet, and the last death was some time ago. Workers of
// one machine can die at once, and their connections break one after the other;
// no request is to be lost twice by that. What cannot wait goes to a worker that
// has given a result since.
func (p *core) mayRisk(w *worker, cannotWait bool) bool {
	if w.trials > 0 || w.reserved || w.endangered() {
		return false
	}
	settled := p.settled()
	if p.now < settled && !(cannotWait && w.heard > p.lastDeath) {
		p.wakeAt(settled)
		return false
	}
	return true
}

// settled is when all that died with the last worker that died has been heard of.
func (p *core) settled() Instant { return p.lastDeath.Add(p.options.SuspectSettle) }

// cannotWait says that a request would be too late if it waited for that.
func (p *core) cannotWait(pl *place, r *request) bool {
	start := max(p.settled(), pl.device.execution.free(p.now))
	return r.Deadline != 0 && start.Add(pl.execution(p.now, r.rows)+pl.device.host.trip.lag(p.now)) > r.Deadline
}

// endangered says that the worker has got actions of a model before that was
// found to be suspect.
func (w *worker) endangered() bool {
	risky := func(a *action) bool {
		m := a.place.model
		return a.Kind != EvictWeights && (m.stopped || m.doubt.level != innocent)
	}
	return slices.ContainsFunc(w.devices, func(d *device) bool {
		return slices.ContainsFunc(d.execution.actions, risky) || slices.ContainsFunc(d.transfer.actions, risky)
	})
}

// trialAt is the request to try out at a place; nil: none is in time. Of a
// suspect model's requests it is the most urgent that is, for under overload
// the most urgent of all is nearly too late when the device is free.
func (p *core) trialAt(pl *place, c candidate) *request {
	inTime := func(r *request) bool { return r.Deadline == 0 || p.answered(pl, r.rows) <= r.Deadline }
	if c.model.doubt.level == innocent {
		if inTime(c.request) {
			return c.request
		}
		return nil
	}
	if i := slices.IndexFunc(c.model.suspects, inTime); i >= 0 {
		return c.model.suspects[i]
	}
	var first *request
	for _, q := range c.model.queues {
		if r := p.firstInTime(pl, q); r != nil &&
			(first == nil || moreUrgent(r, first, p.options.BestEffortAge)) {
			first = r
		}
	}
	return first
}

// trialOver is for an action that has a result, or whose worker is lost.
func (p *core) trialOver(a *action) {
	if !a.trial {
		return
	}
	d := a.place.device
	d.host.trials--
	if a.Kind != Infer {
		return
	}
	d.trying = false
	p.touch(d)
	if !a.abandoned {
		a.place.model.trials--
	}
}
