package controller

import (
	"context"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// Reads of the replicated state are linearizable unless the caller asks for a
// stale one. The replica that is asked asks the leader how far the log has
// come, waits until its own state is there, and answers from that. This costs
// the leader a round of heartbeats, shared by all who ask meanwhile, and no
// entry in the log.

// current returns when this replica's state holds all that was acknowledged
// before the call. It waits through an election; the errors are those of
// waitForLeader.
func (c *Controller) current(ctx context.Context) error {
	for {
		w, err := c.waitForLeader(ctx)
		if err != nil {
			return err
		}
		point, err := w.readIndex(ctx)
		if err == nil {
			return c.reach(ctx, point)
		}
		if !passing(err) {
			return err
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// commitLook is the pause between two looks at how far this replica knows the
// log to be committed: it is told a moment after the state has got there.
const commitLook = 5 * time.Millisecond

// reach waits until this replica has come to a point of the log, both its state
// and what it knows of the members.
func (c *Controller) reach(ctx context.Context, point *peerpb.ReadIndexResponse) error {
	if err := c.options.Replica.WaitIndex(ctx, point.Index); err != nil {
		return err
	}
	for {
		if _, commit, _ := c.options.Consensus.Progress(); commit >= point.CommitIndex {
			return nil
		}
		if err := pause(ctx, commitLook); err != nil {
			return err
		}
	}
}

// readIndex asks the leader how far a current state has come.
func (w way) readIndex(ctx context.Context) (*peerpb.ReadIndexResponse, error) {
	if w.term != nil {
		return w.term.readIndex(ctx)
	}
	var answer *peerpb.ReadIndexResponse
	err := w.ask(ctx, func(ctx context.Context) (err error) {
		answer, err = w.peer.ReadIndex(ctx, &peerpb.ReadIndexRequest{})
		return err
	})
	return answer, err
}

// readIndex is how far the state has come. The barrier at the start of the term
// has made it hold all that earlier leaders acknowledged; what was read is
// current if this replica still led afterwards.
func (t *term) readIndex(ctx context.Context) (*peerpb.ReadIndexResponse, error) {
	_, commit, _ := t.c.options.Consensus.Progress()
	answer := &peerpb.ReadIndexResponse{CommitIndex: commit, Index: t.c.options.Replica.Index()}
	return answer, t.verify(ctx)
}

// verify returns nil when this term still led after the call.
func (t *term) verify(ctx context.Context) error {
	if err := t.verification.run(ctx, t.c.options.Consensus.VerifyLeader); err != nil {
		return err
	}
	// Another term of this replica's own may have begun without its barrier.
	if now, _, _ := t.c.options.Consensus.Progress(); now != t.leader.Term {
		return errs.New(errs.NotLeader, "%s led in term %d, and now it is %d", t.c.options.Name, t.leader.Term, now)
	}
	return nil
}

// ReadIndex tells a follower how far a current state has come.
func (s *peerService) ReadIndex(ctx context.Context, _ *peerpb.ReadIndexRequest) (*peerpb.ReadIndexResponse, error) {
	t, err := s.leading()
	if err != nil {
		return nil, err
	}
	answer, err := t.readIndex(ctx)
	return answer, grpcerr.Status(err)
}

// readLocal calls f with the state at hand, and returns how fresh that is.
func (c *Controller) readLocal(stale bool, f func(*fsm.State)) *controlpb.Freshness {
	freshness := &controlpb.Freshness{Stale: stale}
	if stale {
		freshness.AgeNs = int64(c.age())
	}
	c.options.Replica.Read(func(s *fsm.State) {
		freshness.Index = s.Index()
		f(s)
	})
	return freshness
}

// age is how long ago this replica last heard from a leader, negative for
// never. What it has not heard of since, its state may lack.
func (c *Controller) age() time.Duration {
	ago, ever := c.options.Consensus.LeaderHeard()
	if !ever {
		return -1
	}
	return ago
}
