package fsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// follow gives a replica what a log has applied so far, from an index.
func follow(t testing.TB, r *Replica, l *log, from uint64) []any {
	t.Helper()
	var results []any
	for i := from; i <= l.index; i++ {
		results = append(results, r.Apply(entry(t, i, l.cmds[i-1])))
	}
	return results
}

func entry(t testing.TB, index uint64, cmd *logpb.Command) *raft.Log {
	t.Helper()
	data, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Data: data}
}

func TestReplicaAppliesEntries(t *testing.T) {
	l := serving(t)
	r := NewReplica(Options{})
	for i, result := range follow(t, r, l, 1) {
		if got := result.(*logpb.Result); got.GetReason() != logpb.Reason_REASON_NONE || got.GetIndex() != uint64(i+1) {
			t.Errorf("entry %d: %v", i+1, got)
		}
	}
	equal(t, "index", r.Index(), l.index)
	r.Read(func(s *State) { equal(t, "digest", s.Digest(), l.state.Digest()) })
}

func TestReplicaStopsAtAFault(t *testing.T) {
	for name, bad := range map[string]*raft.Log{
		"unknown command": entry(t, 2, &logpb.Command{RequestId: "x"}),
		"garbage":         {Index: 2, Data: []byte{0xff}},
		"old index":       entry(t, 1, command(&logpb.TakeDigest{})),
	} {
		t.Run(name, func(t *testing.T) {
			var faults []error
			r := NewReplica(Options{OnFault: func(err error) { faults = append(faults, err) }})
			l := newCluster(t)
			follow(t, r, l, 1)
			err, _ := r.Apply(bad).(error)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("entry %d", bad.Index)) {
				t.Fatalf("got %v", err)
			}
			l.ok(register("w1", "i1"))
			for _, result := range follow(t, r, l, 2) {
				equal(t, "later entries get the same", result == err, true)
			}
			equal(t, "faults", len(faults), 1)
			equal(t, "index", r.Index(), uint64(1))
			if _, got := r.Snapshot(); got != err {
				t.Errorf("snapshot: %v", got)
			}
			if got := r.WaitIndex(t.Context(), 2); !errors.Is(got, err) {
				t.Errorf("wait: %v", got)
			}
		})
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic without OnFault")
		}
	}()
	NewReplica(Options{}).Apply(&raft.Log{Index: 1, Data: []byte{0xff}})
}

// sink is a raft.SnapshotSink in memory that fails when limit bytes are written.
type sink struct {
	bytes.Buffer
	limit             int
	closed, cancelled bool
}

var errSink = errors.New("disk full")

func (s *sink) Write(p []byte) (int, error) {
	if s.Len()+len(p) > s.limit {
		return 0, errSink
	}
	return s.Buffer.Write(p)
}
func (s *sink) ID() string    { return "test" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func TestReplicaSnapshotAndRestore(t *testing.T) {
	l := serving(t)
	r := NewReplica(Options{})
	follow(t, r, l, 1)
	snapshot, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	at, digest := l.index, l.state.Digest()
	l.ok(register("w1", "i2"))
	l.ok(&logpb.TakeDigest{})
	follow(t, r, l, at+1)

	full := &sink{limit: 100}
	if err := snapshot.Persist(full); !errors.Is(err, errSink) || !full.cancelled || full.closed {
		t.Errorf("%v, cancelled %v, closed %v", err, full.cancelled, full.closed)
	}
	good := &sink{limit: 1 << 20}
	if err := snapshot.Persist(good); err != nil || !good.closed || good.cancelled {
		t.Fatalf("%v, cancelled %v, closed %v", err, good.cancelled, good.closed)
	}
	snapshot.Release()

	other := NewReplica(Options{})
	follow(t, other, newCluster(t), 1)
	changed := other.Changed(Cluster)
	if err := other.Restore(io.NopCloser(bytes.NewReader(good.Bytes()[1:]))); !errors.Is(err, ErrBadSnapshot) {
		t.Fatal(err)
	}
	equal(t, "index after a bad snapshot", other.Index(), uint64(1))
	if err := other.Restore(io.NopCloser(&good.Buffer)); err != nil {
		t.Fatal(err)
	}
	<-changed
	equal(t, "index", other.Index(), at)
	other.Read(func(s *State) { equal(t, "digest", s.Digest(), digest) })
	follow(t, other, l, at+1)
	theirs, _ := r.DigestAt(l.index)
	ours, ok := other.DigestAt(l.index)
	if !ok || ours != theirs {
		t.Errorf("digest %s, want %s", ours, theirs)
	}
}

func TestReplicaKeepsTheLastDigests(t *testing.T) {
	l := newCluster(t)
	r := NewReplica(Options{})
	for range digestsKept + 1 {
		l.ok(&logpb.TakeDigest{})
	}
	follow(t, r, l, 1)
	if _, ok := r.DigestAt(2); ok {
		t.Error("the first is still there")
	}
	for i := uint64(3); i <= l.index; i++ {
		if _, ok := r.DigestAt(i); !ok {
			t.Errorf("no digest at %d", i)
		}
	}
	if _, ok := r.DigestAt(1); ok {
		t.Error("a digest of another command")
	}
}

func TestReplicaWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serving(t)
		r := NewReplica(Options{})
		var reached uint64
		var done sync.WaitGroup
		done.Go(func() {
			if err := r.WaitIndex(t.Context(), 3); err != nil {
				t.Error(err)
			}
			reached = r.Index()
		})
		for i := uint64(1); i <= 4; i++ {
			synctest.Wait()
			changed := r.Changed(All)
			r.Apply(entry(t, i, l.cmds[i-1]))
			<-changed
		}
		done.Wait()
		equal(t, "index at the end of the wait", reached, uint64(3))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.WaitIndex(ctx, 99); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "99, at 4") {
			t.Errorf("got %v", err)
		}
	})
}

// With the race detector: readers, a snapshot being written and entries being applied.
func TestReplicaIsSafeForConcurrentUse(t *testing.T) {
	l := serving(t)
	for range 200 {
		l.ok(register("w1", "i1"))
		l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(1, "w1", "i1", digestA)}})
	}
	r := NewReplica(Options{})
	follow(t, r, &log{index: 5, cmds: l.cmds}, 1)
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for r.Index() < l.index {
				var kept []*logpb.Holding
				r.Read(func(s *State) { s.Pending(); s.Resolve("m", ""); kept = s.Holdings(1) })
				for _, h := range kept {
					_ = proto.Size(h)
				}
				snapshot, err := r.Snapshot()
				if err != nil {
					t.Error(err)
					return
				}
				if err := snapshot.Persist(&sink{limit: 1 << 20}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	follow(t, r, l, 6)
	readers.Wait()
}
