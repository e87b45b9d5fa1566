package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

var (
	// ErrNotLeader says that this replica does not lead, or no longer does, and
	// that what was asked for surely did not happen.
	ErrNotLeader = errors.New("this replica is not the leader")

	// ErrUnknown says that what was asked for may or may not have happened, or
	// may still happen: leadership or the caller's context ended in between.
	ErrUnknown = errors.New("outcome unknown")

	// ErrClosed says that this replica is being closed. Nothing has happened.
	ErrClosed = errors.New("this replica is closed")
)

// Apply replicates command and hands it to the FSM of every replica. It returns
// what this replica's FSM returned for it, and its index in the log. The command
// may not be modified afterwards.
//
// An error that is ErrUnknown leaves open whether command was or will be applied.
// After any other error, such as ErrNotLeader, it surely was not and will not be.
func (n *Node) Apply(ctx context.Context, command []byte) (result any, index uint64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("apply: %w", err)
	}
	var future raft.ApplyFuture
	err = n.request(ctx, func(patience time.Duration) raft.Future {
		future = n.raft.Apply(command, patience)
		return future
	})
	if err != nil {
		return nil, 0, fmt.Errorf("apply: %w", outcome(err))
	}
	return future.Response(), future.Index(), nil
}

// Barrier returns when this replica's FSM has applied all that was committed
// before the call, in this term and all earlier ones. The error is ErrNotLeader
// if this replica does not lead, or stopped leading meanwhile.
func (n *Node) Barrier(ctx context.Context) error {
	err := n.request(ctx, func(patience time.Duration) raft.Future { return n.raft.Barrier(patience) })
	if err != nil {
		return fmt.Errorf("barrier: %w", standing(err))
	}
	return nil
}

// VerifyLeader returns nil if a majority confirmed, after the call, that this
// replica leads. What was read from the FSM before the call, and after a Barrier
// in this term, was then not stale.
func (n *Node) VerifyLeader(ctx context.Context) error {
	servers := n.Servers()
	// The library also counts the confirmations of servers without a vote, so
	// that a leader which reaches only those would pass. An entry in the log is
	// committed by voters alone.
	if slices.ContainsFunc(servers, func(s Server) bool { return !s.Voter }) {
		return n.Barrier(ctx)
	}
	// And it counts each reply that arrives after the call, also one to a message
	// sent before, which says nothing of now. From each peer two of those can be
	// under way, to a heartbeat and to a replication, and each is counted in one
	// round at most: among one more rounds than that, all in one term, one is sound.
	term, _ := n.leading()
	for range max(2*(len(servers)-1)+1, 1) {
		err := n.request(ctx, func(time.Duration) raft.Future { return n.raft.VerifyLeader() })
		if err != nil {
			return fmt.Errorf("verify leadership: %w", standing(err))
		}
	}
	if now, ok := n.leading(); !ok || now != term {
		return fmt.Errorf("verify leadership: %w", ErrNotLeader)
	}
	return nil
}

// request hands ask's request to raft and waits for the answer or the end of ctx,
// whichever comes first. Raft should refuse what it could not begin within
// patience; zero is without limit. The error is raft's, ctx's, or ErrClosed.
func (n *Node) request(ctx context.Context, ask func(patience time.Duration) raft.Future) error {
	var patience time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		patience = max(time.Until(deadline), 1)
	}
	answer := make(chan error, 1)
	// Raft's calls can't be interrupted: a disk that hangs holds up even the
	// taking of a request. So they wait on a goroutine, and Close waits for that.
	if !n.requests.begin(func() { answer <- ask(patience).Error() }) {
		return ErrClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return &interruption{context.Cause(ctx)}
	}
}

// interruption is the end of a caller's context while raft had its request.
// Whatever ended it, also that the node is being closed, says nothing of that.
type interruption struct{ cause error }

func (i *interruption) Error() string { return i.cause.Error() }
func (i *interruption) Unwrap() error { return i.cause }

// outcome translates the error of a request that changes something. All that is
// not known to precede the entry's way to the log leaves the outcome open.
func outcome(err error) error {
	if interrupted, ok := errors.AsType[*interruption](err); ok {
		return fmt.Errorf("%w: %w", ErrUnknown, interrupted)
	}
	switch {
	case errors.Is(err, ErrClosed), errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return standing(err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w before raft took the request", context.DeadlineExceeded)
	default:
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}

// standing translates the error of a request that changes nothing, for which a
// leadership that was lost is as good as one that never was.
func standing(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost):
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: leadership is being transferred", ErrNotLeader)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w before raft took the request", context.DeadlineExceeded)
	default:
		return err
	}
}

// requests are the goroutines that wait for an answer of raft.
type requests struct {
	mu      sync.Mutex
	refused bool
	running sync.WaitGroup
}

// begin runs f on a goroutine of its own, or returns false after refuse.
func (r *requests) begin(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused {
		return false
	}
	r.running.Go(f)
	return true
}

func (r *requests) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = true
}

// wait returns when all has ended. Call it after refuse.
func (r *requests) wait() { r.running.Wait() }
