package raftnode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

var (
	// ErrNotVoter says that a replica has no vote, and so can't lead.
	ErrNotVoter = errors.New("not a voter")

	// ErrSilent says that no replica that could take over answers the leader.
	ErrSilent = errors.New("no answer")
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

// LeaderHeard returns how long ago a leader was heard, or ever is false if none
// was since this replica was opened. For a leader it is zero.
//
// Raft's own figure, in Stats, also counts the votes that this replica has given,
// which come again and again while there is no leader.
func (n *Node) LeaderHeard() (ago time.Duration, ever bool) {
	if _, ok := n.leading(); ok {
		return 0, true
	}
	// Votes are not given while a leader is known.
	contact := n.raft.LastContact()
	id, _ := n.Leader()
	c := &n.suspicion.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	heard := c.at
	switch {
	case c.led: // until just now
		heard = time.Now()
	case (id != "" || c.known) && contact.After(heard):
		heard = contact
	}
	if heard.IsZero() {
		return 0, false
	}
	return time.Since(heard), true
}

// contact is what is known of the newest leader but for raft's own memory, which
// votes overwrite.
type contact struct {
	mu    sync.Mutex
	known bool      // a leader is known
	led   bool      // it is this replica
	at    time.Time // when it became known, or, when it was lost, was last heard
}

// look notes that a leader has become known, or is no longer.
func (n *Node) look() {
	_, leads := n.leading()
	id, _ := n.Leader()
	last := n.raft.LastContact()
	c := &n.suspicion.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	known := leads || id != ""
	switch {
	case known && !c.known, c.led && !leads:
		c.at = time.Now()
	case !known && c.known && last.After(c.at):
		c.at = last
	}
	c.known, c.led = known, leads
}

// Transfer hands the leadership to the voter with the id to, or to any that is up
// to date if to is empty, and returns when this replica no longer leads. Meanwhile
// commands are refused with ErrNotLeader. A leader that is told to hand over to
// itself has done so.
//
// Voters that don't answer are passed over. The error is ErrNoServer, ErrNotVoter
// or ErrSilent for one that was named and can't lead, ErrNotLeader if this
// replica does not lead.
func (n *Node) Transfer(ctx context.Context, to string) error {
	if err := n.transferTo(ctx, to); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}

func (n *Node) transferTo(ctx context.Context, to string) error {
	servers, err := n.changeable(ctx)
	if err != nil || to == n.id {
		return err
	}
	heirs, choice, err := n.heirs(servers, to)
	if err != nil {
		return err
	}
	// A transfer must not wait for a peer that is gone, be it in a dial.
	defer n.stream.hurry()()
	var errs []error
	attempt := func(ask func() raft.Future) (done bool) {
		err = n.transfer(ctx, ask)
		errs = append(errs, err)
		return err == nil || ctx.Err() != nil || errors.Is(err, ErrNotLeader) || errors.Is(err, ErrClosed)
	}
	if choice && attempt(func() raft.Future { return n.raft.LeadershipTransfer() }) {
		return err
	}
	for _, s := range heirs {
		if !n.answers(s) { // any more
			continue
		}
		if attempt(func() raft.Future {
			return n.raft.LeadershipTransferToServer(raft.ServerID(s.ID), raft.ServerAddress(s.Address))
		}) {
			return err
		}
	}
	if len(errs) == 0 {
		return ErrSilent
	}
	return errors.Join(errs...)
}

// heirs returns the voters that may take over, and whether raft, which knows who
// is the most up to date but not who answers, may choose among them.
func (n *Node) heirs(servers []Server, to string) (heirs []Server, choice bool, err error) {
	choice = to == ""
	var silent []string
	for _, s := range servers {
		switch {
		case s.ID == n.id || to != "" && s.ID != to:
		case !s.Voter && to != "":
			return nil, false, fmt.Errorf("%w: %s has no vote yet", ErrNotVoter, to)
		case !s.Voter:
		case !n.answers(s):
			silent = append(silent, s.ID)
		default:
			heirs = append(heirs, s)
		}
	}
	switch {
	case len(heirs) > 0:
		return heirs, choice && len(silent) == 0, nil
	case len(silent) > 0:
		return nil, false, fmt.Errorf("%w: %s", ErrSilent, strings.Join(silent, ", "))
	case to != "":
		return nil, false, fmt.Errorf("%w: %s", ErrNoServer, to)
	default:
		return nil, false, fmt.Errorf("%w: there is no other voter", ErrNoServer)
	}
}

// answers reports whether a member has answered this replica, which leads and asks
// ten times in that time, within the last heartbeat timeout.
func (n *Node) answers(s Server) bool {
	return n.stream.answered(raft.ServerAddress(s.Address), n.raft.ReloadableConfig().HeartbeatTimeout)
}

// transfer makes one attempt, once an earlier one no longer stands in its way.
func (n *Node) transfer(ctx context.Context, attempt func() raft.Future) error {
	for {
		err := n.request(ctx, func(time.Duration) raft.Future { return attempt() })
		// Both mean that raft is still busy with a transfer.
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) && !errors.Is(err, raft.ErrEnqueueTimeout) {
			return standing(err)
		}
		// It waits for the answer of one that has been silent ever since.
		for _, s := range n.Servers() {
			if !n.answers(s) {
				n.stream.cut(raft.ServerAddress(s.Address))
			}
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
//
// It also opens the stream, whose connections have waited for it to be known
// which replica this is.
func (n *Node) observe() {
	n.stream.serve(n)
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
			n.look()
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
