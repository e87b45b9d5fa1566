package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// stroke is one thing that goes wrong, or right again, at an instant.
type stroke struct {
	at time.Duration
	do func(*simulation)
}

// faults are all strokes of the scenario in order.
func (s *simulation) faults() []stroke {
	if s.book.strokes != nil {
		return s.book.strokes
	}
	all := []stroke{}
	for _, f := range s.scenario.Failures {
		w := s.byName[f.Worker]
		begin, end := (*simulation).kill, (*simulation).revive
		if f.Freeze {
			begin, end = (*simulation).freeze, (*simulation).thaw
		}
		all = append(all, stroke{f.At, func(s *simulation) { begin(s, w) }})
		if f.For > 0 {
			all = append(all, stroke{f.At + f.For, func(s *simulation) { end(s, w) }})
		}
	}
	for _, f := range s.scenario.Slowdowns {
		all = append(all, stroke{f.At, func(s *simulation) { s.slow(f) }})
	}
	for _, c := range s.scenario.LeaderChanges {
		all = append(all, stroke{c.At, func(s *simulation) { s.depose(c.Gap) }})
	}
	slices.SortStableFunc(all, func(a, b stroke) int { return cmp.Compare(a.at, b.at) })
	s.book.strokes = all
	return all
}

func (s *simulation) strike(i int) { s.faults()[i].do(s) }

// kill ends a worker's process. What it has sent still arrives, and then the end
// of its connection.
func (s *simulation) kill(w *worker) {
	if !w.alive {
		return
	}
	w.alive, w.frozen, w.deferred = false, false, nil
	w.life++
	for _, d := range w.devices {
		if j := d.execution.running; j != nil {
			d.tally.busy -= s.book.within(s.now, j.started.Add(j.took))
			s.book.span(d, j, s.now)
		}
		d.execution, d.transfer, d.looksAt = lane{}, lane{}, 0
		for m := range d.state {
			if d.state[m] != absent {
				d.become(int32(m), absent)
			}
		}
	}
	s.note(w.Name + " dies")
	if w.connected {
		s.toController(w, event{kind: connectionEnds})
	}
}

// revive starts a dead worker again; it has loaded its models when it connects.
func (s *simulation) revive(w *worker) {
	if w.alive {
		return
	}
	w.alive = true
	s.note(w.Name + " is back")
	s.connect(w)
}

func (s *simulation) freeze(w *worker) {
	if !w.alive || w.frozen {
		return
	}
	w.frozen = true
	s.note(w.Name + " freezes")
	if w.connected {
		s.agenda.push(event{at: s.now.Add(s.scenario.Silence), kind: silent, who: w.index, session: w.session})
	}
}

// thaw lets a frozen worker go on: first with what has happened meanwhile.
func (s *simulation) thaw(w *worker) {
	if !w.alive || !w.frozen {
		return
	}
	w.frozen = false
	deferred := w.deferred
	w.deferred = nil
	s.note(w.Name + " thaws")
	for _, e := range deferred {
		e.at = s.now
		s.agenda.push(e)
	}
	if !w.connected {
		s.connect(w)
	}
}

// slow changes the speed of devices. What runs is not touched.
func (s *simulation) slow(f Slowdown) {
	for i, d := range s.byName[f.Worker].devices {
		if f.Device < 0 || f.Device == i {
			d.slowdown = f.Factor
		}
	}
	s.note(f.Worker + " changes its speed")
}

// lose takes a worker from the policy, because its connection has ended or it
// has been silent.
func (s *simulation) lose(e *event) {
	w := s.workers[e.who]
	if !w.connected || e.session != w.session || e.kind == silent && !w.frozen {
		return
	}
	s.disconnect(w, e.kind == connectionEnds)
}

func (s *simulation) disconnect(w *worker, died bool) {
	w.connected = false
	w.session++
	s.events = append(s.events, scheduler.WorkerDown{Name: w.Name, Died: died})
}

// connect opens a session: what an earlier one has queued is dropped, what runs
// ends for nobody, and the policy hears what is resident.
func (s *simulation) connect(w *worker) {
	if w.connected {
		s.disconnect(w, true)
	}
	if s.policy == nil {
		return // the next leader will connect
	}
	w.session++
	w.connected = true
	for _, d := range w.devices {
		d.execution.drop()
		d.transfer.drop()
	}
	s.events = append(s.events, scheduler.WorkerUp{Worker: w.description()})
}

// depose ends a leader. Its requests are held for the next one.
func (s *simulation) depose(gap time.Duration) {
	if s.policy == nil {
		return
	}
	s.note("the leader goes")
	s.policy, s.wake = nil, 0
	clear(s.events)
	s.events = s.events[:0]
	for _, w := range s.workers {
		if w.connected {
			w.connected = false
			w.session++
			for _, d := range w.devices {
				d.execution.drop()
				d.transfer.drop()
			}
		}
	}
	for i := range s.desk.records {
		if r := &s.desk.records[i]; r.inHand {
			s.hold(r)
		}
	}
	s.agenda.push(event{at: s.now.Add(gap), kind: leaderComes})
}

// lead makes a fresh policy and gives it all there is.
func (s *simulation) lead() {
	s.policy = s.fresh()
	s.infers = map[scheduler.ActionID]*job{}
	state := &scheduler.State{}
	kinds := s.kinds()
	for i := range s.models {
		m := &s.models[i]
		state.Models = append(state.Models, scheduler.Model{
			ID: m.id, MaxRows: m.largest(), Batched: !m.Alone, WeightsBytes: m.WeightsBytes, Pinned: m.Pinned})
		for _, kind := range kinds {
			if p := m.profile(kind); p != nil {
				state.Profiles = append(state.Profiles, scheduler.Profile{
					Model: m.id, DeviceKind: kind, WeightsLoad: p.WeightsLoad, Execution: p.Execution})
			}
		}
	}
	s.events = append(s.events, scheduler.Start{State: state})
	if s.now > epoch {
		s.note("a leader comes")
	}
	for _, w := range s.workers {
		if w.alive && !w.frozen {
			s.connect(w)
		}
	}
	for i := range s.desk.records {
		if r := &s.desk.records[i]; r.inHand {
			s.desk.again(r)
			s.hand(r)
		}
	}
}

// kinds are the kinds of devices there are, sorted.
func (s *simulation) kinds() (kinds []string) {
	for _, w := range s.workers {
		for _, d := range w.devices {
			kinds = append(kinds, d.Kind)
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// note keeps what happened to the cluster.
func (s *simulation) note(what string) {
	s.book.notes = append(s.book.notes, Note{ms(s.now.Sub(epoch)), what})
	if s.scenario.Narrator != nil {
		s.tell("** %s", what)
	}
}
