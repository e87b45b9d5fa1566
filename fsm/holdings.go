package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// updateHoldings skips what is about models or incarnations that are gone. A worker's bad report fails only its own
// holding: one entry carries those of many workers.
func (s *State) updateHoldings(updates []*logpb.HoldingUpdate) *logpb.Result {
	for i, u := range updates {
		if u.GetHolding() == nil {
			return refuse(logpb.Reason_REASON_INVALID, "update %d has no holding", i)
		}
		if _, known := logpb.HoldingStatus_name[int32(u.GetHolding().GetStatus())]; !known {
			return refuse(logpb.Reason_REASON_INVALID, "update %d: no holding has the status %d", i, u.GetHolding().GetStatus())
		}
	}
	for _, u := range updates {
		model, worker := s.Model(u.GetHolding().GetModelId()), s.Worker(u.GetHolding().GetWorker())
		if model == nil || worker == nil || worker.GetIncarnation() != u.GetHolding().GetIncarnation() {
			continue
		}
		s.updateHolding(model, u)
	}
	return &logpb.Result{}
}

func (s *State) updateHolding(model *logpb.Model, u *logpb.HoldingUpdate) {
	if u.GetRemove() {
		s.dropHolding(model.GetId(), u.GetHolding().GetWorker())
		return
	}
	h := proto.CloneOf(u.GetHolding())
	if h.GetStatus() == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
		if err := checkLoaded(model, u.GetInfo()); err != nil {
			h.Status = logpb.HoldingStatus_HOLDING_STATUS_FAILED
			h.Error = err.Error()
			if s.version() >= 3 {
				h.Fault = logpb.HoldingFault_HOLDING_FAULT_DIGEST
				if u.GetInfo().GetDigest() == "" {
					h.Fault = logpb.HoldingFault_HOLDING_FAULT_OTHER
				}
			}
		} else if model.GetInfo() == nil {
			m := proto.CloneOf(model)
			m.Info = proto.CloneOf(u.GetInfo())
			if m.GetEngine() == "" {
				m.Engine = m.GetInfo().GetEngine()
			}
			s.storeModel(m)
		}
	}
	s.storeHolding(h)
}

// checkLoaded says whether what a worker found out about a model can be true, and is what the first worker found out.
// Its texts become part of the state: other words need a new cluster version.
func checkLoaded(model *logpb.Model, info *logpb.ModelInfo) error {
	if info.GetDigest() == "" {
		return fmt.Errorf("the worker loaded %q and did not report its digest: update the worker", model.GetSource())
	}
	rows := info.GetProfileRows()
	for i := range rows {
		if rows[i] == 0 || i > 0 && rows[i] <= rows[i-1] {
			return fmt.Errorf("the worker loaded %q and reported numbers of rows that don't ascend, with %d at place %d: update the worker",
				model.GetSource(), rows[i], i)
		}
	}
	if first := model.GetInfo(); first != nil && first.GetDigest() != info.GetDigest() {
		return fmt.Errorf("%q has the digest %s on this worker and %s where it was loaded first: make the files equal, or load it as another version",
			model.GetSource(), info.GetDigest(), first.GetDigest())
	}
	return nil
}
