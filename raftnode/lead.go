package raftnode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transferRetry is the wait between looks at whether an earlier transfer of
// leadership, which has failed, has also ended.
const transferRetry = 10 * time.Millisecond

// Leader returns the leader that this replica knows of, or empty strings. It may
// have been succeeded without this replica having heard of that.
func (n *Node) Leader() (id, address string) {
	leaderAddress, leaderID := n.raft.LeaderWithID()
	return string(leaderID), string(leaderAddress)
}

// LeaderChanged returns a channel that is closed at the next change of the known
// leader, or of this replica's own part. To miss none: take the channel, read
// Leader, then wait. A wake-up without a change is possible.
func (n *Node) LeaderChanged() <-chan struct{} { return n.changed.next() }

// Lead calls lead once for each term in which this replica is elected, until ctx
// ends; then it returns nil, or ErrClosed if the node was closed before that.
//
// The context of a call ends when the leadership does, with ErrNotLeader as its
// cause. The call is then waited for: the next term's begins when it has returned,
// and nothing of it runs once Lead has. A call that returns while its term goes on
// is not repeated in that term.
//
// The end of a context is not a fence. A process that was frozen runs on for a
// moment after another leader has been elected; only the log knows better.
func (n *Node) Lead(ctx context.Context, lead func(ctx context.Context, term uint64)) error {
	for {
		changed := n.LeaderChanged()
		select {
		case <-ctx.Done():
			return nil
		case <-n.closed:
			return ErrClosed
		default:
		}
		if term, ok := n.leading(); ok {
			n.leadTerm(ctx, term, lead)
			continue
		}
		select {
		case <-ctx.Done():
		case <-n.closed:
		case <-changed:
		}
	}
}

// leadTerm calls lead, and returns when the call has returned and term, ctx or
// the node has ended.
func (n *Node) leadTerm(ctx context.Context, term uint64, lead func(ctx context.Context, term uint64)) {
	ctx, cancel := context.WithCancelCause(ctx)
	var call sync.WaitGroup
	call.Go(func() { lead(ctx, term) })
	defer call.Wait()
	for {
		changed := n.LeaderChanged()
		if current, ok := n.leading(); !ok || current != term {
			cancel(ErrNotLeader)
			return
		}
		select {
		case <-ctx.Done():
			cancel(nil)
			return
		case <-n.closed:
			cancel(ErrClosed)
			return
		case <-changed:
		}
	}
}

// leading returns the term that this replica leads. A term has one leader for as
// long as it lasts, so the state between two looks at the same term belongs to it.
func (n *Node) leading() (term uint64, ok bool) {
	term = n.raft.CurrentTerm()
	ok = n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
	return term, ok
}

// Transfer hands the leadership to another voter that is up to date, and returns
// when this replica no longer leads. Meanwhile commands are refused with
// ErrNotLeader. If raft's choice can't be reached, the other voters are tried.
func (n *Node) Transfer(ctx context.Context) error {
	attempts := []func() raft.Future{func() raft.Future { return n.raft.LeadershipTransfer() }}
	for _, s := range n.Servers() {
		if s.Voter && s.ID != n.id {
			attempts = append(attempts, func() raft.Future {
				return n.raft.LeadershipTransferToServer(raft.ServerID(s.ID), raft.ServerAddress(s.Address))
			})
		}
	}
	var errs []error
	for _, attempt := range attempts {
		err := n.transfer(ctx, attempt)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil || errors.Is(err, ErrNotLeader) || errors.Is(err, ErrClosed) {
			return fmt.Errorf("transfer leadership: %w", err)
		}
	}
	return fmt.Errorf("transfer leadership: %w", errors.Join(errs...))
}

// transfer makes one attempt, once an earlier one no longer stands in its way.
func (n *Node) transfer(ctx context.Context, attempt func() raft.Future) error {
	for {
		err := n.request(ctx, func(time.Duration) raft.Future { return attempt() })
		// Both mean that raft is still busy with a transfer.
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) && !errors.Is(err, raft.ErrEnqueueTimeout) {
			return standing(err)
		}
		select {
		case <-time.After(transferRetry):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// observe starts to watch raft. Its observers drop what they can't take, which is
// harmless here: one observation that waits is enough for everybody to look again.
func (n *Node) observe() {
	n.observed = make(chan raft.Observation, 1)
	n.observer = raft.NewObserver(n.observed, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	n.raft.RegisterObserver(n.observer)
	n.watcher.Go(func() {
		for {
			select {
			case <-n.observed:
				n.changed.broadcast()
			case <-n.down:
				n.raft.DeregisterObserver(n.observer)
				n.changed.broadcast()
				return
			}
		}
	})
}

// signal wakes everybody who waits.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns a channel that the next broadcast closes.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
