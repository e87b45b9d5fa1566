package fsm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/orrery-project/orrery/proto/logpb"
)

// checked is a log with a digest at index at and, at the end, its check.
func checked(t testing.TB) (l *log, at uint64) {
	l = raised(t)
	at = l.ok(&logpb.TakeDigest{}).GetIndex()
	_, _, digest := l.ok(register("w1", "i1")), l.ok(register("w2", "i1")), ""
	before := New()
	for i := range at {
		if result, err := before.Apply(i+1, l.cmds[i]); err != nil {
			t.Fatal(err)
		} else {
			digest = result.GetDigest()
		}
	}
	l.ok(&logpb.CheckDigest{Index: at, Digest: strings.ToUpper(digest)})
	return l, at
}

func TestAReplicaThatDivergedStops(t *testing.T) {
	l, at := checked(t)
	var faults []error
	r := NewReplica(Options{OnFault: func(err error) { faults = append(faults, err) }})
	follow(t, r, &log{index: at - 1, cmds: l.cmds}, 1)
	r.state.lastModelID++ // what a fault of the memory or of the code has done
	results := follow(t, r, l, at)
	own, _ := r.DigestAt(at)
	theirs := l.cmds[l.index-1].GetCheckDigest().GetDigest()

	err, _ := results[len(results)-1].(error)
	if !errors.Is(err, ErrDiverged) || len(faults) != 1 || faults[0] != err {
		t.Fatalf("got %v, faults %v", err, faults)
	}
	for _, words := range []string{"at index 3", own, theirs, "data directory"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%v does not say %q", err, words)
		}
	}
	if got := r.WaitIndex(t.Context(), l.index); !errors.Is(got, ErrDiverged) {
		t.Errorf("wait: %v", got)
	}
	if _, got := r.WriteSnapshot(io.Discard); !errors.Is(got, ErrDiverged) {
		t.Errorf("snapshot: %v", got)
	}
}

func TestAReplicaThatAgreesGoesOn(t *testing.T) {
	l, at := checked(t)
	last := l.cmds[l.index-1]
	l.apply(last) // a duplicate is compared again
	wrong := l.command(&logpb.CheckDigest{Index: at, Digest: "short"})
	equal(t, "reason", l.apply(wrong).GetReason(), logpb.Reason_REASON_INVALID)

	for name, r := range map[string]*Replica{"from the log": NewReplica(Options{}), "after a restart": NewReplica(Options{})} {
		for _, result := range follow(t, r, l, 1) {
			if err, ok := result.(error); ok {
				t.Errorf("%s: %v", name, err)
			}
		}
	}

	// One that has not taken the digest itself can't compare: its state here differs and it does not know.
	source := NewReplica(Options{})
	follow(t, source, &log{index: at, cmds: l.cmds}, 1)
	source.state.lastModelID++
	var data bytes.Buffer
	index, err := source.WriteSnapshot(&data)
	if err != nil || index != at {
		t.Fatal(index, err)
	}
	restored := NewReplica(Options{})
	if err := restored.Restore(io.NopCloser(&data)); err != nil {
		t.Fatal(err)
	}
	for _, result := range follow(t, restored, l, at+1) {
		if err, ok := result.(error); ok {
			t.Error(err)
		}
	}
	equal(t, "index", restored.Index(), l.index)
}

// A digest takes long, so it is computed while readers go on; but who waits for its index gets it.
func TestADigestIsThereWhenItsIndexIs(t *testing.T) {
	l := newCluster(t)
	r := NewReplica(Options{})
	follow(t, r, l, 1)
	for range 100 {
		index := l.ok(&logpb.TakeDigest{}).GetIndex()
		done := make(chan bool)
		go func() {
			if err := r.WaitIndex(t.Context(), index); err != nil {
				t.Error(err)
			}
			_, ok := r.DigestAt(index)
			done <- ok
		}()
		follow(t, r, l, index)
		if !<-done {
			t.Fatalf("index %d was reached without its digest", index)
		}
	}
}
