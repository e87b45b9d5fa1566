package raftnode

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// stop closes replicas and forgets them, but for what is returned.
func (c *cluster) stop(replicas ...*replica) {
	c.t.Helper()
	for _, r := range replicas {
		if err := r.Close(); err != nil {
			c.t.Fatal(err)
		}
		delete(c.replicas, r.name)
	}
}

// revive starts a replica that was stopped, with what it had.
func (c *cluster) revive(r *replica) *replica {
	c.t.Helper()
	c.replicas[r.name] = r
	return c.start(r.name)
}

// lost is a cluster of which all have stopped, after the one named last had gone
// before the others.
func lost(t *testing.T) (c *cluster, all []*replica) {
	c = formed(t, "c1", "c2", "c3")
	c.apply("a", "b")
	c.leader()
	for _, name := range []string{"c1", "c2", "c3"} {
		r := c.replicas[name]
		eventually(t, "state on "+name, func() bool { return r.fsm.holds("a", "b") })
		all = append(all, r)
	}
	c.stop(all[2])
	c.apply("c")
	c.allHold("a", "b", "c")
	c.stop(all[0], all[1])
	return c, all
}

func TestRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, all := lost(t)
		first, err := Inspect(all[0].dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		late, err := Inspect(all[2].dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if first.LastTerm < late.LastTerm || first.LastTerm == late.LastTerm && first.LastIndex <= late.LastIndex {
			t.Errorf("%+v is no further than %+v", first, late)
		}
		var servers []Server
		for _, r := range all {
			servers = append(servers, Server{r.ID(), r.Address(), true})
		}
		if first.ID != all[0].ID() || first.Term < first.LastTerm || !slices.Equal(first.Servers, servers) {
			t.Errorf("%s holds %+v", all[0].ID(), first)
		}

		fsm := &journal{}
		former, err := Recover(RecoverOptions{Dir: all[0].dir, Address: "c1:8012", FSM: fsm})
		if err != nil {
			t.Fatal(err)
		}
		if former.LastIndex != first.LastIndex || !slices.Equal(former.Servers, first.Servers) {
			t.Errorf("it was %+v, and is said to have been %+v", first, former)
		}
		if !fsm.holds("a", "b", "c") {
			t.Errorf("the FSM got %v", fsm.content())
		}
		now, err := Inspect(all[0].dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := servers[:1]; now.ID != first.ID || now.LastIndex != first.LastIndex || !slices.Equal(now.Servers, want) {
			t.Errorf("after the recovery: %+v", now)
		}

		alone := c.revive(all[0])
		c.apply("d")
		if !alone.fsm.holds("a", "b", "c", "d") {
			t.Errorf("it leads with %v", alone.fsm.content())
		}
		for _, name := range []string{"c2", "c3"} {
			r := c.start(name) // in an empty directory
			if err := c.leader().AddNonvoter(within(t, time.Second), r.ID(), r.Address()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "state on "+name, func() bool { return r.fsm.holds("a", "b", "c", "d") })
			if err := c.leader().Promote(within(t, time.Second), r.ID(), r.Address()); err != nil {
				t.Fatal(err)
			}
		}
		// The new ones have the recovery's line, and can do without its founder.
		c.stop(alone)
		c.apply("e")
		again := c.revive(alone)
		eventually(t, "state on c1", func() bool { return again.fsm.holds("a", "b", "c", "d", "e") })
		c.allHold("a", "b", "c", "d", "e")
	})
}

// The lost ones are a quorum of the cluster as it was, in which the recovered one
// is a member at the address that it still has. They would overrule it.
func TestThoseWhoWereLostCannotDisturbARecoveredCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, all := lost(t)
		if _, err := Recover(RecoverOptions{Dir: all[0].dir, Address: "c1:8012", FSM: &journal{}}); err != nil {
			t.Fatal(err)
		}
		alone := c.revive(all[0])
		c.apply("new")
		term := alone.Term()
		ghosts := []*replica{c.revive(all[1]), c.revive(all[2])}
		delete(c.replicas, alone.name)
		c.apply("from the grave") // they do lead what they know
		if err := c.leader().VerifyLeader(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if alone.Term() != term || !alone.fsm.holds("a", "b", "c", "new") {
			t.Errorf("the recovered replica is in term %d after %d, with %v", alone.Term(), term, alone.fsm.content())
		}
		if _, _, err := alone.Apply(within(t, time.Second), []byte("newer")); err != nil {
			t.Error(err)
		}

		// Adding one with its old state is in vain, and costs nobody anything.
		ghost := ghosts[1]
		if err := alone.AddNonvoter(within(t, time.Second), ghost.ID(), ghost.Address()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if slices.Contains(ghost.fsm.content(), "new") {
			t.Errorf("it has %v", ghost.fsm.content())
		}
		if alone.Term() != term {
			t.Errorf("the term went from %d to %d", term, alone.Term())
		}
		c.replicas[alone.name] = alone
	})
}

func TestRecoverAfterSnapshotsAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.adjust = func(o *Options) { o.Snapshots = Snapshots{Interval: time.Second, Threshold: 5, Trailing: 2} }
		c.form("c1", "c2", "c3")
		var commands []string
		for i := range 23 {
			commands = append(commands, string(rune('a'+i)))
			c.apply(commands[i])
			time.Sleep(300 * time.Millisecond)
		}
		c.allHold(commands...)
		all := c.others(nil)
		c.stop(all...)
		for i, address := range []string{"c1:8012", "elsewhere:8012", "c1:8012"} {
			former, err := Recover(RecoverOptions{Dir: all[0].dir, Address: address, FSM: &journal{}})
			if err != nil {
				t.Fatal(err)
			}
			if want := []int{3, 1, 1}[i]; len(former.Servers) != want {
				t.Errorf("recovery %d: it was %+v", i, former)
			}
			time.Sleep(time.Second) // the library names snapshots after the millisecond
		}
		alone := c.revive(all[0])
		c.apply("z")
		if !alone.fsm.holds(append(commands, "z")...) {
			t.Errorf("it leads with %v", alone.fsm.content())
		}
	})
}

func TestRecoverRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		fresh := c.start("c1")
		c.stop(fresh)
		c.form("c2")
		c.apply("a")
		running := c.replicas["c2"]
		c.form("c3")
		spoilt := c.replicas["c3"]
		c.stop(spoilt)
		write(t, spoilt.dir, databaseFile, "nonsense")
		empty := t.TempDir()

		for what, test := range map[string]struct {
			opts RecoverOptions
			want error
		}{
			"an empty directory":                 {RecoverOptions{Dir: empty, Address: "c1:8012", FSM: &journal{}}, ErrNoState},
			"no directory":                       {RecoverOptions{Dir: filepath.Join(empty, "none"), Address: "c1:8012", FSM: &journal{}}, ErrNoState},
			"a replica that never was a member":  {RecoverOptions{Dir: fresh.dir, Address: "c1:8012", FSM: &journal{}}, ErrNoState},
			"a replica that runs":                {RecoverOptions{Dir: running.dir, Address: "c2:8012", FSM: &journal{}}, nil},
			"a damaged one":                      {RecoverOptions{Dir: spoilt.dir, Address: "c3:8012", FSM: &journal{}}, nil},
			"to an address that nobody can dial": {RecoverOptions{Dir: fresh.dir, Address: "0.0.0.0:8012", FSM: &journal{}}, nil},
			"without an FSM":                     {RecoverOptions{Dir: fresh.dir, Address: "c1:8012"}, nil},
		} {
			if _, err := Recover(test.opts); err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("recovered %s: %v", what, err)
			} else {
				t.Logf("%s: %v", what, err)
			}
		}
		if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
			t.Errorf("an empty directory now holds %v, %v", left, err)
		}
		if content, err := os.ReadFile(filepath.Join(spoilt.dir, databaseFile)); err != nil || string(content) != "nonsense" {
			t.Errorf("the damaged store was touched: %v", err)
		}
		c.net.heal()
		if _, _, err := running.Apply(within(t, time.Second), []byte("b")); err != nil {
			t.Error(err)
		}
	})
}

// allHold waits until the FSM of each replica has had these commands, and no others.
func (c *cluster) allHold(commands ...string) {
	c.t.Helper()
	for _, r := range c.replicas {
		eventually(c.t, "state on "+r.name, func() bool { return r.fsm.holds(commands...) })
	}
}
