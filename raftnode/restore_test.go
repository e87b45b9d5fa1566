package raftnode

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// encoded returns what a journal of commands writes into a snapshot.
func encoded(t *testing.T, commands ...string) (int64, io.Reader) {
	t.Helper()
	content, err := json.Marshal(commands)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(content)), strings.NewReader(string(content))
}

// restore restores commands on the leader.
func (c *cluster) restore(commands ...string) {
	c.t.Helper()
	size, content := encoded(c.t, commands...)
	if err := c.leader().Restore(within(c.t, 5*time.Second), size, content); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) allHold(commands ...string) {
	c.t.Helper()
	for _, r := range c.replicas {
		eventually(c.t, "state on "+r.name, func() bool { return r.fsm.holds(commands...) })
	}
}

func TestRestoreReachesEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("old 1", "old 2", "old 3")
		c.allHold("old 1", "old 2", "old 3")
		before := c.leader().LastIndex()
		c.restore("x", "y")
		if after := c.leader().LastIndex(); after <= before {
			t.Errorf("the last index went from %d to %d", before, after)
		}
		c.allHold("x", "y")
		c.apply("z")
		c.allHold("x", "y", "z")

		c.restore() // nothing, and twice in a row
		c.restore("p")
		c.apply("q")
		c.allHold("p", "q")

		// One is not there, and one comes for the first time.
		away := c.others(c.leader())[0]
		if err := away.Close(); err != nil {
			t.Fatal(err)
		}
		delete(c.replicas, away.name)
		c.apply("r")
		c.restore("new")
		c.apply("newer")
		c.replicas[away.name] = away
		c.start(away.name)
		joiner := c.start("c4")
		if err := c.leader().AddNonvoter(within(t, time.Second), joiner.ID(), joiner.Address()); err != nil {
			t.Fatal(err)
		}
		c.allHold("new", "newer")

		// It lasts.
		ids := map[string]string{}
		for name, r := range c.replicas {
			ids[name] = r.ID()
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for name, id := range ids {
			if r := c.start(name); r.ID() != id {
				t.Errorf("%s came back as %s", id, r.ID())
			}
		}
		c.apply("last")
		c.allHold("new", "newer", "last")
		for _, r := range c.replicas {
			select {
			case err := <-r.faults:
				t.Errorf("%s reported %v", r.name, err)
			default:
			}
		}
	})
}

func TestRestoreAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		c.apply("a")
		c.restore("x")
		c.apply("y")
		id := c.replicas["c1"].ID()
		if err := c.replicas["c1"].Close(); err != nil {
			t.Fatal(err)
		}
		if r := c.start("c1"); r.ID() != id {
			t.Errorf("%s came back as %s", id, r.ID())
		}
		c.apply("z")
		c.allHold("x", "y", "z")
	})
}

func TestRestoreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a")
		leader := c.leader()
		size, _ := encoded(t, "x")
		try := func(r *replica, ctx context.Context, size int64) error {
			_, content := encoded(t, "x")
			return r.Restore(ctx, size, content)
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		for what, test := range map[string]struct{ got, want error }{
			"by a follower":      {try(c.others(leader)[0], t.Context(), size), ErrNotLeader},
			"when it is short":   {try(leader, t.Context(), size+1), nil},
			"when it is long":    {try(leader, t.Context(), size-1), nil},
			"after it is wanted": {try(leader, canceled, size), context.Canceled},
		} {
			if test.got == nil || errors.Is(test.got, ErrUnknown) || test.want != nil && !errors.Is(test.got, test.want) {
				t.Errorf("restored %s: %v", what, test.got)
			}
		}
		c.apply("b")
		c.allHold("a", "b")
	})
}

// turnedFSM lets a test act while a leader takes a snapshot over.
type turnedFSM struct {
	*journal
	turn func()
}

func (f *turnedFSM) Restore(snapshot io.ReadCloser) error {
	f.turn()
	return f.journal.Restore(snapshot)
}

var _ raft.FSM = (*turnedFSM)(nil)

// A leader that took a state over, and lost its lead before the others had heard
// of it, would take the index of that state for known, and never see what its
// successor gave the same index to.
func TestALeaderThatRestoredAloneStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var cut func()
		c.adjust = func(o *Options) {
			o.FSM = &turnedFSM{o.FSM.(*journal), func() {
				if cut != nil {
					cut()
				}
			}}
		}
		c.form("c1", "c2", "c3")
		c.apply("a")
		old := c.leader()
		cut = func() { c.part(old) }
		size, content := encoded(t, "x")
		if err := old.Restore(within(t, 20*time.Second), size, content); !errors.Is(err, ErrUnknown) {
			t.Errorf("got %v", err)
		}
		cut = nil
		select {
		case err := <-old.faults:
			t.Log(err)
		case <-time.After(time.Second):
			t.Error("it goes on as if nothing had happened")
		}
		delete(c.replicas, old.name)
		c.apply("b", "c", "d")
		c.allHold("a", "b", "c", "d")

		c.net.heal()
		id := old.ID()
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		c.replicas[old.name] = old
		again := c.start(old.name)
		if again.ID() == id {
			t.Errorf("it came back as %s with %v", id, again.fsm.content())
		}
		leader := c.leader()
		if err := leader.Remove(within(t, time.Second), id); err != nil {
			t.Fatal(err)
		}
		if err := leader.AddNonvoter(within(t, time.Second), again.ID(), again.Address()); err != nil {
			t.Fatal(err)
		}
		c.allHold("a", "b", "c", "d")
	})
}
