package workerd

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// SupersededSilence ends a session that a newer one has taken the place of, when nothing is heard from it. It is long, so
	// that a leader that was frozen (a suspended machine, a stopped process) and thaws is told STALE for each action that it
	// still sends: if its stream just ended, it would open another, and could not tell a succession from a fault of the network.
	SupersededSilence = 2 * time.Minute
	// supersededSessions bounds how many of them are kept.
	supersededSessions = 8
	// supersededBytes bounds the outputs that such a session's leader has not read yet: more of them aren't kept for it.
	supersededBytes = 4 << 20
)

var (
	errSupersededMany = status.Errorf(codes.Aborted, "%d newer sessions have followed", supersededSessions)
	errSupersededFull = status.Error(codes.Aborted, "a newer session has followed, and the outputs of this one were not read")
)

// supersede has a session make room for a newer one. What it had queued is dropped; it stays open to tell its leader so, and
// holds next to nothing. The lock is held.
func (w *Worker) supersede(s *session) {
	w.drop(s)
	s.watch(SupersededSilence)
	if s.unread.Load() > supersededBytes {
		s.close(errSupersededFull)
	}
	w.superseded = append(w.superseded, s)
	if len(w.superseded) > supersededSessions {
		w.superseded[0].close(errSupersededMany)
		w.superseded = w.superseded[1:]
	}
}
