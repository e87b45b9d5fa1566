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
// replica must stop; the state is then as it was before, but that requests may have been forgotten by their age. The
// result must not be modified.
func (s *State) Apply(index uint64, cmd *logpb.Command) (*logpb.Result, error) {
	result, toDigest, err := s.apply(index, cmd)
	if toDigest != nil {
		result.Digest = digestOf(toDigest)
	}
	return result, err
}

// apply leaves the computing of a digest, which takes time, to the caller: of toDigest, unless that is nil.
func (s *State) apply(index uint64, cmd *logpb.Command) (result *logpb.Result, toDigest *logpb.State, err error) {
	if index <= s.index {
		return nil, nil, fmt.Errorf("%w: %d after %d", ErrIndexBack, index, s.index)
	}
	// A command that needs a newer cluster version is refused before its body is looked at: replicas that know the
	// body must come to the same result as those that don't.
	newer := statedVersion(cmd) > s.version()
	if !newer && !s.knows(cmd) {
		return nil, nil, fmt.Errorf("%w at index %d, request %q: it was written by a newer release; update this replica",
			ErrUnknownCommand, index, cmd.GetRequestId())
	}
	indexBefore, nowBefore := s.index, s.now
	s.index = index
	s.now = max(s.now, cmd.GetProposedUnixNs())
	s.requests.age(cmd.GetProposedUnixNs())

	result, done := s.screen(cmd)
	if done {
		if result.GetIndex() == 0 {
			result.Index = index
		}
		return result, nil, nil
	}
	if newer {
		result = refuse(logpb.Reason_REASON_VERSION, "the command needs cluster version %d, the cluster is at %d: update all controllers first",
			cmd.GetVersion(), s.version())
	} else if result, err = s.execute(cmd); err != nil {
		s.index, s.now = indexBefore, nowBefore
		return nil, nil, err
	}
	result.Index = index
	if newer || !aboutDigest(cmd) {
		s.requests.remember(cmd, result)
	}
	if _, take := cmd.GetBody().(*logpb.Command_TakeDigest); take && result.GetReason() == logpb.Reason_REASON_NONE {
		toDigest = s.canonical()
	}
	return result, toDigest, nil
}

// aboutDigest says whether the command is about the state as a whole. Those are not remembered: to do one again does
// no harm, and they shall leave the state as it is.
func aboutDigest(cmd *logpb.Command) bool {
	switch cmd.GetBody().(type) {
	case *logpb.Command_TakeDigest, *logpb.Command_CheckDigest:
		return true
	}
	return false
}

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

// execute does what a command of a known kind asks for. Only a command that this replica can't follow is an error.
func (s *State) execute(cmd *logpb.Command) (*logpb.Result, error) {
	if needed := kindVersion(cmd); statedVersion(cmd) < needed {
		return refuse(logpb.Reason_REASON_INVALID, "the command says that it needs version %d, its kind needs %d: the proposer has a fault",
			statedVersion(cmd), needed), nil
	}
	if raise, ok := cmd.GetBody().(*logpb.Command_RaiseVersion); ok && s.cluster.GetId() != "" {
		return s.raiseVersion(raise.RaiseVersion.GetTo())
	}
	return s.perform(cmd), nil
}

func (s *State) perform(cmd *logpb.Command) *logpb.Result {
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
	case *logpb.Command_RestoreState:
		return s.restoreState(body.RestoreState)
	case *logpb.Command_SetModelBlame:
		return s.setModelBlame(body.SetModelBlame)
	case *logpb.Command_PinModel:
		return s.pinModel(body.PinModel)
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
		return &logpb.Result{} // apply adds the digest
	case *logpb.Command_CheckDigest:
		return s.checkDigest(body.CheckDigest)
	case *logpb.Command_ReopenStartup:
		return s.reopenStartup(body.ReopenStartup.GetClose())
	case *logpb.Command_PutDeviceChecks:
		return s.putDeviceChecks(body.PutDeviceChecks.GetUpdates())
	case *logpb.Command_ReplaceModel:
		return s.replaceModel(body.ReplaceModel)
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
