package raftnode

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// suspicion is what this replica thinks of its leader. It shortens its timeouts
// for a while.
type suspicion struct {
	mu sync.Mutex
	// cautious are the timeouts to return to.
	cautious raft.ReloadableConfig
	hasty    bool

	contact contact
}

// SuspectLeader says that the caller has lost its connection to the leader, which
// is what happens at once when a process dies. For the next few timeouts this
// replica then waits for the leader no longer than the lease: the shortest time
// after which a leader without a quorum has surely stepped down. If the leader
// lives, it is heard within that time and nothing happens.
//
// So a crash costs less than half of the ordinary timeout, and a replica that is
// only slow is not hurried.
func (n *Node) SuspectLeader() {
	s := &n.suspicion
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-n.down:
		return
	default:
	}
	if s.hasty {
		return
	}
	s.cautious = n.raft.ReloadableConfig()
	hasty := s.cautious
	hasty.HeartbeatTimeout, hasty.ElectionTimeout = n.lease, n.lease
	if err := n.raft.ReloadConfig(hasty); err != nil {
		return // the lease is as long as the timeouts: there is nothing to gain
	}
	s.hasty = true
	n.watcher.Go(func() {
		select {
		case <-time.After(2 * (s.cautious.HeartbeatTimeout + s.cautious.ElectionTimeout)):
		case <-n.down:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hasty = false
		_ = n.raft.ReloadConfig(s.cautious)
	})
}
