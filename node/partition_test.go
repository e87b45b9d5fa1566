package node

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/errs"
)

// term is the raft term as a controller knows it.
func (c *cluster) term(at string) uint64 { return c.controllers[at].raft.Term() }

func TestAFollowerThatIsCutOffDisturbsNobody(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		cut := follower(leader, controllerNames...)
		others := survivors(cut)
		term := c.term(leader)
		load := c.startTraffic(50, time.Second, others...)
		time.Sleep(time.Second)
		c.net.Isolate(cut)
		time.Sleep(10 * time.Second)
		c.net.Rejoin(cut)
		time.Sleep(3 * time.Second)
		load.end()
		load.expectNoFault()
		if now := c.leader(controllerNames...); now != leader || c.term(leader) != term {
			t.Errorf("%s led in term %d; after the cut was healed %s leads in term %d", leader, term, now, c.term(leader))
		}
		if gap := load.longestGap(); gap > 200*time.Millisecond {
			t.Errorf("no answer for %v, although the leader was well", gap)
		}
		c.digestsEqual()
	})
}

func TestOneWayCuts(t *testing.T) {
	cases := map[string]func(c *cluster, leader, one, other string){
		"leader to follower": func(c *cluster, leader, one, _ string) { c.net.CutOneWay(leader, one) },
		"follower to leader": func(c *cluster, leader, one, _ string) { c.net.CutOneWay(one, leader) },
		"leader to both": func(c *cluster, leader, one, other string) {
			c.net.CutOneWay(leader, one)
			c.net.CutOneWay(leader, other)
		},
		"both to leader": func(c *cluster, leader, one, other string) {
			c.net.CutOneWay(one, leader)
			c.net.CutOneWay(other, leader)
		},
	}
	for name, cut := range cases {
		t.Run(name, func(t *testing.T) {
			inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
				leader := c.serve(1)
				one, other := survivors(leader)[0], survivors(leader)[1]
				term := c.term(leader)
				load := c.startTraffic(50, 5*time.Second, other)
				time.Sleep(time.Second)
				cut(c, leader, one, other)
				time.Sleep(8 * time.Second)
				// One leader is there also while the fault stays.
				before := load.answered()
				time.Sleep(time.Second)
				if load.answered() == before {
					t.Error("nothing is answered while the fault stays")
				}
				c.net.HealAll()
				time.Sleep(3 * time.Second)
				load.end()
				load.expectNoFault()
				c.leader(controllerNames...)
				if now := c.term(other); now > term+2 {
					t.Errorf("%d terms within 12s", now-term)
				}
				if gap := load.longestGap(); gap > 3*time.Second {
					t.Errorf("no answer for %v", gap)
				}
				c.digestsEqual()
			})
		})
	}
}

// Both a follower and a leader that are cut off from the other controllers, but
// not from their clients, refuse changes and hold requests.
func TestAMinorityRefusesChangesAndHoldsRequests(t *testing.T) {
	for _, role := range []string{"follower", "leader"} {
		t.Run(role, func(t *testing.T) {
			inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
				alone := c.serve(1)
				if role == "follower" {
					alone = follower(alone, controllerNames...)
				}
				c.cutFrom(alone, append(survivors(alone), "w1")...)
				refused := func(what string, atMost time.Duration) {
					ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
					defer cancel()
					began := time.Now()
					_, err := c.load(ctx, alone, "another", resnet152)
					if e := reasonOf(err); status.Code(err) != codes.Unavailable || e.Reason != errs.NoLeader || e.RetryAfter <= 0 {
						t.Errorf("a change %s: %v", what, err)
					}
					if took := time.Since(began); took > atMost {
						t.Errorf("a change %s was refused after %v, not within %v", what, took, atMost)
					}
				}
				// Whoever is cut off notices within 0.6s, and then waits 2s for a leader.
				refused("at the moment of the cut", 2900*time.Millisecond)
				refused("later", 300*time.Millisecond)

				executed := c.results("w1", 0)
				to := c.inference(alone)
				for _, timeout := range []time.Duration{300 * time.Millisecond, 2 * time.Second} {
					began := time.Now()
					err := ask(context.Background(), to, within(image("resnet18", 1), timeout))
					if e := reasonOf(err); status.Code(err) != codes.DeadlineExceeded || e.Reason != errs.DeadlinePassed || e.Execution != errs.NotExecuted {
						t.Errorf("a request with %v: %+v", timeout, e)
					}
					if took := time.Since(began); took < timeout || took > timeout+50*time.Millisecond {
						t.Errorf("a request with %v ended after %v", timeout, took)
					}
				}
				if n := c.results("w1", 0); n != executed {
					t.Errorf("%d actions were executed", n-executed)
				}
				c.net.HealAll()
				began := time.Now()
				if err := ask(context.Background(), to, within(image("resnet18", 2), 5*time.Second)); err != nil {
					t.Errorf("after %v of the healed network: %v", time.Since(began), err)
				}
				t.Logf("answered %v after the heal", time.Since(began))
			})
		})
	}
}
