package fsm

import (
	"errors"
	"fmt"
	"time"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Errors of Apply. After any of them this replica must stop: it can't know what the others made of the command.
var (
	ErrUnknownCommand = errors.New("unknown command")
	ErrIndexBack      = errors.New("log index went back")
)

// Apply applies the command at a log index. A refusal is a result, the same on all replicas. An error means that this
// replica must stop; the state is then as it was before. The result must not be modified.
func (s *State) Apply(index uint64, cmd *logpb.Command) (*logpb.Result, error) {
	if index <= s.index {
		return nil, fmt.Errorf("%w: %d after %d", ErrIndexBack, index, s.index)
	}
	// A command that needs a newer cluster version is refused before its body is looked at: replicas that know the
	// body must come to the same result as those that don't.
	newer := cmd.GetVersion() > s.version()
	if cmd.GetBody() == nil && !newer {
		return nil, fmt.Errorf("%w at index %d, request %q: it was written by a newer release; update this replica",
			ErrUnknownCommand, index, cmd.GetRequestId())
	}
	s.index = index
	s.now = max(s.now, cmd.GetProposedUnixNs())
	s.requests.age(cmd.GetProposedUnixNs())

	result, done := s.screen(cmd)
	if done {
		if result.GetIndex() == 0 {
			result.Index = index
		}
		return result, nil
	}
	if newer {
		result = refuse(logpb.Reason_REASON_VERSION, "the command needs cluster version %d, the cluster is at %d: update all controllers first",
			cmd.GetVersion(), s.version())
	} else {
		result = s.execute(cmd)
	}
	result.Index = index
	if _, digest := cmd.GetBody().(*logpb.Command_TakeDigest); !digest || newer {
		s.requests.remember(cmd, result)
	}
	return result, nil
}

// version is the schema that commands may need. Until the cluster has one, it is the first.
func (s *State) version() uint32 { return max(s.cluster.GetVersion(), 1) }

// screen answers what needs no look at the body: a retry with the first result, and a request that can't be told from
// a retry, or could never be, with a refusal that isn't remembered.
func (s *State) screen(cmd *logpb.Command) (result *logpb.Result, done bool) {
	id, requested := cmd.GetRequestId(), cmd.GetRequestedUnixNs()
	if id == "" {
		return refuse(logpb.Reason_REASON_INVALID, "the request id is empty: give each request its own"), true
	}
	if first := s.requests.first(id); first != nil {
		return first, true
	}
	switch {
	case requested <= 0:
		return refuse(logpb.Reason_REASON_INVALID, "request %q does not say when it was made: set its time in unix nanoseconds", id), true
	case requested <= s.requests.forgotten:
		return refuse(logpb.Reason_REASON_TOO_OLD,
			"request %q was made %v before the newest that was forgotten, so whether it took effect is unknown: look, then ask anew (or set the clock)",
			id, time.Duration(s.requests.forgotten-requested)), true
	case requested-requestMaxAhead > s.now:
		return refuse(logpb.Reason_REASON_INVALID, "request %q was made %v in the future: set the clock of the machine that made it",
			id, time.Duration(requested-s.now)), true
	}
	return nil, false
}

func (s *State) execute(cmd *logpb.Command) *logpb.Result {
	if init, ok := cmd.GetBody().(*logpb.Command_InitCluster); ok {
		return s.initCluster(init.InitCluster)
	}
	if s.cluster.GetId() == "" {
		return refuse(logpb.Reason_REASON_INVALID, "the cluster is not bootstrapped yet: wait until it has an id")
	}
	switch body := cmd.GetBody().(type) {
	case *logpb.Command_RegisterWorker:
		return s.registerWorker(body.RegisterWorker.GetWorker())
	case *logpb.Command_SetWorkerStatus:
		return s.setWorkerStatus(body.SetWorkerStatus)
	case *logpb.Command_RemoveWorker:
		return s.removeWorker(body.RemoveWorker)
	case *logpb.Command_LoadModel:
		return s.loadModel(cmd.GetRequestId(), body.LoadModel)
	case *logpb.Command_UnloadModel:
		return s.unloadModel(body.UnloadModel)
	case *logpb.Command_UpdateHoldings:
		return s.updateHoldings(body.UpdateHoldings.GetUpdates())
	case *logpb.Command_PutProfiles:
		return s.putProfiles(body.PutProfiles.GetProfiles())
	case *logpb.Command_SetPhase:
		return s.setPhase(body.SetPhase)
	case *logpb.Command_SetSettings:
		return s.setSettings(body.SetSettings.GetSettings())
	case *logpb.Command_TakeDigest:
		return &logpb.Result{Digest: s.Digest()}
	case *logpb.Command_RaiseEpoch:
		return s.raiseEpoch(body.RaiseEpoch.GetTo())
	default:
		panic(fmt.Sprintf("fsm: no case for a %T, which the protocol has", body))
	}
}

func refuse(reason logpb.Reason, format string, args ...any) *logpb.Result {
	return &logpb.Result{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// refuseInvalid is for checks that return an error.
func refuseInvalid(err error) *logpb.Result {
	return &logpb.Result{Reason: logpb.Reason_REASON_INVALID, Message: err.Error()}
}
