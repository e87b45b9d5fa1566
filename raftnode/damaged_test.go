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
)

// damage flips a bit of the newest meta page of a replica that is closed.
func damage(t *testing.T, dir string) {
	t.Helper()
	path := databasePath(dir)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[boltHeaderBytes+20] ^= 4
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedReplicaRejoinsAsANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a")
		r := c.others(c.leader())[0]
		old, term := r.ID(), r.Term()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		damage(t, r.dir)
		r = c.start(r.name)
		if r.ID() == old || !strings.HasPrefix(r.ID(), r.name+"-") {
			t.Errorf("it was %s and is %s", old, r.ID())
		}
		if r.Formed() || r.Term() >= term && term > 0 && r.Stats().LastIndex > 0 {
			t.Errorf("it remembers %+v", r.Stats())
		}
		if err := r.MayBootstrap(); !errors.Is(err, ErrLostState) {
			t.Errorf("it may bootstrap: %v", err)
		}
		if kept := aside(t, r.dir); len(kept) != 1 || !exists(t, kept[0], databaseFile) || !exists(t, kept[0], snapshotsDir) ||
			!strings.Contains(readText(t, kept[0], reasonFile), "meta page 0") {
			t.Errorf("set aside: %v", kept)
		}

		leader := c.leader()
		if err := leader.Remove(within(t, time.Second), old); err != nil {
			t.Fatal(err)
		}
		if err := leader.AddNonvoter(within(t, time.Second), r.ID(), r.Address()); err != nil {
			t.Fatal(err)
		}
		if err := leader.Promote(within(t, time.Second), r.ID(), r.Address()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "state on it", func() bool { return r.fsm.holds("a") })

		// Afterwards it is a replica like any other.
		id := r.ID()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = c.start(r.name)
		if r.ID() != id || !r.Formed() {
			t.Errorf("it was %s and is %s", id, r.ID())
		}
	})
}

func TestDamagedReplicaFoundsNoCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		c.apply("a")
		r := c.replicas["c1"]
		if err := r.MayBootstrap(); err != nil {
			t.Errorf("before: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		damage(t, r.dir)
		for range 2 { // it does not forget that it forgot
			r = c.start("c1")
			err := r.Bootstrap([]Server{{ID: r.ID(), Address: r.Address(), Voter: true}})
			if err == nil || r.Formed() {
				t.Fatal("it founded a cluster")
			}
			if err := r.MayBootstrap(); !errors.Is(err, ErrLostState) || !strings.Contains(err.Error(), "emptying "+r.dir) {
				t.Errorf("may bootstrap: %v", err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		// Nor does it when its new store is deleted, but not the damaged one.
		for _, name := range []string{databaseFile, snapshotsDir} {
			if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		r = c.start("c1")
		if err := r.MayBootstrap(); !errors.Is(err, ErrLostState) {
			t.Errorf("with the damaged store beside it: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		// An empty directory is an empty directory.
		if err := os.RemoveAll(r.dir); err != nil {
			t.Fatal(err)
		}
		r = c.start("c1")
		if err := r.Bootstrap([]Server{{ID: r.ID(), Address: r.Address(), Voter: true}}); err != nil {
			t.Error(err)
		}
	})
}

func TestCondemnedReplicaIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		c.apply("a")
		r := c.replicas["c1"]
		old := r.ID()
		if err := Condemn(r.store.dir, "its digest differs"); err != nil {
			t.Fatal(err)
		}
		c.apply("b") // it runs on
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = c.start("c1")
		if r.ID() == old {
			t.Errorf("it is %s again", old)
		}
		if err := r.MayBootstrap(); err == nil || !strings.Contains(err.Error(), "condemned: its digest differs") {
			t.Errorf("may bootstrap: %v", err)
		}
		if exists(t, r.dir, condemnedFile) {
			t.Error("the new store is condemned as well")
		}
	})
}

// TestCrashWhileSettingAside crashes after each of the steps.
func TestCrashWhileSettingAside(t *testing.T) {
	all := stopped(t)
	before := view(t, all.in(t), nil)
	for name, crash := range map[string]func(t *testing.T, dir string){
		"condemned": func(t *testing.T, dir string) {},
		"database moved": func(t *testing.T, dir string) {
			if err := os.Rename(databasePath(dir), filepath.Join(dir, damagedPrefix+"1")); err != nil {
				t.Fatal(err)
			}
		},
		"all moved": func(t *testing.T, dir string) {
			for _, name := range []string{databaseFile, snapshotsDir} {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		},
		"new database begun": func(t *testing.T, dir string) {
			if err := os.Rename(databasePath(dir), databasePath(dir)+newSuffix); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := all.in(t)
			if err := Condemn(dir, "damaged"); err != nil {
				t.Fatal(err)
			}
			crash(t, dir)
			after := view(t, dir, func(s *store) {
				if err := s.mayFound(); !errors.Is(err, ErrLostState) {
					t.Errorf("it may found a cluster: %v", err)
				}
			})
			if after.id == before.id || len(after.entries) > 0 || len(after.state) > 0 {
				t.Errorf("it came back as %s with %d entries", after.id, len(after.entries))
			}
			if again := view(t, dir, nil); again.id != after.id {
				t.Errorf("it was %s and is %s", after.id, again.id)
			}
		})
	}
}

func TestNewestDamagedStoresAreKept(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	for range 5 {
		s, err := openStore(storeOptions(dir))
		if err != nil {
			t.Fatal(err)
		}
		id, err := identify(dir, "c1", s)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(ids, id) {
			t.Errorf("%s for the second time", id)
		}
		ids = append(ids, id)
		if err := errors.Join(s.Close(), Condemn(dir, "after "+id)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openStore(storeOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	kept := aside(t, dir)
	if len(kept) != keepDamaged {
		t.Fatalf("kept %v", kept)
	}
	for i, path := range kept {
		if want := "after " + ids[len(ids)-keepDamaged+i]; !strings.Contains(readText(t, path, reasonFile), want) {
			t.Errorf("%s says %q, want %q", path, readText(t, path, reasonFile), want)
		}
	}
	// The clock may have been set back: what was damaged last stays anyhow.
	last := filepath.Join(dir, damagedPrefix+"0000")
	for _, name := range []string{last, filepath.Join(dir, damagedPrefix+"9998")} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := forgetDamaged(dir, filepath.Base(last)); err != nil {
		t.Fatal(err)
	}
	if kept := aside(t, dir); len(kept) != keepDamaged || kept[0] != last {
		t.Errorf("kept %v", kept)
	}
}

func aside(t *testing.T, dir string) []string {
	t.Helper()
	names, err := damagedDirs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Join(dir, names[i])
	}
	return names
}

func exists(t *testing.T, dir, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func readText(t *testing.T, dir, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
