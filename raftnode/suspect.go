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
	// hasty: they are shortened, until then.
	hasty bool
	until time.Time

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
	if n.isDown() {
		return
	}
	if !s.hasty && !n.hurry() {
		return // the lease is as long as the timeouts: there is nothing to gain
	}
	// Also when it is in haste already: the leader that is lost now may be the
	// successor of the one that was lost then.
	s.until = time.Now().Add(2 * (s.cautious.HeartbeatTimeout + s.cautious.ElectionTimeout))
}

// hurry shortens the timeouts, and says whether it has. It has them back when the
// haste is over. The caller holds the lock.
func (n *Node) hurry() bool {
	s := &n.suspicion
	s.cautious = n.raft.ReloadableConfig()
	hasty := s.cautious
	hasty.HeartbeatTimeout, hasty.ElectionTimeout = n.lease, n.lease
	if err := n.raft.ReloadConfig(hasty); err != nil {
		return false
	}
	s.hasty = true
	n.watcher.Go(n.calmDown)
	return true
}

// calmDown waits until the haste is over, or the node is down.
func (n *Node) calmDown() {
	s := &n.suspicion
	for {
		s.mu.Lock()
		left := time.Until(s.until)
		if left <= 0 || n.isDown() {
			s.hasty = false
			_ = n.raft.ReloadConfig(s.cautious)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		select {
		case <-time.After(left):
		case <-n.down:
		}
	}
}

// isDown says whether the node has been closed.
func (n *Node) isDown() bool {
	select {
	case <-n.down:
		return true
	default:
		return false
	}
}
