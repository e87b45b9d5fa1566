package fsm

import (
	"cmp"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// putDeviceChecks stores one check for each device. Those of incarnations that are gone are skipped.
func (s *State) putDeviceChecks(updates []*logpb.DeviceCheckUpdate) *logpb.Result {
	for i, u := range updates {
		if ratio := u.GetCheck().GetRatio(); !(ratio > 0) || math.IsInf(ratio, 0) || u.GetCheck().GetRuns() == 0 {
			return refuse(logpb.Reason_REASON_INVALID, "check %d: the ratio %v of %d runs says nothing", i, ratio, u.GetCheck().GetRuns())
		}
	}
	for _, u := range updates {
		old, refusal := s.registered(u.GetWorker(), u.GetIncarnation())
		if refusal != nil {
			continue
		}
		w := proto.CloneOf(old)
		i, found := slices.BinarySearchFunc(w.Checks, u.GetCheck().GetDevice(), func(c *logpb.DeviceCheck, device uint32) int {
			return cmp.Compare(c.GetDevice(), device)
		})
		if !found {
			w.Checks = slices.Insert(w.Checks, i, nil)
		}
		w.Checks[i] = proto.CloneOf(u.GetCheck())
		s.storeWorker(w)
	}
	return &logpb.Result{}
}
