package controller

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// clockSkew is how far the clocks of controllers may be apart. A request that is
// tried again must not seem younger than it did at another controller.
const clockSkew = time.Minute

// command gives a command of this controller's own what Apply needs. A retry
// keeps all of it but the proposer's time.
func command(c *logpb.Command) *logpb.Command { return requested(newRequestID(), 0, c) }

// requested gives a command what Apply needs, for a request of that id that was
// first made some time ago.
func requested(id string, ago time.Duration, c *logpb.Command) *logpb.Command {
	c.RequestId, c.Version = cmp.Or(id, newRequestID()), fsm.NeededVersion(c)
	at := time.Now()
	if ago > 0 {
		at = at.Add(-ago - clockSkew)
	}
	c.RequestedUnixNs = at.UnixNano()
	return c
}

// propose commits a command on this replica, which must lead. The result may
// be a refusal. Errors are errs.NotLeader (not applied) and errs.UnknownOutcome.
func (c *Controller) propose(ctx context.Context, cmd *logpb.Command) (*logpb.Result, error) {
	cmd.ProposedUnixNs = time.Now().UnixNano()
	entry, err := proto.Marshal(cmd)
	if err != nil {
		return nil, errs.New(errs.Internal, "a command can't be serialised: %v", err)
	}
	result, _, err := c.options.Consensus.Apply(ctx, entry)
	if err != nil {
		return nil, err
	}
	r, ok := result.(*logpb.Result)
	if !ok {
		return nil, errs.Maybe(errs.Internal, "%s has stopped itself: %v", c.options.Name, result)
	}
	return r, nil
}

// commit commits a command wherever the leader is. It waits through an
// election, and tries again with the same request id when the outcome of an
// attempt is unknown; it gives up when ctx ends or there has been no leader for
// Tunables.NoLeaderTimeout. A refusal comes as an error.
func (c *Controller) commit(ctx context.Context, cmd *logpb.Command) (*logpb.Result, error) {
	unknown := false
	for {
		w, err := c.waitForLeader(ctx)
		if err == nil {
			var result *logpb.Result
			if result, err = w.propose(ctx, cmd); err == nil {
				return result, refused(result)
			}
		} else if unknown {
			e := *errs.From(err)
			e.Execution = errs.MaybeExecuted
			return nil, &e
		} else {
			return nil, err
		}
		if !passing(err) && !errors.Is(err, errs.UnknownOutcome) {
			return nil, err
		}
		unknown = unknown || !errors.Is(err, errs.NotLeader)
		if err := pause(ctx, retryPause); err != nil {
			return nil, errs.Maybe(errs.UnknownOutcome, "the time ran out before the leader answered; ask again with the same request id")
		}
	}
}

// waitForLeader returns a way to the leader, or errs.NoLeader once there has
// been none for Tunables.NoLeaderTimeout.
func (c *Controller) waitForLeader(ctx context.Context) (way, error) {
	patience := c.tunables.Load().NoLeaderTimeout - c.route.leaderless()
	waiting, cancel := context.WithTimeout(ctx, max(patience, 0))
	defer cancel()
	w, err := c.route.wait(waiting)
	if err == nil {
		return w, nil
	}
	if ctx.Err() != nil {
		return way{}, errs.New(errs.DeadlinePassed, "the call's time ran out while there was no leader")
	}
	return way{}, errs.New(errs.NoLeader,
		"there has been no leader for %v, so nothing can be changed; bring a majority of the controllers back (`orrery cluster status` shows which are there)",
		c.route.leaderless().Round(time.Millisecond)).After(time.Second)
}

// propose commits a command at the leader.
func (w way) propose(ctx context.Context, cmd *logpb.Command) (*logpb.Result, error) {
	if w.term != nil {
		return w.term.c.propose(ctx, cmd)
	}
	entry, err := proto.Marshal(cmd)
	if err != nil {
		return nil, errs.New(errs.Internal, "a command can't be serialised: %v", err)
	}
	var answer *peerpb.ProposeResponse
	err = w.ask(ctx, func(ctx context.Context) (err error) {
		answer, err = w.peer.Propose(ctx, &peerpb.ProposeRequest{Command: entry})
		return err
	})
	return answer.GetResult(), err
}

// refused turns a refusal of the state machine into an error. No result, because
// nothing was committed, is no refusal.
func refused(r *logpb.Result) error {
	reasons := map[logpb.Reason]errs.Reason{
		logpb.Reason_REASON_TOO_OLD:             errs.TooOld,
		logpb.Reason_REASON_UNKNOWN_MODEL:       errs.UnknownModel,
		logpb.Reason_REASON_UNKNOWN_WORKER:      errs.UnknownWorker,
		logpb.Reason_REASON_CONFLICT:            errs.Conflict,
		logpb.Reason_REASON_LATE_LOAD:           errs.LateLoad,
		logpb.Reason_REASON_INVALID:             errs.Invalid,
		logpb.Reason_REASON_WRONG_PHASE:         errs.Precondition,
		logpb.Reason_REASON_ALREADY_INITIALISED: errs.Precondition,
		logpb.Reason_REASON_VERSION:             errs.Precondition,
	}
	if r.GetReason() == logpb.Reason_REASON_NONE {
		return nil
	}
	reason, ok := reasons[r.Reason]
	if !ok {
		reason = errs.Internal
	}
	if reason == errs.TooOld {
		return errs.Maybe(reason, "%s", r.Message) // an earlier attempt may have had its effect
	}
	return errs.New(reason, "%s", r.Message)
}
