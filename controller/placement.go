package controller

import (
	"cmp"
	"slices"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// fullShare of its host memory used makes a worker the last choice.
const fullShare = 0.9

// room is a worker as the placement of copies sees it.
type room struct {
	worker *logpb.Worker
	// used are the bytes of host memory of what it holds or is to hold, and
	// copies how many models that are.
	used   uint64
	copies int
	// queued are the actions that wait or run there.
	queued int
	// begun are models that it loads, or has, without having been chosen: when it
	// began there was nobody to choose from.
	begun map[uint64]bool
}

// rooms are the workers that a leader can use now.
type rooms map[string]*room

// newRooms counts what workers hold by the state. usable says whether a worker
// can be given models now, and how many actions it has in hand.
func newRooms(s *fsm.State, usable func(name string) (queued int, ok bool)) rooms {
	all := rooms{}
	for _, w := range s.Workers() {
		if queued, ok := usable(w.Name); ok {
			all[w.Name] = &room{worker: w, queued: queued}
		}
	}
	for _, m := range s.Models() {
		for _, h := range s.Holdings(m.Id) {
			if r := all[h.Worker]; r != nil && h.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED {
				r.take(m)
			}
		}
	}
	return all
}

func (r *room) take(m *logpb.Model) {
	r.used += m.Info.GetHostBytes()
	r.copies++
}

// place chooses workers for the copies of a model that are missing, and counts
// them as theirs. Those come first that have begun to load it, then those that
// have fewest copies for their speed and devices, then those with the least in
// hand, then those with the most memory left. Workers that would be nearly full come after all others, and those in
// which it does not seem to fit last: they may know better, and if not, their
// refusal is what the operator has to see. There may be fewer than are missing.
func (all rooms) place(s *fsm.State, m *logpb.Model) (chosen []*logpb.Worker) {
	var candidates []*room
	for _, w := range s.Able(m) {
		if r := all[w.Name]; r != nil && s.Holding(m.Id, w.Name) == nil {
			candidates = append(candidates, r)
		}
	}
	slices.SortStableFunc(candidates, func(a, b *room) int {
		return cmp.Or(
			cmp.Compare(a.beginning(m), b.beginning(m)),
			cmp.Compare(a.tightness(m), b.tightness(m)),
			cmp.Compare(a.load(), b.load()),
			cmp.Compare(a.queued, b.queued),
			cmp.Compare(a.share(m), b.share(m)))
	})
	for _, r := range candidates[:min(s.Missing(m), len(candidates))] {
		r.take(m)
		chosen = append(chosen, r.worker)
	}
	return chosen
}

// beginning is 0 when the worker has begun to load the model, else 1.
func (r *room) beginning(m *logpb.Model) int {
	if r.begun[m.Id] {
		return 0
	}
	return 1
}

// fits says whether the model's host memory and weights have room. Of a model
// that nobody has loaded yet nothing is known.
func (r *room) fits(m *logpb.Model) bool {
	if m.Info == nil {
		return true
	}
	return r.share(m) <= 1 && weightsFit(r.worker, m)
}

// weightsFit says whether the model's weights fit on a device of the worker that
// its engine may use.
func weightsFit(w *logpb.Worker, m *logpb.Model) bool {
	return slices.ContainsFunc(w.Devices, func(d *logpb.Device) bool {
		return runsOn(d, m) && m.Info.GetWeightsBytes() <= uint64(d.Pages)*d.PageBytes
	})
}

// runsOn says whether the model's engine may use a device. One that names no
// engines may be used by all.
func runsOn(d *logpb.Device, m *logpb.Model) bool {
	return len(d.Engines) == 0 || slices.Contains(d.Engines, m.Info.GetEngine())
}

// share is how much of the host memory would be used with the model; 0: there is
// no bound.
func (r *room) share(m *logpb.Model) float64 {
	if r.worker.HostMemoryBytes == 0 {
		return 0
	}
	return float64(r.used+m.Info.GetHostBytes()) / float64(r.worker.HostMemoryBytes)
}

// tightness is 2 when the model does not seem to fit, 1 when nothing else would.
func (r *room) tightness(m *logpb.Model) int {
	switch {
	case !r.fits(m):
		return 2
	case r.share(m) > fullShare:
		return 1
	}
	return 0
}

// load is the number of copies for what the worker can do.
func (r *room) load() float64 {
	return float64(r.copies+1) / (r.worker.Speed * float64(max(1, len(r.worker.Devices))))
}
