package raftnode

import (
	"errors"
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
