package workerd

import (
	"strings"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

// The log, at level debug, is a witness of fencing: whose action was executed, and whose was refused, in the order in which
// it happened, since each line is written under the lock that decides. An action is witnessed when it begins: one that a
// succeeded leader's session has begun may end in its successor's.

// began implements executor.began.
func (w *Worker) began(j *job) {
	s, ok := j.from.(*session)
	if !ok || !w.log.IsDebug() {
		return
	}
	w.log.Debug("action executed", "kind", kindOf(j.action), "action", j.action.GetId(), "model", j.action.GetModelId(),
		"leader", s.leader.GetName(), "epoch", s.leader.GetEpoch(), "term", s.leader.GetTerm(), "session", s.id)
}

// refusedStale notes that an action of a succeeded leader was answered STALE. The lock is held.
func (w *Worker) refusedStale(j *job) {
	s, ok := j.from.(*session)
	if !ok || !w.log.IsDebug() {
		return
	}
	w.log.Debug("action refused", "code", "stale", "kind", kindOf(j.action), "action", j.action.GetId(), "model", j.action.GetModelId(),
		"leader", s.leader.GetName(), "epoch", s.leader.GetEpoch(), "term", s.leader.GetTerm(), "session", s.id,
		"newest_epoch", w.fence.newest.GetEpoch(), "newest_term", w.fence.newest.GetTerm())
}

// kindOf is the name of an action's body, such as load_weights; none for one that this worker doesn't know.
func kindOf(a *sessionpb.Action) string {
	m := a.ProtoReflect()
	body := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	if body == nil {
		return "none"
	}
	return strings.ToLower(string(body.Name()))
}
