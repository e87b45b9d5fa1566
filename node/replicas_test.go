package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// voters are the names of the voters that a controller knows.
func (c *cluster) voters(at string) (names []string) {
	for _, s := range c.controllers[at].raft.Servers() {
		if s.Voter {
			name, _, _ := strings.Cut(s.ID, "-")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c *cluster) expectVoters(at string, want ...string) {
	c.t.Helper()
	c.eventually(20*time.Second, fmt.Sprint("the voters are ", want), func() error {
		if got := c.voters(at); !slices.Equal(got, want) {
			return fmt.Errorf("%v at %s", got, at)
		}
		return nil
	})
}

func (c *cluster) remove(at, replica string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.control(at).RemoveReplica(ctx, &controlpb.RemoveReplicaRequest{Replica: replica})
	return grpcerr.FromStatus(err)
}

// joins waits until a controller has taken in the replica at a peer address.
func (c *cluster) joins(at, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := c.control(at).JoinReplica(ctx, &controlpb.JoinReplicaRequest{PeerAddress: address})
	return grpcerr.FromStatus(err)
}

// waits has a controller named c4 wait for an operator's word.
func waits(config *configs.Controller) {
	quick(config)
	if config.Name == "c4" {
		config.Cluster.Bootstrap = false
		config.Cluster.Controllers = []configs.Address{"c4:8011"}
		config.Cluster.GossipSeeds = []configs.Address{"c1:7946", "c2:7946", "c3:7946"}
	}
}

func TestAReplicaIsAddedAndRemovedByCommand(t *testing.T) {
	inTunedBubble(t, 1, waits, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		through := follower(leader, controllerNames...)
		load := c.startTraffic(50, 3*time.Second, controllerNames...)
		c.dirs["c4"] = t.TempDir()
		c.startController("c4")
		time.Sleep(5 * time.Second)
		c.expectVoters(leader, "c1", "c2", "c3")
		if err := c.joins(through, "nobody:8011"); !errors.Is(err, errs.Precondition) {
			t.Errorf("a replica that is not there: %v", err)
		}
		if err := c.joins(through, "c4:8011"); err != nil {
			t.Fatal(err)
		}
		c.expectVoters(leader, "c1", "c2", "c3", "c4")
		if err := c.joins(through, "c4:8011"); err != nil {
			t.Errorf("a second time: %v", err)
		}
		// It answers clients, and finds the leader, though nobody's configuration
		// names it; also once it has been restarted.
		for range 2 {
			c.eventually(5*time.Second, "an answer through c4", func() error {
				return ask(context.Background(), c.inference("c4"), image("resnet18", 1))
			})
			c.stop("c4")
			c.startController("c4")
		}

		if err := c.remove(through, "c9"); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "c9") {
			t.Errorf("an unknown replica: %v", err)
		}
		if err := c.remove(through, "c4"); err != nil {
			t.Fatal(err)
		}
		c.expectVoters(leader, "c1", "c2", "c3")
		time.Sleep(10 * time.Second) // it runs on, and asks to be taken in again
		c.stop("c4")
		c.startController("c4")
		time.Sleep(10 * time.Second)
		c.expectVoters(leader, "c1", "c2", "c3")
		if lines := c.journal.find("this replica is no voter, or hears of no leader", "was removed from this cluster"); len(lines) == 0 {
			t.Error("the removed replica does not say why it is out")
		}
		c.stop("c4")
		c.dirs["c4"] = t.TempDir()
		c.startController("c4")
		if err := c.joins(through, "c4:8011"); err != nil {
			t.Errorf("with an empty disk: %v", err)
		}
		c.expectVoters(leader, "c1", "c2", "c3", "c4")
		load.end()
		load.expectNoFault()
	})
}

func TestALeaderIsRemoved(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		others := survivors(leader)
		load := c.startTraffic(50, 3*time.Second, others...)
		time.Sleep(time.Second)
		if err := c.remove(leader, leader); err != nil {
			t.Fatal(err)
		}
		c.expectVoters(others[0], others...)
		time.Sleep(time.Second)
		c.stop(leader)
		time.Sleep(time.Second)
		load.end()
		load.expectNoFault()
		// Without one of the two that are left, nothing could be decided.
		c.kill(others[1])
		time.Sleep(time.Second)
		if err := c.remove(others[0], others[0]); err == nil {
			t.Error("the last replica that answers was removed")
		}
	})
}

func TestNoMajorityIsRemoved(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		others := survivors(leader)
		c.kill(others[0])
		time.Sleep(time.Second)
		if err := c.remove(leader, others[1]); !errors.Is(err, errs.Precondition) || !strings.Contains(err.Error(), others[0]) {
			t.Errorf("a living replica beside a dead one: %v", err)
		}
		if err := c.remove(leader, others[0]); err != nil {
			t.Errorf("the dead one: %v", err)
		}
		c.expectVoters(leader, slices.Sorted(slices.Values([]string{leader, others[1]}))...)
	})
}

// A replica that moves keeps its id, its vote and all that it holds.
func TestAReplicaMovesToANewAddress(t *testing.T) {
	moved := ""
	inTunedBubble(t, 1, func(config *configs.Controller) {
		quick(config)
		if config.Name == moved {
			at := func(port int) configs.Address { return configs.Address(fmt.Sprintf("%s-new:%d", config.Name, port)) }
			config.Listen = configs.ControllerListen{
				Inference: at(8001), HTTP: at(8000), Control: at(8010), Peer: at(8011), Raft: at(8012), Gossip: at(7946),
			}
		}
	}, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		mover := follower(leader, controllerNames...)
		load := c.startTraffic(50, 3*time.Second, survivors(mover)...)
		id := c.controllers[mover].raft.ID()
		c.stop(mover)
		time.Sleep(time.Minute)
		moved = mover
		host := mover + "-new"
		node, err := NewController(c.controllerConfig(mover), Options{Network: c.net.Host(host), Logger: c.logger(mover), Version: "test"})
		if err != nil {
			t.Fatal(err)
		}
		c.controllers[mover] = node
		c.start(mover, node.Run)
		if node.raft.ID() != id {
			t.Errorf("its id was %s and is %s", id, node.raft.ID())
		}
		c.eventually(20*time.Second, "its new address is known", func() error {
			for _, s := range c.controllers[leader].raft.Servers() {
				if s.ID == id && s.Voter && s.Address == host+":8012" {
					return nil
				}
			}
			return fmt.Errorf("%v", c.controllers[leader].raft.Servers())
		})
		c.eventually(5*time.Second, "an answer through it", func() error {
			return ask(context.Background(), c.inference(host), image("resnet18", 1))
		})
		load.end()
		load.expectNoFault()
		// It has a vote: with one of the others gone, it decides.
		c.kill(leader)
		c.eventually(20*time.Second, "a leader of the two that are left", func() error {
			s, err := c.status(host)
			if err == nil && s.Leader == "" {
				err = errors.New("none")
			}
			return err
		})
	})
}

func TestLeadershipIsTransferredByCommand(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		load := c.startTraffic(100, time.Second, controllerNames...)
		time.Sleep(time.Second)
		for _, to := range []string{survivors(leader)[0], survivors(leader)[1], leader, leader, ""} {
			for _, at := range controllerNames[:1] {
				answer, err := c.control(at).TransferLeadership(context.Background(), &controlpb.TransferLeadershipRequest{Replica: to})
				if err != nil || to != "" && answer.Leader != to {
					t.Fatalf("to %q through %s: %v, %v", to, at, answer, err)
				}
				if now := c.leader(controllerNames...); now != answer.Leader {
					t.Errorf("%s is said to lead, and %s does", answer.Leader, now)
				}
			}
		}
		if _, err := c.control("c1").TransferLeadership(context.Background(), &controlpb.TransferLeadershipRequest{Replica: "c9"}); err == nil {
			t.Error("leadership went to a replica that is not there")
		}
		load.end()
		load.expectNoFault()
		if gap := load.longestGap(); gap > 300*time.Millisecond {
			t.Errorf("the longest gap between answers was %v", gap)
		}
	})
}

// damage flips a bit in the database of a controller that is down, in both
// places that say which of its pages are current.
func (c *cluster) damage(name string) {
	c.t.Helper()
	path := filepath.Join(c.dirs[name], "raft.db")
	content, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	content[16+60] ^= 1
	content[4096+16+60] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// Two removals that are each harmless may not be so together.
func TestTwoRemovalsAtOnceLeaveAMajority(t *testing.T) {
	inTunedBubble(t, 0, waits, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.dirs["c4"] = t.TempDir()
		c.startController("c4")
		if err := c.joins(leader, "c4:8011"); err != nil {
			t.Fatal(err)
		}
		c.net.Isolate("c4")
		time.Sleep(time.Second)
		others := survivors(leader)
		var wait sync.WaitGroup
		refused := make([]error, len(others))
		for i, name := range others {
			wait.Go(func() { refused[i] = c.remove(leader, name) })
		}
		wait.Wait()
		if (refused[0] == nil) == (refused[1] == nil) {
			t.Errorf("of two removals %v", refused)
		}
		if err := c.admitLate(leader, true); err != nil {
			t.Errorf("nothing can be changed any more: %v", err)
		}
	})
}
