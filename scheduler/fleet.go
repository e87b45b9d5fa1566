package scheduler

import (
	"cmp"
	"slices"
)

// workerUp adds a worker; one of the same name is replaced.
func (p *EDF) workerUp(w *Worker) {
	lost := p.drop(w.Name)
	up := &worker{name: w.Name, heard: p.now}
	i, _ := slices.BinarySearchFunc(p.workers, w.Name, byName)
	p.workers = slices.Insert(p.workers, i, up)
	for i, spec := range w.Devices {
		d := &device{worker: w.Name, host: up, index: i, kind: spec.Kind, pages: spec.Pages,
			pageBytes: spec.PageBytes, byModel: make(map[ModelID]*place)}
		up.devices = append(up.devices, d)
		for _, id := range w.Holds {
			p.place(d, id).hold(true)
		}
		for _, r := range spec.Resident {
			p.place(d, r.Model).become(resident, r.Pages)
		}
	}
	p.listDevices()
	for _, d := range up.devices {
		for _, pl := range slices.Clone(d.resident) {
			p.evictRemoved(pl)
		}
	}
	p.recover(lost)
}

func (p *EDF) workerDown(name string, died bool) {
	lost := p.drop(name)
	if died {
		p.workerDied(name, lost)
	}
	p.recover(lost)
}

func byName(w *worker, name string) int { return cmp.Compare(w.name, name) }

// drop forgets a worker and returns the actions that were lost with it.
func (p *EDF) drop(name string) (lost []*action) {
	i, ok := slices.BinarySearchFunc(p.workers, name, byName)
	if !ok {
		return nil
	}
	w := p.workers[i]
	p.workers = slices.Delete(p.workers, i, i+1)
	p.listDevices()
	for _, d := range w.devices {
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
	return lost
}

// recover runs again what was in lost actions.
func (p *EDF) recover(lost []*action) {
	for _, a := range lost {
		for _, r := range a.batch {
			if !r.over {
				p.again(r, true)
			}
		}
	}
}

func (p *EDF) listDevices() {
	p.devices = p.devices[:0]
	for _, w := range p.workers {
		p.devices = append(p.devices, w.devices...)
	}
}

// place is the model's place on a device, made when it is missing.
func (p *EDF) place(d *device, id ModelID) *place {
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
func (p *EDF) leave(pl *place) {
	m := pl.model
	if i := slices.Index(m.places, pl); i >= 0 {
		m.places = slices.Delete(m.places, i, i+1)
	}
	pl.hold(false)
	p.forget(m)
}

func (p *EDF) forget(m *model) {
	if m.removed && len(m.places) == 0 && p.models[m.ID] == m {
		delete(p.models, m.ID)
	}
}

// model is the record of a model, made when it is missing.
func (p *EDF) model(id ModelID) *model {
	m := p.models[id]
	if m == nil {
		m = &model{Model: Model{ID: id}, active: -1, removed: p.gone[id]}
		p.models[id] = m
	}
	return m
}

func (p *EDF) heldChanged(name string, models []ModelID) {
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
func (p *EDF) vacate(pl *place) bool {
	if pl.held || pl.state != absent || pl.running > 0 || p.inTransfer(pl) {
		return false
	}
	delete(pl.device.byModel, pl.model.ID)
	p.leave(pl)
	return true
}

func (p *EDF) inTransfer(pl *place) bool {
	return slices.ContainsFunc(pl.device.transfer.actions, func(a *action) bool { return a.place == pl })
}

func (p *EDF) modelAdded(spec *Model) {
	m := p.model(spec.ID)
	delete(p.gone, spec.ID)
	m.Model, m.known, m.removed = *spec, true, false
	m.refresh()
}

func (p *EDF) modelRemoved(id ModelID) {
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
func (p *EDF) modelReplaced(oldID, newID ModelID) {
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

func (p *EDF) profileChanged(f *Profile) {
	m := p.model(f.Model)
	m.timing(f.DeviceKind).seed(f)
	m.refresh()
}
