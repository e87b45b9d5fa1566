package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

var (
	// ErrFormed says that this replica already belongs to a cluster, or has heard
	// from one, and so must not bootstrap another.
	ErrFormed = errors.New("this replica already has a cluster's state")

	// ErrAddressTaken says that another replica holds the address. A new replica
	// at a known address (a wiped disk) can be added once the old one is removed.
	ErrAddressTaken = errors.New("address taken")

	// ErrNoServer says that no replica of that id belongs to the cluster.
	ErrNoServer = errors.New("no such replica")

	// ErrLastVoter says that the cluster would be left without a vote.
	ErrLastVoter = errors.New("last voter")
)

// Server is a replica as the cluster knows it.
type Server struct {
	ID      string
	Address string
	Voter   bool // takes part in elections and commits; otherwise it only follows
}

// Formed reports whether this replica has a configuration, from its log or a
// snapshot. One that has must never bootstrap.
func (n *Node) Formed() bool { return len(n.Servers()) > 0 }

// Servers returns the newest configuration that this replica knows of, committed
// or not; none if it belongs to no cluster.
func (n *Node) Servers() []Server {
	return serversOf(n.raft.GetConfiguration().Configuration()) // never waits nor fails
}

func serversOf(configuration raft.Configuration) []Server {
	servers := make([]Server, 0, len(configuration.Servers))
	for _, s := range configuration.Servers {
		servers = append(servers, Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return servers
}

// Bootstrap forms a new cluster of servers, among which this replica must be a
// voter. One replica does this, once; the others learn of it. The error is
// ErrFormed if this replica has any state.
func (n *Node) Bootstrap(servers []Server) error {
	if err := n.MayBootstrap(); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	var configuration raft.Configuration
	for _, s := range servers {
		suffrage := raft.Nonvoter
		if s.Voter {
			suffrage = raft.Voter
		}
		configuration.Servers = append(configuration.Servers,
			raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address), Suffrage: suffrage})
	}
	err := n.request(context.Background(), func(time.Duration) raft.Future {
		return n.raft.BootstrapCluster(configuration)
	})
	if errors.Is(err, raft.ErrCantBootstrap) {
		err = ErrFormed
	}
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// AddNonvoter adds a replica that receives the log but has no vote. For an id
// that is a member already, and has moved, it sets the address and leaves the vote
// as it is.
//
// Errors are those of Apply, or ErrAddressTaken.
func (n *Node) AddNonvoter(ctx context.Context, id, address string) error {
	servers, err := n.changeable(ctx)
	if err == nil {
		err = checkAddress(servers, id, address)
	}
	if err == nil {
		err = n.change(ctx, func(patience time.Duration) raft.Future {
			return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, patience)
		})
	}
	return annotate("add", id, err)
}

// Promote gives a member its vote. Do so once it has caught up: until then the
// cluster can commit less, not more, than without it.
//
// Errors are those of Apply, ErrNoServer or ErrAddressTaken.
func (n *Node) Promote(ctx context.Context, id, address string) error {
	servers, err := n.changeable(ctx)
	if err == nil && !slices.ContainsFunc(servers, func(s Server) bool { return s.ID == id }) {
		err = fmt.Errorf("%w: add it first", ErrNoServer)
	}
	if err == nil {
		err = checkAddress(servers, id, address)
	}
	if err == nil {
		err = n.change(ctx, func(patience time.Duration) raft.Future {
			return n.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, patience)
		})
	}
	return annotate("promote", id, err)
}

// Remove takes a replica out of the cluster; one that is no member is no error. A
// leader that removes itself steps down. The removed replica is not told.
//
// Errors are those of Apply, or ErrLastVoter.
func (n *Node) Remove(ctx context.Context, id string) error {
	servers, err := n.changeable(ctx)
	if err == nil && !slices.ContainsFunc(servers, func(s Server) bool { return s.Voter && s.ID != id }) {
		err = fmt.Errorf("%w: give another replica a vote first", ErrLastVoter)
	}
	if err == nil {
		err = n.change(ctx, func(patience time.Duration) raft.Future {
			return n.raft.RemoveServer(raft.ServerID(id), 0, patience)
		})
	}
	return annotate("remove", id, err)
}

// changeable returns the members, for checks before a change. Raft checks again;
// here the refusal is certain and can say what to do.
func (n *Node) changeable(ctx context.Context) ([]Server, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, ok := n.leading(); !ok {
		return nil, ErrNotLeader
	}
	return n.Servers(), nil
}

// change makes one change of the configuration and waits until it is committed.
func (n *Node) change(ctx context.Context, ask func(patience time.Duration) raft.Future) error {
	if err := n.request(ctx, ask); err != nil {
		return outcome(err)
	}
	return nil
}

func checkAddress(servers []Server, id, address string) error {
	for _, s := range servers {
		if s.Address == address && s.ID != id {
			return fmt.Errorf("%w: %s belongs to %s: remove that one first", ErrAddressTaken, address, s.ID)
		}
	}
	return nil
}

func annotate(action, id string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", action, id, err)
	}
	return nil
}
