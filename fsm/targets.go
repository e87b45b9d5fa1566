package fsm

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Able are the workers that could hold the model, by name: those that are ready, have an engine for it and the labels
// that it asks for. A model that workers died with, or that another version has replaced, has none.
func (s *State) Able(model *logpb.Model) []*logpb.Worker {
	if model.GetBlame() != "" || model.GetRetiring() {
		return nil
	}
	var able []*logpb.Worker
	for _, name := range s.workers.keys {
		w := s.workers.rows[name]
		if w.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_READY &&
			HasEngine(w, model.GetEngine()) && HasLabels(w, model.GetConstraints()) {
			able = append(able, w)
		}
	}
	return able
}

// Targets are the workers that shall hold the model, by name. All that are able to, unless it wants fewer copies than
// that: then those that have it or have been chosen to (a holding that is pending), and no more of them than are wanted,
// those that have it first. Whom to choose is the leader's business; Missing says how many.
func (s *State) Targets(model *logpb.Model) []*logpb.Worker {
	able := s.Able(model)
	if copies := int(model.GetCopies()); copies > 0 && copies < len(able) {
		return s.chosen(model.GetId(), able, copies)
	}
	return able
}

// Missing is how many more workers have to be chosen to hold the model: as many copies as it wants, or as there are
// workers that are able to and have not failed to load it.
func (s *State) Missing(model *logpb.Model) int {
	able, copies := s.Able(model), int(model.GetCopies())
	if copies == 0 || copies >= len(able) {
		return 0
	}
	possible := 0
	for _, w := range able {
		if !failedToLoad(s.Holding(model.GetId(), w.GetName())) {
			possible++
		}
	}
	return min(copies, possible) - len(s.chosen(model.GetId(), able, copies))
}

// chosen are at most so many of the workers that have the model or are to load it. When there are more, an order that
// the model's id and their names decide (rendezvous hashing) spreads what is dropped.
func (s *State) chosen(modelID uint64, able []*logpb.Worker, copies int) []*logpb.Worker {
	type candidate struct {
		worker *logpb.Worker
		loaded int // 0: it has it, 1: it is to load it
		weight uint64
	}
	var candidates []candidate
	for _, w := range able {
		h := s.Holding(modelID, w.GetName())
		if h == nil || failedToLoad(h) {
			continue
		}
		c := candidate{worker: w, weight: rendezvous(modelID, w.GetName())}
		if h.GetStatus() == logpb.HoldingStatus_HOLDING_STATUS_PENDING {
			c.loaded = 1
		}
		candidates = append(candidates, c)
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.loaded, b.loaded), cmp.Compare(b.weight, a.weight), cmp.Compare(a.worker.GetName(), b.worker.GetName()))
	})
	var chosen []*logpb.Worker
	for _, c := range candidates[:min(copies, len(candidates))] {
		chosen = append(chosen, c.worker)
	}
	slices.SortFunc(chosen, func(a, b *logpb.Worker) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return chosen
}

func failedToLoad(h *logpb.Holding) bool {
	return h.GetStatus() == logpb.HoldingStatus_HOLDING_STATUS_FAILED
}

// Pending counts the loads that are still to be answered: the pairs of a model and one of its targets that has neither
// loaded it nor failed to, and the targets that are still to be chosen. A model that no worker is able to hold has none.
func (s *State) Pending() int {
	pending := 0
	for _, id := range s.models.keys {
		model := s.models.rows[id]
		pending += s.Missing(model)
		for _, w := range s.Targets(model) {
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
