package raftnode

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// catchUp returns how long r takes to have applied what the leader had.
func (c *cluster) catchUp(r *replica) time.Duration {
	c.t.Helper()
	began := time.Now()
	target := c.leader().Stats().AppliedIndex
	for r.Stats().AppliedIndex < target {
		if time.Since(began) > 30*time.Second {
			c.t.Fatalf("%s is at %d of %d after 30 s", r.name, r.Stats().AppliedIndex, target)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// The library waits longer and longer after each failure, up to ten seconds, and
// nothing wakes it.
func TestAPeerThatComesBackIsReplicatedToAtOnce(t *testing.T) {
	for _, down := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 5 * time.Minute} {
		t.Run(fmt.Sprint(down), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := formed(t, "c1", "c2", "c3")
				gone := c.others(c.leader())[0]
				if err := gone.Close(); err != nil {
					t.Fatal(err)
				}
				delete(c.replicas, gone.name)
				for range 10 {
					c.apply("while it was away")
					time.Sleep(down / 10)
				}
				c.replicas[gone.name] = gone
				back := c.start(gone.name)
				took := c.catchUp(back)
				t.Logf("away for %v, caught up in %v", down, took)
				if took > 200*time.Millisecond {
					t.Errorf("it took %v to catch up", took)
				}
			})
		})
	}
}

// As after a cut of the network, or when a frozen process goes on.
func TestAPeerThatIsHeardAgainIsReplicatedToAtOnce(t *testing.T) {
	for _, away := range []time.Duration{7 * time.Second, 5 * time.Minute} {
		for name, fault := range map[string]struct {
			begin, end func(*cluster, *replica)
		}{
			"cut":    {func(c *cluster, r *replica) { c.part(r) }, func(c *cluster, _ *replica) { c.net.heal() }},
			"frozen": {func(c *cluster, r *replica) { c.net.freeze(r.Address()) }, func(c *cluster, r *replica) { c.net.thaw(r.Address()) }},
			"silent": {func(c *cluster, r *replica) { c.net.silence(r.Address()) }, func(c *cluster, r *replica) { c.net.wake(r.Address()) }},
		} {
			t.Run(fmt.Sprint(name, " for ", away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := formed(t, "c1", "c2", "c3")
					leader := c.leader()
					gone := c.others(leader)[0]
					fault.begin(c, gone)
					for range 10 {
						c.apply("while it was away")
						time.Sleep(away / 10)
					}
					if gone.Stats().AppliedIndex == leader.Stats().AppliedIndex {
						t.Fatal("it was not away")
					}
					term := leader.Term()
					fault.end(c, gone)
					took := c.catchUp(gone)
					t.Logf("away for %v, caught up in %v", away, took)
					// An attempt may have been on its way when the fault ended.
					if took > dialTimeout+maxDialPause+100*time.Millisecond {
						t.Errorf("it took %v to catch up", took)
					}
					time.Sleep(time.Minute)
					if leader.Term() != term {
						t.Errorf("it came back with %d elections", leader.Term()-term)
					}
				})
			})
		}
	}
}

// Two of three are gone; with the first that comes back there is a quorum. The one
// that stayed asks for votes in rounds of up to a second, and must not wait for
// the next.
func TestALostQuorumIsBackWithTheVoterThatMadeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var total, worst time.Duration
		const rounds = 10
		for range rounds {
			c := formed(t, "c1", "c2", "c3")
			c.apply("a")
			gone := c.others(c.replicas["c1"])
			for _, r := range gone {
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Second)
			delete(c.replicas, "c3")
			began := time.Now()
			c.start("c2")
			c.apply("b")
			took := time.Since(began)
			total, worst = total+took, max(worst, took)
		}
		t.Logf("writes again after %v, at worst %v", total/rounds, worst)
		if worst > 700*time.Millisecond {
			t.Errorf("it took up to %v", worst)
		}
	})
}

// Raft's messages don't name whom they are for. A replica that lost its disk
// would take those for its former self, and vote twice in one term.
func TestAWipedReplicaIsNotTakenForItsFormerSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a")
		leader := c.leader()
		wiped := c.others(leader)[0]
		if err := wiped.Close(); err != nil {
			t.Fatal(err)
		}
		delete(c.replicas, wiped.name)
		wiped = c.start(wiped.name)
		time.Sleep(10 * time.Second)
		if wiped.Formed() || len(wiped.fsm.content()) > 0 {
			t.Errorf("it was told of %v and %v", wiped.Servers(), wiped.fsm.content())
		}

		// Of the two that are left one is no majority, whatever the wiped one says.
		c.part(leader)
		time.Sleep(10 * time.Second)
		for _, r := range c.others(leader) {
			if _, ok := r.leading(); ok {
				t.Errorf("%s leads without a majority", r.name)
			}
		}
		if wiped.Term() != 0 {
			t.Errorf("the wiped replica knows the term %d", wiped.Term())
		}
	})
}

// A leader must not wait for a peer that it no longer has.
func TestAPeerThatIsGoneHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3", "c4", "c5")
		leader := c.leader()
		others := c.others(leader)
		if err := others[0].Close(); err != nil {
			t.Fatal(err)
		}
		c.net.silence(others[1].Address())
		time.Sleep(20 * time.Second)
		timed := func(what string, limit time.Duration, f func() error) {
			t.Helper()
			began := time.Now()
			if err := f(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if took := time.Since(began); took > limit {
				t.Errorf("%s took %v", what, took)
			}
		}
		timed("verify", 300*time.Millisecond, func() error { return leader.VerifyLeader(t.Context()) })
		timed("remove", 100*time.Millisecond, func() error { return leader.Remove(t.Context(), others[0].ID()) })
		timed("remove", 100*time.Millisecond, func() error { return leader.Remove(t.Context(), others[1].ID()) })
		timed("apply", 100*time.Millisecond, func() error {
			_, _, err := leader.Apply(t.Context(), []byte("a"))
			return err
		})
		timed("close", 300*time.Millisecond, leader.Close)
	})
}
