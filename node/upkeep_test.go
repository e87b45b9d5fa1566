package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// version is the cluster's version as a controller knows it.
func (c *cluster) version(at string) uint32 {
	s, err := c.status(at)
	if err != nil {
		return 0
	}
	return s.Cluster.GetVersion()
}

// awaitNewestVersion waits until the cluster's version is this release's.
func (c *cluster) awaitNewestVersion() {
	c.t.Helper()
	c.eventually(20*time.Second, "the newest version", func() error {
		if v := c.version("c1"); v != fsm.Version {
			return fmt.Errorf("it is %d", v)
		}
		return nil
	})
}

// startOldController starts a controller that acts as a release with an older
// schema of commands.
func (c *cluster) startOldController(name string, schema uint32) {
	c.t.Helper()
	node, err := NewController(c.controllerConfig(name), Options{Network: c.net.Host(name), Logger: c.logger(name), Version: "old", Schema: schema})
	if err != nil {
		c.t.Fatal(err)
	}
	c.controllers[name] = node
	c.start(name, node.Run)
}

// The cluster's version goes up when the last of its members can follow, and
// not before: neither while one is old, nor while one does not answer.
func TestTheVersionRisesWhenTheLastReplicaIsUpdated(t *testing.T) {
	inTunedBubble(t, 1, func(config *configs.Controller) {
		quick(config)
		config.Raft.DigestInterval = 2 * time.Second
	}, func(t *testing.T, c *cluster) {
		for _, name := range controllerNames {
			c.kill(name)
			c.dirs[name] = t.TempDir()
		}
		for _, name := range controllerNames {
			c.startOldController(name, 1)
		}
		leader := c.serve(1)
		for i, name := range append(survivors(leader), leader) {
			time.Sleep(15 * time.Second)
			if v := c.version(name); v != 1 {
				t.Fatalf("version %d, with %d of 3 replicas updated", v, i)
			}
			c.stop(name)
			time.Sleep(15 * time.Second)
			c.startController(name)
			c.digestsEqual()
		}
		c.awaitNewestVersion()
		time.Sleep(10 * time.Second) // digests are compared: the command that needs the version
		c.digestsEqual()
	})
}

// A replica whose state has come apart stops itself, and comes back as a new
// one with the state of the others.
func TestAReplicaThatHasComeApartIsReplaced(t *testing.T) {
	for _, role := range []string{"follower", "leader"} {
		t.Run(role, func(t *testing.T) {
			inTunedBubble(t, 1, func(config *configs.Controller) {
				quick(config)
				config.Raft.DigestInterval = 5 * time.Second
			}, func(t *testing.T, c *cluster) {
				broken := c.serve(1)
				if role == "follower" {
					broken = follower(broken, controllerNames...)
				}
				c.eventually(20*time.Second, "the version rises", func() error {
					if c.version(broken) != fsm.Version {
						return errors.New("it has not")
					}
					return nil
				})
				others := survivors(broken)
				load := c.startTraffic(20, 3*time.Second, others...)
				id := c.controllers[broken].raft.ID()
				// What a defect would do: a record differs on one replica.
				c.controllers[broken].replica.Read(func(s *fsm.State) { s.Models()[0].SloNs++ })
				c.eventually(30*time.Second, "it stops itself", func() error {
					if len(c.journal.find("controller stopped", broken)) == 0 {
						return errors.New("it runs")
					}
					return nil
				})
				c.stop(broken)
				time.Sleep(5 * time.Second)
				c.startController(broken)
				c.digestsEqual()
				if now := c.controllers[broken].raft.ID(); now == id {
					t.Errorf("it is %s again, with the state that was wrong", now)
				}
				c.expectVoters(others[0], controllerNames...)
				load.end()
				load.expectNoFault()
			})
		})
	}
}

// A damaged store is a lost disk, and a cluster that has lost its state is not
// founded a second time.
func TestALostStateIsNotReplacedByAnEmptyOne(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		c.serve(1)
		for _, name := range controllerNames {
			c.kill(name)
		}
		for _, name := range controllerNames {
			c.damage(name)
			c.startController(name)
		}
		time.Sleep(30 * time.Second)
		for _, name := range controllerNames {
			if servers := c.controllers[name].raft.Servers(); len(servers) > 0 {
				t.Fatalf("%s is in a cluster of %v", name, servers)
			}
		}
		if lines := c.journal.find("this replica is no voter, or hears of no leader", "has lost its state", "recover"); len(lines) == 0 {
			t.Error("nobody says what has happened and what to do")
		}
	})
}

func TestACommandOfANewerVersionIsRefused(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		cmd, err := proto.Marshal(&logpb.Command{
			RequestId: "newer", RequestedUnixNs: time.Now().UnixNano(), ProposedUnixNs: time.Now().UnixNano(), Version: 99,
			Body: &logpb.Command_TakeDigest{TakeDigest: &logpb.TakeDigest{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		result, _, err := c.controllers[leader].raft.Apply(context.Background(), cmd)
		if r, ok := result.(*logpb.Result); err != nil || !ok || r.Reason != logpb.Reason_REASON_VERSION || !strings.Contains(r.Message, "99") {
			t.Errorf("%v, %v", result, err)
		}
		c.digestsEqual()
	})
}
