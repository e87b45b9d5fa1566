package raftnode

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAddAndPromote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		c.apply("a")
		leader := c.leader()
		joiner := c.start("c2")
		if err := leader.Promote(within(t, time.Second), joiner.ID(), joiner.Address()); !errors.Is(err, ErrNoServer) {
			t.Errorf("promoting a stranger: %v", err)
		}
		for range 2 { // the second time changes nothing
			if err := leader.AddNonvoter(within(t, time.Second), joiner.ID(), joiner.Address()); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "state on c2", func() bool { return joiner.fsm.holds("a") })
		if s := leader.Servers(); len(s) != 2 || s[1] != (Server{joiner.ID(), joiner.Address(), false}) {
			t.Errorf("after adding: %v", s)
		}

		// Without a vote it is not missed.
		c.part(joiner)
		c.apply("b")
		c.net.heal()

		if err := leader.Promote(within(t, 5*time.Second), joiner.ID(), joiner.Address()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "vote", func() bool {
			s := joiner.Servers()
			return len(s) == 2 && s[1].Voter
		})
		// With a vote it is.
		c.part(joiner)
		if _, _, err := leader.Apply(within(t, 5*time.Second), []byte("c")); !errors.Is(err, ErrUnknown) {
			t.Errorf("one of two voters applied alone: %v", err)
		}
	})
}

func TestAddressMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		leader := c.leader()
		moved := c.others(leader)[0]
		// While it still answers at the old address, the library has a data race
		// on its notion of the peer.
		if err := moved.Close(); err != nil {
			t.Fatal(err)
		}
		if err := leader.AddNonvoter(within(t, time.Second), moved.ID(), "elsewhere:8012"); err != nil {
			t.Fatal(err)
		}
		for _, s := range leader.Servers() {
			if s.ID == moved.ID() && s != (Server{moved.ID(), "elsewhere:8012", true}) {
				t.Errorf("it became %v", s)
			}
		}
	})
}

// A replica that comes back at another address is a member that can't be reached,
// until the leader is told. Its vote it keeps all the time.
func TestAReplicaThatMovedGoesOn(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprint("leader ", leads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := formed(t, "c1", "c2", "c3")
				c.apply("a")
				moved := c.leader()
				if !leads {
					moved = c.others(moved)[0]
				}
				if err := moved.Close(); err != nil {
					t.Fatal(err)
				}
				delete(c.replicas, moved.name)
				c.apply("b")
				time.Sleep(20 * time.Second)
				c.adjust = func(o *Options) {
					_ = o.Stream.Close()
					o.Stream = c.net.listen("elsewhere:8012")
				}
				c.replicas[moved.name] = moved
				moved = c.start(moved.name)
				time.Sleep(5 * time.Second)
				if moved.fsm.holds("a", "b") {
					t.Fatal("it was found without having been announced")
				}
				leader := c.leader()
				term := leader.Term()
				announced := time.Now()
				if err := leader.AddNonvoter(within(t, time.Second), moved.ID(), moved.Address()); err != nil {
					t.Fatal(err)
				}
				eventually(t, "state at the new address", func() bool { return moved.fsm.holds("a", "b") })
				if took := time.Since(announced); took > 300*time.Millisecond {
					t.Errorf("it caught up %v after it was announced", took)
				}
				if leader.Term() != term {
					t.Errorf("the move cost %d terms", leader.Term()-term)
				}
				for _, heir := range []*replica{moved, leader, moved} {
					if err := c.leader().Transfer(within(t, time.Second), heir.ID()); err != nil {
						t.Fatal(err)
					}
					if next := c.leader(); next != heir {
						t.Errorf("%s leads, not %s", next.name, heir.name)
					}
				}
				c.stop(leader)
				c.apply("c") // with its vote
			})
		})
	}
}

// Nothing of a removed replica stands in the way of a new one at its address.
func TestANewReplicaAtTheAddressOfARemovedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a")
		leader := c.leader()
		gone := c.others(leader)[0]
		c.stop(gone)
		time.Sleep(time.Minute)
		begin := time.Now()
		if err := leader.Remove(within(t, time.Second), gone.ID()); err != nil {
			t.Fatal(err)
		}
		next := c.start(gone.name)
		if next.ID() == gone.ID() {
			t.Fatal("it is the old one")
		}
		if err := leader.AddNonvoter(within(t, time.Second), next.ID(), next.Address()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "state on the new one", func() bool { return next.fsm.holds("a") })
		if err := leader.Promote(within(t, time.Second), next.ID(), next.Address()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("the replacement took %v", took)
		}
		third := c.others(leader)[0]
		if third == next {
			third = c.others(leader)[1]
		}
		c.stop(third) // so that the new one's vote is needed
		c.apply("b")
		c.revive(third)
		c.allHold("a", "b")

		// The old one, with its disk, finds that it is not the one who is meant.
		term := leader.Term()
		c.stop(next)
		ghost := c.revive(gone)
		time.Sleep(time.Minute)
		if leader.Term() != term || slices.Contains(ghost.fsm.content(), "b") {
			t.Errorf("the removed one has %v, in term %d after %d", ghost.fsm.content(), leader.Term(), term)
		}
		if _, ok := ghost.leading(); ok {
			t.Error("the removed one leads")
		}
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		leader := c.leader()
		gone := c.others(leader)[0]
		if err := leader.Remove(within(t, time.Second), gone.ID()); err != nil {
			t.Fatal(err)
		}
		if n := len(leader.Servers()); n != 2 {
			t.Errorf("%d servers are left", n)
		}
		if err := leader.Remove(within(t, time.Second), gone.ID()); err != nil {
			t.Errorf("removing it again: %v", err)
		}
		term := leader.Term()
		time.Sleep(time.Minute)
		if leader.Term() != term {
			t.Errorf("the removed replica caused %d terms", leader.Term()-term)
		}
	})
}

func TestRemoveLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		old := c.leader()
		if err := old.Remove(within(t, time.Second), old.ID()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "leader among the rest", func() bool {
			_, leads := old.leading()
			return !leads && c.leader() != old
		})
	})
}

func TestRemoveLastVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		leader := c.leader()
		if err := leader.Remove(within(t, time.Second), leader.ID()); !errors.Is(err, ErrLastVoter) {
			t.Errorf("got %v", err)
		}
	})
}
