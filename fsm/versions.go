package fsm

import (
	"errors"
	"fmt"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Version is the newest command schema that this code applies. A cluster starts at 1, and goes up when its leader
// has seen that every member can follow (RaiseVersion): so a mixed cluster is safe.
const Version = 5

// ErrOutdated says that this replica can't follow its cluster any more, because that has gone to a newer schema.
var ErrOutdated = errors.New("this replica is too old for its cluster")

// NeededVersion is the schema that a command needs, which a proposer has to write into it. It is 0 for a kind that
// this release doesn't know. Apply looks at the cluster's version where an older release would make something else of
// what is in a command of a known kind.
func NeededVersion(cmd *logpb.Command) uint32 { return max(kindVersion(cmd), contentVersion(cmd)) }

func kindVersion(cmd *logpb.Command) uint32 {
	switch cmd.GetBody().(type) {
	case *logpb.Command_InitCluster, *logpb.Command_RegisterWorker, *logpb.Command_SetWorkerStatus, *logpb.Command_RemoveWorker,
		*logpb.Command_LoadModel, *logpb.Command_UnloadModel, *logpb.Command_UpdateHoldings, *logpb.Command_PutProfiles,
		*logpb.Command_SetPhase, *logpb.Command_SetSettings, *logpb.Command_TakeDigest, *logpb.Command_RaiseEpoch,
		*logpb.Command_RaiseVersion, *logpb.Command_RestoreState:
		return 1
	case *logpb.Command_CheckDigest:
		return 2
	case *logpb.Command_SetModelBlame:
		return 3
	case *logpb.Command_ReopenStartup, *logpb.Command_PutDeviceChecks, *logpb.Command_ReplaceModel:
		return 4
	case *logpb.Command_PinModel:
		return 5
	}
	return 0
}

// contentVersion is the schema that what is in a command of a known kind needs: fields that an older release would drop,
// or would keep without doing as they say.
func contentVersion(cmd *logpb.Command) uint32 {
	switch body := cmd.GetBody().(type) {
	case *logpb.Command_SetWorkerStatus:
		if body.SetWorkerStatus.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_EVICTED || body.SetWorkerStatus.GetDrainUntilUnixNs() != 0 {
			return 3
		}
	case *logpb.Command_UpdateHoldings:
		for _, u := range body.UpdateHoldings.GetUpdates() {
			if u.GetHolding().GetFault() != logpb.HoldingFault_HOLDING_FAULT_NONE {
				return 3
			}
		}
	case *logpb.Command_UnloadModel:
		if body.UnloadModel.GetModelId() != 0 {
			return 4
		}
	case *logpb.Command_LoadModel:
		if len(body.LoadModel.GetLargest()) > 0 || body.LoadModel.GetReplace() {
			return 4
		}
	case *logpb.Command_PutProfiles:
		for _, p := range body.PutProfiles.GetProfiles() {
			if p.GetKey().GetShapes() != "" || p.GetWorker() != "" || p.GetDevice() != 0 || p.GetMeasuredUnixNs() != 0 || p.GetDriftedUnixNs() != 0 {
				return 4
			}
		}
	case *logpb.Command_SetSettings:
		if body.SetSettings.GetSettings().GetPolicy() != "" {
			return policyVersion
		}
	}
	return 0
}

// statedVersion is the schema that a command says it needs. The first commands did not say.
func statedVersion(cmd *logpb.Command) uint32 { return max(cmd.GetVersion(), 1) }

// knows says whether the release that the state acts as has the kind of command.
func (s *State) knows(cmd *logpb.Command) bool {
	needed := kindVersion(cmd)
	return needed > 0 && needed <= s.release
}

// version is the schema that commands may need. Until the cluster has one, it is the first.
func (s *State) version() uint32 { return max(s.cluster.GetVersion(), 1) }

// raiseVersion fails on a replica that can't follow: it must stop, since the others go on.
func (s *State) raiseVersion(to uint32) (*logpb.Result, error) {
	if to <= s.version() {
		return refuse(logpb.Reason_REASON_INVALID, "the cluster is at version %d and only rises: it can't go to %d", s.version(), to), nil
	}
	if to > s.release {
		return nil, fmt.Errorf("%w: it goes to version %d, this release applies up to %d: update this replica, then start it again",
			ErrOutdated, to, s.release)
	}
	s.changeCluster(func(c *logpb.Cluster) { c.Version = to })
	return &logpb.Result{}, nil
}
