package fsm

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Targets are the workers that shall hold the model, by name: those that are ready, have an engine for it and the
// labels that it asks for. If it wants fewer copies than that, they are chosen so that little moves: first who has it
// loaded, then who is loading it, then the others in an order that the model's id and their names decide (rendezvous
// hashing), and at last those that failed to load it.
func (s *State) Targets(model *logpb.Model) []*logpb.Worker {
	var able []*logpb.Worker
	for _, name := range s.workers.keys {
		w := s.workers.rows[name]
		if w.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_READY &&
			hasEngine(w, model.GetEngine()) && hasLabels(w, model.GetConstraints()) {
			able = append(able, w)
		}
	}
	copies := int(model.GetCopies())
	if copies == 0 || copies >= len(able) {
		return able
	}
	return s.closest(model.GetId(), able, copies)
}

func (s *State) closest(modelID uint64, able []*logpb.Worker, copies int) []*logpb.Worker {
	type candidate struct {
		worker *logpb.Worker
		tier   int
		weight uint64
	}
	candidates := make([]candidate, len(able))
	for i, w := range able {
		candidates[i] = candidate{w, tier(s.Holding(modelID, w.GetName())), rendezvous(modelID, w.GetName())}
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.tier, b.tier), cmp.Compare(b.weight, a.weight), cmp.Compare(a.worker.GetName(), b.worker.GetName()))
	})
	chosen := make([]*logpb.Worker, copies)
	for i := range chosen {
		chosen[i] = candidates[i].worker
	}
	slices.SortFunc(chosen, func(a, b *logpb.Worker) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return chosen
}

func tier(h *logpb.Holding) int {
	if h == nil {
		return 2
	}
	switch h.GetStatus() {
	case logpb.HoldingStatus_HOLDING_STATUS_LOADED:
		return 0
	case logpb.HoldingStatus_HOLDING_STATUS_PENDING:
		return 1
	default:
		return 3
	}
}

// Pending counts the loads that are still to be answered: the pairs of a model and one of its targets that has neither
// loaded it nor failed to. A model without targets has none.
func (s *State) Pending() int {
	pending := 0
	for _, id := range s.models.keys {
		for _, w := range s.Targets(s.models.rows[id]) {
			h := s.Holding(id, w.GetName())
			if h == nil || h.GetStatus() == logpb.HoldingStatus_HOLDING_STATUS_PENDING {
				pending++
			}
		}
	}
	return pending
}

// rendezvous is the weight of a worker for a model. FNV alone leaves the names of few bytes too alike, so its bits are
// mixed once more, as MurmurHash3 does at its end.
func rendezvous(modelID uint64, worker string) uint64 {
	hash := fnv.New64a()
	hash.Write([]byte(worker))
	x := hash.Sum64() ^ modelID*0x9e3779b97f4a7c15
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}
