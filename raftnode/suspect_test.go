package raftnode

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestASuspectedLeaderThatIsGoneIsSucceededSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cautious, hasty time.Duration
		const rounds = 10
		for range rounds {
			for _, suspect := range []bool{false, true} {
				c := formed(t, "a", "b", "c")
				old := c.leader()
				others := c.others(old)
				if err := old.Close(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if suspect {
					for _, n := range others {
						n.SuspectLeader()
					}
				}
				c.leader()
				if took := time.Since(began); suspect {
					hasty += took
				} else {
					cautious += took
				}
			}
		}
		t.Logf("mean time without a leader: %v, suspected %v", cautious/rounds, hasty/rounds)
		if hasty > cautious/2 {
			t.Errorf("suspected leaders took %v to be succeeded, others %v", hasty/rounds, cautious/rounds)
		}
	})
}

func TestASuspectedLeaderThatLivesStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "a", "b", "c")
		leader := c.leader()
		term := leader.Term()
		for range 20 {
			for _, n := range c.others(leader) {
				n.SuspectLeader()
				n.SuspectLeader() // again and again is harmless
			}
			time.Sleep(time.Second)
		}
		if now := leader.Term(); now != term || c.leader() != leader {
			t.Errorf("the term went from %d to %d", term, now)
		}
		time.Sleep(5 * time.Second)
		for _, n := range c.others(leader) {
			if got := n.raft.ReloadableConfig().HeartbeatTimeout; got != 500*time.Millisecond {
				t.Errorf("the heartbeat timeout stayed at %v", got)
			}
		}
	})
}

// A leader dies just before the haste of an earlier suspicion ends.
func TestALeaderIsSuspectedAnewWhileAnotherStillIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var total time.Duration
		const rounds = 10
		for range rounds {
			c := formed(t, "a", "b", "c")
			old := c.leader()
			others := c.others(old)
			suspect := func() {
				for _, n := range others {
					n.SuspectLeader()
				}
			}
			suspect()
			time.Sleep(1900 * time.Millisecond)
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			suspect()
			c.leader()
			total += time.Since(began)
		}
		if mean := total / rounds; mean > 500*time.Millisecond {
			t.Errorf("it took %v to succeed a leader that was suspected twice", mean)
		}
	})
}
