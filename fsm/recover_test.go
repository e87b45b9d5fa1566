package fsm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// recovered lets the library rebuild a cluster from a replica's stores, and returns the snapshot that it makes.
func recovered(t *testing.T, snapshot []byte, at uint64, entries []*raft.Log) (*State, error) {
	t.Helper()
	logs, stable, snapshots := raft.NewInmemStore(), raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	_, transport := raft.NewInmemTransport("a")
	servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	if snapshot != nil {
		sink, err := snapshots.Create(1, at, 3, servers, 1, transport)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write(snapshot); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		e.Term = 3
		if err := logs.StoreLog(e); err != nil {
			t.Fatal(err)
		}
	}
	config := raft.DefaultConfig()
	config.LocalID, config.Logger = "a", hclog.NewNullLogger()
	if err := raft.RecoverCluster(config, NewRecoverer(), logs, stable, snapshots, transport, servers); err != nil {
		return nil, err
	}
	list, err := snapshots.List()
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	_, content, err := snapshots.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	return Restore(bytes.NewReader(data))
}

func TestARecoveredClusterHasAHigherEpoch(t *testing.T) {
	l := serving(t)
	at := l.index
	snapshot := encoded(t, l.state.Snapshot())
	l.ok(register("w3", "i1"))
	var entries []*raft.Log
	for i := at + 1; i <= l.index; i++ {
		entries = append(entries, entry(t, i, l.cmds[i-1]))
	}
	s, err := recovered(t, snapshot, at, entries)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "epoch", s.Cluster().GetEpoch(), uint64(1+lostEpochs))
	equal(t, "last id", s.LastModelID(), uint64(1+lostModelIDs))
	want := records(l.state)
	want.LastModelId += lostModelIDs
	want.Cluster = s.Cluster()
	equal(t, "the rest", records(s), want)
	equal(t, "requests", s.canonical().Remembered, l.state.canonical().Remembered)
	equal(t, "index", s.Index(), l.index)
	equal(t, "epoch of the old state", l.state.Cluster().GetEpoch(), uint64(1))
}

func TestARecoveryFromALogThatCannotBeAppliedFails(t *testing.T) {
	l := serving(t)
	_, err := recovered(t, encoded(t, l.state.Snapshot()), l.index, []*raft.Log{{Index: l.index + 1, Data: []byte{0xff}}})
	if err == nil || !strings.Contains(err.Error(), "apply log entry 9") {
		t.Errorf("got %v", err)
	}
	var fault error
	r := NewRecoverer()
	fault, _ = r.Apply(&raft.Log{Index: 1, Data: []byte{0xff}}).(error)
	if _, err := r.Snapshot(); err == nil || !errors.Is(err, fault) {
		t.Errorf("got %v, want %v", err, fault)
	}
}

func TestARecoveryBeforeTheClusterHasANameLeavesItToBeNamed(t *testing.T) {
	l := newLog(t)
	l.do(register("w1", "i1")) // refused
	s, err := recovered(t, nil, 0, []*raft.Log{entry(t, 1, l.cmds[0])})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "cluster", s.Cluster().GetEpoch(), uint64(0))
	equal(t, "digest", s.Digest(), l.state.Digest())
}
