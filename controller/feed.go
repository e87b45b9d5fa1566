package controller

import (
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/scheduler"
)

// firstContact bounds how long a new leader waits for the registered workers
// before it lets the scheduler begin. Requests wait meanwhile: a worker that
// has not been asked yet is no reason to refuse them.
const firstContact = time.Second

// feed tells the scheduler what it may use: it compares what the scheduler has
// been told with what is so, and sends the difference.
type feed struct {
	k *coordinator
	// serving is set by the startup.
	serving, started bool
	models           map[uint64]*logpb.Model
	profiles         map[scheduler.ModelID]map[string]*logpb.Profile
}

func newFeed(k *coordinator) feed {
	return feed{k: k, models: map[uint64]*logpb.Model{}, profiles: map[scheduler.ModelID]map[string]*logpb.Profile{}}
}

func (f *feed) step(s *fsm.State) {
	if !f.serving {
		return
	}
	var events []scheduler.Event
	events = f.modelEvents(s, events)
	events = f.heldEvents(s, events)
	d := f.k.term.dispatcher
	if len(events) > 0 {
		d.mailbox.post(func() { d.events = append(d.events, events...) })
	}
	f.workersUp(s)
	if !f.started && f.contacted(s) {
		f.started = true
		d.mailbox.post(d.start)
		f.k.log.Info("serving", "after", time.Since(f.k.began), "policy", f.k.term.policy.Load().used)
	}
}

// contacted says whether every registered worker is up with its models, or
// known to be away.
func (f *feed) contacted(s *fsm.State) bool {
	if time.Since(f.k.began) > firstContact {
		return true
	}
	if s.Pending() > 0 {
		return false
	}
	for _, record := range s.Workers() {
		w := f.k.connections[record.Name]
		if record.Status == logpb.WorkerStatus_WORKER_STATUS_READY && (w == nil || !w.up && (w.session != nil || !w.answered)) {
			return false
		}
	}
	return true
}

// modelEvents are about models that came, went or were pinned, and profiles that
// changed.
// Records are never modified, so an equal pointer is an equal record.
func (f *feed) modelEvents(s *fsm.State, events []scheduler.Event) []scheduler.Event {
	current := map[uint64]*logpb.Model{}
	for _, m := range s.Models() {
		if m.Info == nil {
			continue
		}
		current[m.Id] = m
		known := f.models[m.Id]
		f.models[m.Id] = m
		if known == nil || known.Pinned != m.Pinned {
			events = append(events, scheduler.ModelAdded{Model: &scheduler.Model{
				ID: scheduler.ModelID(m.Id), MaxRows: maxRows(m), Batched: m.Info.Signature.GetBatched(), WeightsBytes: int64(m.Info.WeightsBytes),
				Pinned: int(m.Pinned),
			}})
		}
		if known.GetBlame() != m.Blame {
			events = append(events, scheduler.ModelBlamed{Model: scheduler.ModelID(m.Id), Blamed: m.Blame != ""})
		}
		events = f.profileEvents(s, m, events)
	}
	for id := range f.models {
		if current[id] == nil {
			delete(f.models, id)
			delete(f.profiles, scheduler.ModelID(id))
			events = append(events, scheduler.ModelRemoved{Model: scheduler.ModelID(id)})
		}
	}
	return events
}

func (f *feed) profileEvents(s *fsm.State, m *logpb.Model, events []scheduler.Event) []scheduler.Event {
	id := scheduler.ModelID(m.Id)
	for _, known := range profilesOf(s, m) {
		p := profileFor(s, m, known.Key.DeviceKind)
		if f.profiles[id][p.Key.DeviceKind] == p {
			continue
		}
		if f.profiles[id] == nil {
			f.profiles[id] = map[string]*logpb.Profile{}
		}
		f.profiles[id][p.Key.DeviceKind] = p
		events = append(events, scheduler.ProfileChanged{Profile: schedulerProfile(id, p)})
	}
	return events
}

// schedulerProfile takes the 99th percentiles: a promise wants the slow case.
func schedulerProfile(id scheduler.ModelID, p *logpb.Profile) *scheduler.Profile {
	out := &scheduler.Profile{Model: id, DeviceKind: p.Key.DeviceKind, WeightsLoad: time.Duration(p.WeightsLoadP99Ns)}
	for _, e := range p.Execution {
		out.Execution = append(out.Execution, scheduler.RowsTime{Rows: int(e.Rows), Time: time.Duration(e.P99Ns)})
	}
	return out
}

// heldEvents are about workers that are up and now hold other models.
func (f *feed) heldEvents(s *fsm.State, events []scheduler.Event) []scheduler.Event {
	for name, w := range f.k.connections {
		if !w.up {
			continue
		}
		if models := f.usable(s, w); !slices.Equal(models, w.upModels) {
			w.upModels = models
			events = append(events, scheduler.Held{Worker: name, Models: modelIDs(models)})
		}
	}
	return events
}

// usable are the models that the scheduler may use at a worker, in order of id:
// all that it holds when it takes work, and while it drains those that nobody else
// serves yet.
func (f *feed) usable(s *fsm.State, w *connection) []uint64 {
	switch {
	case w.left == w.incarnation() || w.health.quarantined(time.Now()):
		return nil
	case s.Worker(w.name).GetStatus() == logpb.WorkerStatus_WORKER_STATUS_READY:
		return f.k.holds(w)
	case s.Worker(w.name).GetStatus() == logpb.WorkerStatus_WORKER_STATUS_DRAINING:
		return f.k.toHandOver(s, w)
	}
	return nil
}

func modelIDs(ids []uint64) []scheduler.ModelID {
	out := make([]scheduler.ModelID, len(ids))
	for i, id := range ids {
		out[i] = scheduler.ModelID(id)
	}
	return out
}

// workersUp gives the scheduler the workers whose registration is committed
// and that take work, with what is resident on them right now. One that no longer
// takes work stays, without models, until its session ends: what it has in hand
// will be answered.
func (f *feed) workersUp(s *fsm.State) {
	d := f.k.term.dispatcher
	for name, w := range f.k.connections {
		if w.up || !w.registered {
			continue
		}
		models := f.usable(s, w)
		if len(models) == 0 && s.Worker(name).GetStatus() != logpb.WorkerStatus_WORKER_STATUS_READY {
			continue
		}
		w.up, w.upModels = true, models
		record := s.Worker(name)
		session, worker := w.session, &scheduler.Worker{
			Name: name, Speed: record.Speed, Holds: modelIDs(models), Devices: schedulerDevices(record, w.report),
		}
		d.mailbox.post(func() { d.workerUp(session, worker) })
	}
}
