package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// stubborn makes c1 a leader that goes on believing in itself for seconds after
// the others have elected the next one: as one that was frozen and thaws does.
func stubborn(config *configs.Controller) {
	quick(config)
	if config.Name == "c1" {
		config.Raft.HeartbeatTimeout, config.Raft.ElectionTimeout, config.Raft.LeaderLease = 8*time.Second, 8*time.Second, 8*time.Second
	}
}

// makeLeader has the leadership handed on until it is with name.
func (c *cluster) makeLeader(name string) {
	c.t.Helper()
	for range 20 {
		leader := c.leader(controllerNames...)
		if leader == name {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = c.controllers[leader].raft.Transfer(ctx, "")
		cancel()
	}
	c.t.Fatalf("%s would not become the leader", name)
}

// cutFrom cuts a host off from the named ones only.
func (c *cluster) cutFrom(host string, others ...string) {
	for _, other := range others {
		c.net.Cut(host, other)
	}
}

// results is how many actions a worker has answered with a code.
func (c *cluster) results(worker string, code sessionpb.ResultCode) uint64 {
	return c.workers[worker].worker.Stats().Results[code]
}

// untilSession waits until each of the workers has a session of leader that
// was opened after an instant.
func (c *cluster) untilSession(leader string, after time.Time, workers ...string) {
	c.t.Helper()
	c.eventually(10*time.Second, "sessions of "+leader, func() error {
	workers:
		for _, worker := range workers {
			for _, l := range c.journal.find("session opened", "leader="+leader) {
				if l.node == worker && l.at.After(after) {
					continue workers
				}
			}
			return fmt.Errorf("none at %s", worker)
		}
		return nil
	})
}

func TestAnOldLeaderIsRefusedByWorkers(t *testing.T) {
	inTunedBubble(t, 2, stubborn, func(t *testing.T, c *cluster) {
		c.serve(2)
		c.makeLeader("c1")
		workers := []string{"w1", "w2"}
		load := c.startTraffic(100, 500*time.Millisecond, "c1")
		time.Sleep(2 * time.Second)
		cut := time.Now()
		answered := load.answered()
		if answered < 100 {
			t.Fatalf("%d requests were answered: the load was not real", answered)
		}
		c.cutFrom("c1", "c2", "c3")
		next := c.leader("c2", "c3")
		c.untilSession(next, cut, workers...)
		time.Sleep(50 * time.Millisecond) // what ran then may end
		overlap := time.Now()
		before, executed := load.answered(), c.results("w1", sessionpb.ResultCode_RESULT_CODE_OK)+c.results("w2", sessionpb.ResultCode_RESULT_CODE_OK)
		time.Sleep(2 * time.Second)
		if ended := c.journal.find("no longer leading"); len(ended) > 0 && ended[len(ended)-1].node == "c1" {
			t.Fatal("c1 had stepped down already: nothing was tested")
		}
		load.end()
		stale := c.results("w1", sessionpb.ResultCode_RESULT_CODE_STALE) + c.results("w2", sessionpb.ResultCode_RESULT_CODE_STALE)
		if stale == 0 {
			t.Error("the old leader sent no action, or none was refused")
		}
		if n := c.results("w1", sessionpb.ResultCode_RESULT_CODE_OK) + c.results("w2", sessionpb.ResultCode_RESULT_CODE_OK); n != executed {
			t.Errorf("%d actions of the old leader were executed after the newer session", n-executed)
		}
		if n := load.answered(); n != before {
			t.Errorf("the old leader answered %d requests after %v", n-before, overlap.Sub(cut))
		}
		t.Logf("%d actions were refused as stale", stale)

		c.net.HealAll()
		c.eventually(20*time.Second, "a request through c1", func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			return ask(ctx, c.inference("c1"), image("resnet18", 1))
		})
		c.digestsEqual()
	})
}

// The restarted worker knows no leader, and so can't know an old one by its
// term: what protects it is that the old one can't commit its registration.
func TestARestartedWorkerDoesNothingForAnOldLeader(t *testing.T) {
	inTunedBubble(t, 1, stubborn, func(t *testing.T, c *cluster) {
		c.serve(1)
		c.makeLeader("c1")
		c.cutFrom("c1", "c2", "c3")
		c.leader("c2", "c3")
		c.kill("w1")
		c.cutFrom("w1", "c2", "c3")
		c.startWorker("w1")
		restarted := time.Now()
		c.untilSession("c1", restarted.Add(-1), "w1")
		for i := range 20 {
			e := reasonOf(ask(context.Background(), c.inference("c1"), within(image("resnet18", i), 100*time.Millisecond)))
			if e.Reason != errs.DeadlinePassed && e.Reason != errs.NoWorker && e.Reason != errs.Infeasible {
				t.Errorf("a request to the old leader: %+v", e)
			}
		}
		if ended := c.journal.find("no longer leading"); len(ended) > 0 && ended[len(ended)-1].node == "c1" {
			t.Fatal("c1 had stepped down already: nothing was tested")
		}
		if s := c.workers["w1"].worker.Stats(); s.Registered || s.Models > 0 || s.Results[sessionpb.ResultCode_RESULT_CODE_OK] > 0 {
			t.Errorf("the worker worked for an old leader: %+v", s)
		}
		c.net.HealAll()
		c.eventually(20*time.Second, "a request on the restarted worker", func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			return ask(ctx, c.inference("c2"), image("resnet18", 1))
		})
		c.digestsEqual()
	})
}
