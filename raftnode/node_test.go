package raftnode

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestBootstrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		first, second := c.start("c1"), c.start("c2")
		if first.Formed() {
			t.Error("an empty replica claims to be formed")
		}
		if err := first.VerifyLeader(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("an empty replica verified that it leads: %v", err)
		}
		servers := []Server{{first.ID(), first.Address(), true}, {second.ID(), second.Address(), true}}
		if err := first.Bootstrap(servers); err != nil {
			t.Fatal(err)
		}
		c.apply("a")
		eventually(t, "second copy", func() bool { return second.fsm.holds("a") })
		for _, r := range []*replica{first, second} {
			if !r.Formed() || !slices.Equal(r.Servers(), servers) {
				t.Errorf("%s knows %v", r.name, r.Servers())
			}
			if err := r.Bootstrap(servers); !errors.Is(err, ErrFormed) {
				t.Errorf("%s bootstrapped again: %v", r.name, err)
			}
		}
	})
}

func TestLeaderClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a", "b")
		old := c.leader()
		term := old.Term()
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}

		closed := time.Now()
		c.apply("c")
		if took := time.Since(closed); took > 5*time.Second {
			t.Errorf("a new leader took %v", took)
		}
		if next := c.leader(); next == old || next.Term() <= term {
			t.Errorf("%s leads in term %d after %s in term %d", next.name, next.Term(), old.name, term)
		}
		for _, r := range c.others(old) {
			eventually(t, "state on "+r.name, func() bool { return r.fsm.holds("a", "b", "c") })
		}
	})
}

func TestRestartKeepsIDAndData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a")
		ids := map[string]string{}
		for name, r := range c.replicas {
			ids[name] = r.ID()
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for name, id := range ids {
			r := c.start(name)
			if r.ID() != id || !strings.HasPrefix(id, name+"-") {
				t.Errorf("%s was %s and is %s", name, id, r.ID())
			}
			if !r.Formed() {
				t.Errorf("%s forgot its cluster", name)
			}
		}
		c.apply("b")
		for _, r := range c.replicas {
			eventually(t, "state on "+r.name, func() bool { return r.fsm.holds("a", "b") })
		}
	})
}

func TestWipedDirectoryIsANewReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a")
		wiped := c.others(c.leader())[0]
		old := wiped.ID()
		if err := wiped.Close(); err != nil {
			t.Fatal(err)
		}
		delete(c.replicas, wiped.name) // forgets its directory, too
		wiped = c.start(wiped.name)
		if wiped.ID() == old {
			t.Errorf("it is %s again", old)
		}
		if wiped.Formed() {
			t.Error("it knows of a cluster")
		}

		leader := c.leader()
		err := leader.AddNonvoter(within(t, time.Second), wiped.ID(), wiped.Address())
		if !errors.Is(err, ErrAddressTaken) || !strings.Contains(err.Error(), old) {
			t.Errorf("adding it beside its former self: %v", err)
		}
		if err := leader.Remove(within(t, time.Second), old); err != nil {
			t.Fatal(err)
		}
		if err := leader.AddNonvoter(within(t, time.Second), wiped.ID(), wiped.Address()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "state on it", func() bool { return wiped.fsm.holds("a") })
	})
}

func TestOpenRefuses(t *testing.T) {
	for name, test := range map[string]struct{ name, want string }{
		"a directory of another replica": {name: "c2", want: "not to one named \"c2\""},
		"a directory of a longer name":   {name: "c", want: "not to one named \"c\""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := formed(t, "c1")
				c.apply("a")
				r := c.replicas["c1"]
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				opts := c.options(r)
				opts.Name = test.name
				for range 2 { // the second shows that the first let go of the lock
					if _, err := Open(opts); err == nil || !strings.Contains(err.Error(), test.want) {
						t.Errorf("got %v, want an error with %q", err, test.want)
					}
				}
			})
		})
	}
}

func TestOpenAfterCrashBeforeID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		dir := t.TempDir()
		store, err := openStore(Options{Dir: dir, Snapshots: Snapshots{Retain: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		c.replicas["c1"] = &replica{dir: dir}
		c.start("c1")
	})
}

func TestDirectoryInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		r := c.start("c1")
		_, err := Open(c.options(r))
		if err == nil || !strings.Contains(err.Error(), "raft.db is in use by another process") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenWithout(t *testing.T) {
	for name, opts := range map[string]Options{
		"name":   {Dir: "d", FSM: &journal{}, Stream: newMemNet().listen("c1:1")},
		"data":   {Name: "c1", FSM: &journal{}, Stream: newMemNet().listen("c1:1")},
		"FSM":    {Name: "c1", Dir: "d", Stream: newMemNet().listen("c1:1")},
		"stream": {Name: "c1", Dir: "d", FSM: &journal{}},
	} {
		if _, err := Open(opts); err == nil || !strings.Contains(err.Error(), "no "+name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestSnapshotBringsNewReplicaUpToDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.adjust = func(o *Options) {
			o.Snapshots = Snapshots{Interval: time.Second, Threshold: 10, Trailing: 1}
		}
		first := c.start("c1")
		if err := first.Bootstrap([]Server{{first.ID(), first.Address(), true}}); err != nil {
			t.Fatal(err)
		}
		var commands []string
		for i := range 30 {
			commands = append(commands, string(rune('a'+i)))
		}
		c.apply(commands...)
		eventually(t, "snapshot", func() bool {
			oldest, err := first.store.FirstIndex()
			return err == nil && oldest > 10
		})

		second := c.start("c2")
		if err := first.AddNonvoter(within(t, time.Second), second.ID(), second.Address()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "state on c2", func() bool { return second.fsm.holds(commands...) })
		if second.fsm.restored != 1 {
			t.Errorf("c2 restored %d snapshots", second.fsm.restored)
		}

		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		first = c.start("c1")
		c.apply("z")
		if !first.fsm.holds(append(commands, "z")...) || first.fsm.restored != 1 {
			t.Errorf("c1 came back with %v from %d snapshots", first.fsm.content(), first.fsm.restored)
		}
	})
}

func TestUnfinishedSnapshotIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		r := c.start("c1")
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		unfinished := filepath.Join(r.dir, snapshotsDir, "1-2-3.tmp")
		if err := os.Mkdir(unfinished, 0o700); err != nil {
			t.Fatal(err)
		}
		c.start("c1")
		if _, err := os.Stat(unfinished); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", unfinished, err)
		}
	})
}

func TestFaultIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a")
		failing := c.leader()
		failing.disk.broken.Store(true)

		_, _, err := failing.Apply(within(t, time.Second), []byte("lost?"))
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, errDisk) {
			t.Errorf("apply on a broken disk: %v", err)
		}
		select {
		case err := <-failing.faults:
			if !errors.Is(err, errDisk) || !strings.Contains(err.Error(), failing.dir) {
				t.Errorf("reported %v", err)
			}
		default:
			t.Fatal("the fault was not reported")
		}

		eventually(t, "leader with a sound disk", func() bool {
			leader := c.leader()
			_, _, err := leader.Apply(within(t, time.Second), []byte("b"))
			return leader != failing && err == nil
		})
		time.Sleep(time.Minute) // the broken replica is sent "b" again and again
		if more := len(failing.faults); more > 0 {
			t.Errorf("the fault was reported %d times more", more)
		}
		for _, r := range c.others(failing) {
			if len(r.faults) > 0 {
				t.Errorf("%s reported %v", r.name, <-r.faults)
			}
		}
	})
}

func TestSnapshotFaultIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		c.apply("a")
		r := c.replicas["c1"]
		if err := os.RemoveAll(filepath.Join(r.dir, snapshotsDir)); err != nil {
			t.Fatal(err)
		}
		write(t, r.dir, snapshotsDir, "a file where a directory should be")
		if err := r.raft.Snapshot().Error(); err == nil {
			t.Error("the snapshot succeeded")
		}
		select {
		case err := <-r.faults:
			if !strings.Contains(err.Error(), "create a snapshot") {
				t.Errorf("reported %v", err)
			}
		default:
			t.Error("the fault was not reported")
		}
	})
}

func TestFaultPanicsByDefault(t *testing.T) {
	opts, err := Options{Name: "c1", Dir: t.TempDir(), FSM: &journal{}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p, ok := recover().(error); !ok || !errors.Is(p, errDisk) {
			t.Errorf("recovered %v", p)
		}
	}()
	opts.OnFault(errDisk)
}

func TestMissingEntriesAreNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCluster(t).start("c1")
		if err := r.store.GetLog(99, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("got %v", err)
		}
		if _, err := r.store.Get([]byte("none")); err == nil || err.Error() != "not found" { // raft compares the text
			t.Errorf("got %v", err)
		}
		if len(r.faults) > 0 {
			t.Errorf("reported %v", <-r.faults)
		}
	})
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
