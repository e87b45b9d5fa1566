package controller

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// copiesOf is a model's part on each of its workers: those that shall hold it,
// and those that do all the same.
func copiesOf(s *fsm.State, m *logpb.Model) []*controlpb.Copy {
	copies := map[string]*controlpb.Copy{}
	for _, w := range s.Targets(m) {
		copies[w.Name] = &controlpb.Copy{Worker: w.Name, Status: logpb.HoldingStatus_HOLDING_STATUS_PENDING}
	}
	for _, h := range s.Holdings(m.Id) {
		copies[h.Worker] = &controlpb.Copy{Worker: h.Worker, Status: h.Status, Error: h.Error, LoadNs: h.LoadNs}
	}
	out := make([]*controlpb.Copy, 0, len(copies))
	for _, name := range slices.Sorted(maps.Keys(copies)) {
		out = append(out, copies[name])
	}
	return out
}

// count is how many copies have a status.
func count(copies []*controlpb.Copy, status logpb.HoldingStatus) (n uint32) {
	for _, c := range copies {
		if c.Status == status {
			n++
		}
	}
	return n
}

// modelStatus is all that is known of a model.
func modelStatus(s *fsm.State, m *logpb.Model, live liveWorkers) *controlpb.ModelStatus {
	o := obstacleTo(s, m, live)
	copies := copiesOf(s, m)
	for _, c := range copies {
		if why := idle(s.Worker(c.Worker), live); why != "" && c.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED {
			c.Error = "the worker " + why
		}
	}
	status := &controlpb.ModelStatus{
		Model: m, Copies: copies, Profiles: profilesOf(s, m), Code: string(o.code), Reason: o.reason, Advice: o.advice,
		ProfileRows: profileRows(m),
	}
	for _, h := range s.Holdings(m.Id) {
		for _, check := range s.Worker(h.Worker).GetChecks() {
			status.Checks = append(status.Checks, &controlpb.DeviceRatio{Worker: h.Worker, Check: check})
		}
	}
	if old := s.Model(m.Replaces); m.Replaces != 0 {
		status.Replacement = fmt.Sprintf("it is to take the place of version %s, which serves until it can", old.GetVersion())
	}
	if m.Pinned > 0 && live != nil {
		status.PinnedNow = proto.Uint32(live.devicesWith(m.Id))
	}
	return status
}

// settled says whether every worker that shall hold the model has loaded it or
// failed to. With no worker at all a load waits for one.
func settled(s *fsm.State, m *logpb.Model) bool {
	if s.Missing(m) > 0 {
		return false
	}
	targets := s.Targets(m)
	for _, w := range targets {
		if h := s.Holding(m.Id, w.Name); h == nil || h.Status == logpb.HoldingStatus_HOLDING_STATUS_PENDING {
			return false
		}
	}
	return len(targets) > 0 || len(s.Holdings(m.Id)) > 0 || readyWorkers(s) > 0
}

func readyWorkers(s *fsm.State) (n int) {
	for _, w := range s.Workers() {
		if w.Status == logpb.WorkerStatus_WORKER_STATUS_READY {
			n++
		}
	}
	return n
}

// cluster is the cluster's record as this replica has it.
func (c *Controller) cluster() (record *logpb.Cluster) {
	c.options.Replica.Read(func(s *fsm.State) { record = s.Cluster() })
	return record
}
