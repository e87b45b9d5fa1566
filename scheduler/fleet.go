package scheduler

import (
	"cmp"
	"slices"
)

// workersUp adds workers; one of the same name as another is replaced.
func (p *core) workersUp(specs ...*Worker) {
	var lost []*action
	var up []*worker
	for _, w := range specs {
		lost = append(lost, p.drop(w.Name)...)
		up = append(up, p.enter(w))
	}
	p.listDevices()
	for i, w := range specs {
		p.furnish(up[i], w)
	}
	p.placing = true
	p.recover(lost)
}

// enter makes the record of a worker.
func (p *core) enter(w *Worker) *worker {
	up := &worker{name: w.Name, heard: p.now}
	up.trip.seed = p.options.NetworkLag
	i, _ := slices.BinarySearchFunc(p.workers, w.Name, byName)
	p.workers = slices.Insert(p.workers, i, up)
	for i, spec := range w.Devices {
		d := &device{core: p, worker: w.Name, host: up, index: i, kind: spec.Kind, speed: speed(w.Speed),
			pages: spec.Pages, pageBytes: spec.PageBytes, byModel: make(map[ModelID]*place)}
		d.alarm.device = d
		d.evictions = evictionBudget{evictionBurst, p.now}
		up.devices = append(up.devices, d)
	}
	return up
}

// furnish notes what is on a new worker.
func (p *core) furnish(up *worker, w *Worker) {
	for i, spec := range w.Devices {
		d := up.devices[i]
		if d.gone { // Another one of its name came after it.
			return
		}
		for _, id := range w.Holds {
			p.place(d, id).hold(true)
		}
		for _, r := range spec.Resident {
			p.place(d, r.Model).become(resident, r.Pages)
		}
		for _, pl := range slices.Clone(d.resident) {
			p.evictRemoved(pl)
		}
		p.touch(d)
	}
}

func (p *core) workerDown(name string, died bool) {
	lost := p.drop(name)
	if died {
		p.workerDied(name, lost)
	}
	p.recover(lost)
}

func byName(w *worker, name string) int { return cmp.Compare(w.name, name) }

// drop forgets a worker and returns the actions that were lost with it.
func (p *core) drop(name string) (lost []*action) {
	i, ok := slices.BinarySearchFunc(p.workers, name, byName)
	if !ok {
		return nil
	}
	w := p.workers[i]
	p.workers = slices.Delete(p.workers, i, i+1)
	for _, d := range w.devices {
		d.gone = true
		p.alarms.set(&d.alarm, 0)
		p.roomy.put(d.order, false)
		for _, l := range [...]*lane{&d.execution, &d.transfer} {
			for _, a := range l.actions {
				delete(p.actions, a.ID)
				p.trialOver(a)
			}
			lost = append(lost, l.actions...)
		}
		for _, pl := range d.places {
			p.leave(pl)
		}
	}
	// What this step has decided for it would reach the next one of its name.
	p.out.Actions = slices.DeleteFunc(p.out.Actions, func(a Action) bool { return a.Worker == name })
	gone := func(d *device) bool { return d.gone }
	p.stirred = slices.DeleteFunc(p.stirred, gone)
	p.changed.devices = slices.DeleteFunc(p.changed.devices, gone)
	p.reserved = slices.DeleteFunc(p.reserved, gone)
	p.paused = slices.DeleteFunc(p.paused, func(pl *place) bool { return pl.device.gone })
	p.listDevices()
	p.placing = true
	return lost
}

// recover runs again what was in lost actions.
func (p *core) recover(lost []*action) {
	for _, a := range lost {
		for _, r := range a.batch {
			if !r.over {
				p.again(r, true)
			}
		}
	}
}

// listDevices numbers the devices anew, and renews the sets that go by the number.
func (p *core) listDevices() {
	p.devices = p.devices[:0]
	p.kinds = false
	clear(p.roomy)
	for _, w := range p.workers {
		p.devices = append(p.devices, w.devices...)
	}
	// order: all sets are emptied.
	for _, m := range p.models {
		clear(m.runs)
	}
	for i, d := range p.devices {
		d.order = i
		p.kinds = p.kinds || d.kind != p.devices[0].kind
		for _, pl := range d.resident {
			pl.model.runs.put(i, pl.usable())
		}
		p.roomy.put(i, p.hasRoom(d))
	}
}

// place is the model's place on a device, made when it is missing.
func (p *core) place(d *device, id ModelID) *place {
	if pl := d.byModel[id]; pl != nil {
		return pl
	}
	m := p.model(id)
	pl := &place{device: d, model: m, timing: m.timing(d.kind)}
	d.byModel[id] = pl
	d.places = append(d.places, pl)
	m.places = append(m.places, pl)
	return pl
}

// leave takes a place from its model, and forgets a model that is gone.
func (p *core) leave(pl *place) {
	m := pl.model
	if i := slices.Index(m.places, pl); i >= 0 {
		m.places = slices.Delete(m.places, i, i+1)
	}
	pl.hold(false)
	p.forget(m)
}

func (p *core) forget(m *model) {
	if m.removed && len(m.places) == 0 && p.models[m.ID] == m {
		delete(p.models, m.ID)
		p.alarms.set(&m.alarm, 0)
		p.slots = append(p.slots, m.slot)
		p.listed = slices.DeleteFunc(p.listed, func(l *model) bool { return l == m })
	}
}

// model is the record of a model, made when it is missing.
func (p *core) model(id ModelID) *model {
	m := p.models[id]
	if m == nil {
		m = &model{Model: Model{ID: id}, active: -1, removed: p.gone[id]}
		m.alarm.model = m
		if n := len(p.slots); n > 0 {
			m.slot, p.slots = p.slots[n-1], p.slots[:n-1]
		} else {
			m.slot = int32(len(p.keys))
			p.keys = append(p.keys, never)
		}
		p.models[id] = m
		p.listed = append(p.listed, m)
	}
	return m
}

func (p *core) heldChanged(name string, models []ModelID) {
	i, ok := slices.BinarySearchFunc(p.workers, name, byName)
	if !ok {
		return
	}
	holds := make(map[ModelID]bool, len(models))
	for _, id := range models {
		holds[id] = true
	}
	for _, d := range p.workers[i].devices {
		for _, id := range models {
			p.place(d, id).hold(true)
		}
		d.places = slices.DeleteFunc(d.places, func(pl *place) bool {
			if holds[pl.model.ID] {
				return false
			}
			pl.hold(false)
			return p.vacate(pl)
		})
	}
}

// vacate forgets a place that is neither held nor occupied nor in an action;
// the caller takes it out of the device's list.
func (p *core) vacate(pl *place) bool {
	if pl.held || pl.state != absent || pl.running > 0 || p.inTransfer(pl) {
		return false
	}
	delete(pl.device.byModel, pl.model.ID)
	p.leave(pl)
	return true
}

func (p *core) inTransfer(pl *place) bool {
	return slices.ContainsFunc(pl.device.transfer.actions, func(a *action) bool { return a.place == pl })
}

func (p *core) modelAdded(spec *Model) {
	m := p.model(spec.ID)
	delete(p.gone, spec.ID)
	p.unpin(m, spec.Pinned)
	m.Model, m.known, m.removed = *spec, true, false
	m.refresh()
	p.keepPinned(m)
}

func (p *core) modelRemoved(id ModelID) {
	p.gone[id] = true
	m := p.models[id]
	if m == nil || m.removed {
		return
	}
	m.known, m.removed = false, true
	m.refresh()
	p.completeWaiting(m, UnknownModel)
	for _, pl := range m.places {
		p.evictRemoved(pl)
	}
	p.forget(m)
}

// modelReplaced lets new answer for what waits for old, and for what comes
// back unanswered from the workers that run old.
func (p *core) modelReplaced(oldID, newID ModelID) {
	old := p.models[oldID]
	if old == nil || oldID == newID {
		return
	}
	successor := p.model(newID)
	successor.replacement = nil
	old.replacement = successor
	for old.waiting > 0 {
		r := old.head(p.options.BestEffortAge)
		p.dequeue(r)
		p.again(r, false)
	}
}

func (p *core) profileChanged(f *Profile) {
	if p.gone[f.Model] && p.models[f.Model] == nil {
		return // a record would stay for ever
	}
	m := p.model(f.Model)
	m.timing(f.DeviceKind).seed(f)
	m.refresh()
	p.stir(m)
}
