package fsm

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// errForeign says that a snapshot is another cluster's.
var errForeign = errors.New("the snapshot is of another cluster")

// What may have been done after the last state that is known, in a world that is lost. Workers may remember epochs and
// hold models from there: a new epoch must be above them, and a model's id must not be given a second time, or a
// worker would be believed to hold the wrong model.
const (
	lostEpochs   = 16
	lostModelIDs = 1 << 20
)

// restoreState puts the state that a snapshot leads to in the place of this one. What it answers must not depend on
// the release that answers, so it does not repeat the errors of decoders; who proposes it has looked before.
func (s *State) restoreState(c *logpb.RestoreState) *logpb.Result {
	body, err := readSnapshot(bytes.NewReader(c.GetSnapshot()))
	if err != nil {
		return refuse(logpb.Reason_REASON_INVALID, "the snapshot is damaged, or is none")
	}
	header, err := decodeHeader(body)
	if err != nil {
		return refuse(logpb.Reason_REASON_INVALID, "the snapshot has no header")
	}
	// Every member knows the cluster's version; not each may know a later one.
	if version := header.GetClusterVersion(); version > s.version() {
		return refuse(logpb.Reason_REASON_VERSION,
			"the snapshot is of cluster version %d, this cluster is at %d: update all controllers, and wait until the version is raised",
			version, s.version())
	}
	from, err := decode(body, s.release)
	if err != nil {
		return refuse(logpb.Reason_REASON_INVALID, "the snapshot's content is not sound")
	}
	next, err := from.succeed(s, c.GetReplaceCluster())
	if err != nil {
		return refuse(logpb.Reason_REASON_CONFLICT, "%v", err)
	}
	*s = *next
	s.changed = All
	return &logpb.Result{}
}

// succeed is the state that a cluster shall have after a snapshot, s, is restored while it is in the state current.
// What operators decided comes from the snapshot: models, settings, phase. What is true of the world whatever they
// decide comes from the present state: which workers there are, what they hold and have measured, the log index. The
// epoch rises, so that workers refuse what leaders did before; ids of models go on; the time does not go back.
//
// A request that the snapshot remembers keeps its result, since its effect is restored with it. One that took effect
// only after the snapshot has lost it: it is refused as too old from now on, so that its retry gets neither an answer
// from a world that is gone nor a second effect.
//
// A snapshot of another cluster is refused with errForeign, unless it shall replace this one: for a cluster
// that was lost with all its replicas, whose snapshot is restored into a newly founded one. The cluster then has the
// snapshot's id, because running workers accept no other: those of the lost cluster go on, and those that have heard
// of the new one have to be started again. For the same reason the lost cluster must be gone for good: this one takes
// its workers from it. What was done there after the snapshot is unknown, so epoch and ids leap; nothing is believed
// to be held, the workers will say; and every request made before the newest time known is refused as too old.
//
// Neither state is modified.
func (s *State) succeed(current *State, replace bool) (*State, error) {
	same := current.cluster.GetId() == s.cluster.GetId()
	switch {
	case s.cluster.GetId() == "":
		return nil, fmt.Errorf("the snapshot at index %d is of a cluster that was not bootstrapped yet: it holds nothing to restore", s.index)
	case !same && !replace:
		return nil, fmt.Errorf("%w, %q, and this is %q: only if that one is gone for good may this one replace it, and take its workers over",
			errForeign, s.cluster.GetId(), current.cluster.GetId())
	}
	n := newState(current.release)
	n.index = current.index
	n.now = max(s.now, current.now)
	n.lastModelID = max(s.lastModelID, current.lastModelID)
	n.cluster = proto.CloneOf(s.cluster)
	n.cluster.Version = max(s.version(), current.version())
	n.cluster.Epoch = max(s.cluster.GetEpoch(), current.cluster.GetEpoch()) + 1
	n.requests = s.requests.succeed(&current.requests)
	for _, p := range s.profiles.values() {
		n.storeProfile(p)
	}
	if same {
		n.restoreModels(s, current)
		n.keepPresent(current)
	} else {
		n.restoreModels(s, newState(current.release))
		for _, w := range s.workers.values() {
			n.storeWorker(w)
		}
		n.cluster.Epoch += lostEpochs
		n.lastModelID += lostModelIDs
		n.requests.forgotten = max(n.requests.forgotten, n.now)
	}
	n.changed = 0
	return n, nil
}

// restoreModels takes the models of a snapshot, with what current has found out about them since: a first copy that
// was loaded.
func (s *State) restoreModels(snapshot, current *State) {
	for _, m := range snapshot.models.values() {
		if known := current.Model(m.GetId()); m.GetInfo() == nil && known.GetInfo() != nil {
			m = proto.CloneOf(m)
			m.Info, m.Engine = known.GetInfo(), known.GetEngine()
		}
		s.storeModel(m)
	}
}

// keepPresent takes what is true of the world from the present state.
func (s *State) keepPresent(current *State) {
	for _, p := range current.profiles.values() {
		s.storeProfile(p)
	}
	for _, w := range current.workers.values() {
		s.storeWorker(w)
	}
	for _, id := range s.models.keys {
		for _, h := range current.holdings[id] {
			s.storeHolding(h)
		}
	}
}

// succeed is the table after a restore: of a snapshot with the table r, while the present one is current.
func (r *requests) succeed(current *requests) requests {
	n := newRequests()
	n.forgotten = max(r.forgotten, current.forgotten)
	for _, row := range r.rows {
		n.put(row)
	}
	for _, row := range current.rows {
		if n.first(row.GetRequestId()) != nil {
			continue
		}
		result := refuse(logpb.Reason_REASON_TOO_OLD,
			"request %q was answered before the cluster was restored from an older snapshot, so its effect may be gone: look, then ask anew",
			row.GetRequestId())
		result.Index = row.GetResult().GetIndex()
		n.put(&logpb.Remembered{RequestId: row.GetRequestId(), RequestedUnixNs: row.GetRequestedUnixNs(), Result: result})
	}
	n.trim()
	return n
}

// recovered is the state for a cluster that has lost its quorum, and with it maybe what this replica did not hear of.
// Before the cluster was bootstrapped there is nothing that could be mistaken.
func (s *State) recovered() *logpb.State {
	state := s.canonical()
	if s.cluster.GetId() != "" {
		state.Cluster = proto.CloneOf(s.cluster)
		state.Cluster.Epoch += lostEpochs
		state.LastModelId += lostModelIDs
	}
	return state
}
