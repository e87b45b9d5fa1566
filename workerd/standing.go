package workerd

import "github.com/orrery-project/orrery/proto/sessionpb"

// This file is about what the newest leader makes of this worker as a whole: registers it, refuses it, or lets it go.

// refusalsSaid bounds the different refusals that are remembered, so that each is an error in the log only once.
const refusalsSaid = 16

// receiveStanding acts on what the current leader says about this worker. The lock is held.
func (w *Worker) receiveStanding(s *session, m *sessionpb.LeaderMessage) {
	if m.GetRegisteredIncarnation() == w.options.Incarnation {
		w.refused, w.refusals = "", nil
		if !w.registered {
			w.registered = true
			w.log.Info("registration committed, executing from now on", "incarnation", w.options.Incarnation, "leader", s.leader.GetName())
		}
	}
	if why := m.GetRefusal(); why != "" {
		w.refuse(s, why)
	}
	if m.GetLeave() && !w.leaving {
		w.leaving = true
		close(w.left)
		w.log.Info("worker was drained by the leader and ends", "name", w.options.Name,
			"leader", s.leader.GetName(), "epoch", s.leader.GetEpoch(), "term", s.leader.GetTerm())
	}
}

// refuse notes that the leader doesn't want this worker. It goes on: a supervisor would only start it again and again, and
// the leader asks again. For the same reason the log has each text as an error only once. The lock is held.
func (w *Worker) refuse(s *session, why string) {
	w.refused = why
	say := w.log.Error
	if w.refusals[why] {
		say = w.log.Debug
	}
	say("the leader refuses this worker; waiting until it is wanted", "name", w.options.Name, "reason", why,
		"leader", s.leader.GetName(), "epoch", s.leader.GetEpoch(), "term", s.leader.GetTerm())
	if w.refusals == nil || len(w.refusals) >= refusalsSaid {
		w.refusals = make(map[string]bool)
	}
	w.refusals[why] = true
}

// Left is closed when the leader has told this worker, which was drained, to end; Run then ends by itself.
func (w *Worker) Left() <-chan struct{} { return w.left }
