package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/orrery-project/orrery/proto/logpb"
)

// copied is the state as a file would bring it back.
func copied(t testing.TB, s *State) *State {
	t.Helper()
	again, err := Restore(bytes.NewReader(encoded(t, s.Snapshot())))
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func succeed(t testing.TB, snapshot, current *State, replace bool) *State {
	t.Helper()
	n, err := snapshot.succeed(current, replace)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := build(n.canonical(), Version); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestARestoredSnapshotTakesWishesFromThePastAndFactsFromThePresent(t *testing.T) {
	l := serving(t)
	l.ok(&logpb.RaiseVersion{To: 5})
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{Policy: "edf", LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	l.ok(&logpb.LoadModel{Name: "slow", Source: "b.onnx"}) // which no worker has loaded yet
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "cpu", 5)}})
	snapshot := copied(t, l.state)

	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(2, "w2", "i1", digestB)}})
	l.ok(register("w1", "i2"))
	l.ok(register("w3", "i1"))
	l.ok(&logpb.UnloadModel{Name: "m"})
	l.ok(&logpb.LoadModel{Name: "m", Source: "wrong.onnx"})
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(3, "w2", "i1", digestA)}})
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{Policy: "fifo"}})
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "cpu", 7), profile(digestA, "gpu", 2)}})
	l.ok(&logpb.RaiseEpoch{To: 4})
	past, present := proto.CloneOf(snapshot.canonical()), proto.CloneOf(l.state.canonical())

	n := succeed(t, snapshot, l.state, false)
	want := &logpb.Cluster{Id: "c-1", Epoch: 5, Version: 5, Phase: logpb.Phase_PHASE_SERVING, Settings: past.Cluster.Settings}
	equal(t, "cluster", n.Cluster(), want)
	slow := proto.CloneOf(past.Models[1])
	slow.Info, slow.Engine = present.Models[0].Info, "gomlx"
	equal(t, "models", n.Models(), []*logpb.Model{past.Models[0], slow})
	equal(t, "workers", n.Workers(), present.Workers)
	equal(t, "holdings of what has been unloaded", len(n.Holdings(1)), 0)
	equal(t, "holdings of what is still there", n.Holdings(2), l.state.Holdings(2))
	equal(t, "profiles", n.canonical().Profiles, present.Profiles)
	equal(t, "last id", n.LastModelID(), uint64(3))
	equal(t, "index", n.Index(), l.state.Index())
	equal(t, "time", n.Now(), l.state.Now())
	equal(t, "changed parts", n.takeChanged(), Part(0))
	equal(t, "the snapshot as before", snapshot.canonical(), past)
	equal(t, "the present as before", l.state.canonical(), present)

	l.state = copied(t, n)
	if ids := l.ok(&logpb.LoadModel{Name: "next", Source: "c.onnx"}).GetModelIds(); ids[0] != 4 {
		t.Errorf("ids %d, want 4", ids)
	}
}

func TestRequestsAcrossARestore(t *testing.T) {
	l := serving(t)
	// The clock of a leader was hours ahead: that must not make what comes too old.
	ahead := l.command(&logpb.RaiseEpoch{To: 2})
	ahead.ProposedUnixNs += int64(3 * time.Hour)
	l.apply(ahead)
	kept := l.command(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	first := proto.CloneOf(l.apply(proto.CloneOf(kept)))
	snapshot := copied(t, l.state)
	lost := l.command(&logpb.UnloadModel{Name: "m"})
	l.apply(proto.CloneOf(lost))
	next := l.command(&logpb.UnloadModel{Name: "m"}) // made before the restore, proposed after it

	l.state = succeed(t, snapshot, l.state, false)
	equal(t, "whose effect is in the snapshot", l.apply(kept), first)
	result := l.apply(lost)
	if result.GetReason() != logpb.Reason_REASON_TOO_OLD || !strings.Contains(result.GetMessage(), "restored") {
		t.Errorf("whose effect is gone: %v", result)
	}
	equal(t, "models", len(l.state.Models()), 1)
	equal(t, "that had none yet", l.apply(next).GetReason(), logpb.Reason_REASON_NONE)
}

func TestTheTableOfRequestsStaysSmallAcrossARestore(t *testing.T) {
	many := func(prefix string) *State {
		s := newCluster(t).state
		for i := range requestMaxCount - 1 {
			s.requests.put(&logpb.Remembered{RequestId: prefix + string(rune('a'+i%26)) + time.Duration(i).String(), RequestedUnixNs: start + int64(i), Result: &logpb.Result{Index: 1}})
		}
		return s
	}
	n := succeed(t, many("p"), many("c"), false)
	equal(t, "requests", len(n.requests.rows), requestMaxCount)
	equal(t, "ids", len(n.requests.byID), requestMaxCount)
	if n.requests.forgotten < start+requestMaxCount-2 {
		t.Errorf("forgotten up to %d", n.requests.forgotten-start)
	}
}

func TestASnapshotOfAnotherClusterIsRefusedUnlessItReplacesThisOne(t *testing.T) {
	l := serving(t)
	snapshot := copied(t, l.state)
	other := newLog(t)
	other.ok(&logpb.InitCluster{ClusterId: "c-2"})
	other.ok(register("w9", "i1"))
	other.ok(&logpb.LoadModel{Name: "x", Source: "x.onnx"})
	other.now += int64(time.Hour)
	late := other.command(&logpb.UnloadModel{Name: "m"})
	other.ok(&logpb.RaiseEpoch{To: 3})

	for name, current := range map[string]*State{"another": other.state, "a new one": New()} {
		if _, err := snapshot.succeed(current, false); !errors.Is(err, errForeign) || !strings.Contains(err.Error(), `"c-1"`) {
			t.Errorf("%s: %v", name, err)
		}
		n := succeed(t, snapshot, current, true)
		equal(t, "id", n.Cluster().GetId(), "c-1")
		equal(t, "workers", names(n.Workers()), "w1 w2")
		equal(t, "models", n.Models(), snapshot.Models())
		equal(t, "holdings", len(n.Holdings(1)), 0)
		if n.Cluster().GetEpoch() <= 3+lostEpochs-2 || n.LastModelID() < lostModelIDs {
			t.Errorf("epoch %d, last id %d: too near to what may have been given", n.Cluster().GetEpoch(), n.LastModelID())
		}
	}

	n := succeed(t, snapshot, other.state, true)
	equal(t, "index", n.Index(), other.state.Index())
	other.state = n
	equal(t, "a request from before", other.apply(late).GetReason(), logpb.Reason_REASON_TOO_OLD)
	other.ok(&logpb.UnloadModel{Name: "m"})
}

func TestWhatCannotSucceed(t *testing.T) {
	current := newCluster(t)
	if _, err := New().succeed(current.state, true); err == nil || !strings.Contains(err.Error(), "not bootstrapped") {
		t.Errorf("nothing in the snapshot: %v", err)
	}
	equal(t, "version", succeed(t, current.state, raised(t).state, false).Cluster().GetVersion(), uint32(Version))
}

func TestRestoreIsACommand(t *testing.T) {
	l := serving(t)
	snapshot := encoded(t, l.state.Snapshot())
	before := l.state.LastModelID()
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	l.ok(&logpb.LoadModel{Name: "later", Source: "later.onnx"})
	epoch := l.state.Cluster().GetEpoch()

	cmd := l.command(&logpb.RestoreState{Snapshot: snapshot})
	result := l.apply(cmd)
	equal(t, "reason", result.GetReason(), logpb.Reason_REASON_NONE)
	equal(t, "epoch", l.state.Cluster().GetEpoch(), epoch+1)
	if l.state.Resolve("later", "") != nil || l.state.LastModelID() <= before {
		t.Errorf("the later model is there, or its id will be given again (%d)", l.state.LastModelID())
	}
	equal(t, "index", l.state.Index(), result.GetIndex())
	// A retry restores nothing a second time.
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	equal(t, "retry", l.apply(cmd), result)
	equal(t, "epoch after the retry", l.state.Cluster().GetEpoch(), epoch+1)

	damaged := bytes.Clone(snapshot)
	damaged[len(damaged)/2] ^= 1
	l.refused(&logpb.RestoreState{Snapshot: damaged}, logpb.Reason_REASON_INVALID, "damaged")
	l.refused(&logpb.RestoreState{}, logpb.Reason_REASON_INVALID, "damaged")
	foreign := newCluster(t)
	foreign.state.changeCluster(func(c *logpb.Cluster) { c.Id = "c-9" })
	file := encoded(t, foreign.state.Snapshot())
	l.refused(&logpb.RestoreState{Snapshot: file}, logpb.Reason_REASON_CONFLICT, `"c-9"`, `"c-1"`)
	l.ok(&logpb.RestoreState{Snapshot: file, ReplaceCluster: true})
	equal(t, "cluster", l.state.Cluster().GetId(), "c-9")
	newer := newCluster(t)
	newer.refused(&logpb.RestoreState{Snapshot: encoded(t, raised(t).state.Snapshot())}, logpb.Reason_REASON_VERSION, fmt.Sprint("version ", Version), "at 1")
}

// Whatever was done before and after a snapshot: nothing that had an effect has a second one once it is restored, ids
// are not given again, and replicas that get the restored state by a file agree with the one that made it.
func TestNothingHappensTwiceAcrossARestore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cmds := stream(60).Draw(t, "stream")
		cut := rapid.IntRange(1, len(cmds)).Draw(t, "cut")
		current := New()
		var snapshot *State
		var done []*logpb.Command
		for i, cmd := range cmds {
			applyTo(t, current, i, cmd)
			if current.requests.first(cmd.GetRequestId()) != nil {
				done = append(done, cmd)
			}
			if i+1 == cut {
				snapshot = roundTrip(t, current)
			}
		}
		n, err := snapshot.succeed(current, false)
		if err != nil {
			t.Fatal(err)
		}
		checkReferences(t, n)
		if n.Cluster().GetEpoch() <= current.Cluster().GetEpoch() || n.LastModelID() < current.LastModelID() ||
			n.Now() < current.Now() || n.Index() != current.Index() {
			t.Fatalf("something went back: %v after %v", n.canonical(), current.canonical())
		}
		for _, m := range n.Models() {
			if m.GetInfo() == nil && n.loaded(m.GetId()) {
				t.Fatalf("%v is loaded and nobody knows what it is", m)
			}
		}
		follower := roundTrip(t, n)
		before := records(n)
		for i, cmd := range done {
			result := applyTo(t, n, len(cmds)+i, cmd)
			same(t, "follower", applyTo(t, follower, len(cmds)+i, cmd), result)
			same(t, "state", records(n), before)
		}
		for i, cmd := range stream(30).Draw(t, "afterwards") {
			cmd.RequestId = "after-" + cmd.GetRequestId()
			index := len(cmds) + len(done) + i
			same(t, "follower", applyTo(t, follower, index, cmd), applyTo(t, n, index, cmd))
		}
		if follower.Digest() != n.Digest() {
			t.Fatalf("follower: %v\nleader: %v", follower.canonical(), n.canonical())
		}
	})
}
