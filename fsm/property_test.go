package fsm

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Invariant I9: whether a replica applied the whole log, started again from a snapshot in the middle of it, or got the
// log as bytes, its state and its results are the same.
func TestReplaySnapshotAndLiveStateAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cmds := stream(80).Draw(t, "stream")
		cut := rapid.IntRange(0, len(cmds)).Draw(t, "cut")
		live, replayed := New(), New()
		var restored *State
		for i := range len(cmds) + 1 {
			if i == cut {
				restored = roundTrip(t, live)
			}
			if i == len(cmds) {
				break
			}
			want := applyTo(t, live, i, cmds[i])
			same(t, "replayed", applyTo(t, replayed, i, decoded(t, cmds[i])), want)
			if restored != nil {
				same(t, "restored", applyTo(t, restored, i, cmds[i]), want)
			}
		}
		for what, s := range map[string]*State{"replayed": replayed, "restored": restored, "restored at the end": roundTrip(t, live)} {
			if s.Digest() != live.Digest() {
				t.Errorf("%s: %v\nlive: %v", what, s.canonical(), live.canonical())
			}
			if s.Index() != live.Index() || !maps.EqualFunc(s.versions, live.versions, slices.Equal[[]uint64]) {
				t.Errorf("%s: index %d, versions %v; live: %d, %v", what, s.Index(), s.versions, live.Index(), live.versions)
			}
		}
	})
}

// A snapshot or a reader holds records while more commands are applied.
func TestStoredRecordsAreNeverModified(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type pair struct{ stored, copied proto.Message }
		var seen []pair
		known := map[proto.Message]bool{}
		s := New()
		for i, cmd := range stream(60).Draw(t, "stream") {
			given := proto.CloneOf(cmd)
			applyTo(t, s, i, given)
			same(t, "command", given, cmd)
			for record := range all(s) {
				if !known[record] {
					known[record] = true
					seen = append(seen, pair{record, proto.Clone(record)})
				}
			}
			proto.Reset(given) // what the caller does with a command afterwards is the caller's business
		}
		for _, p := range seen {
			same(t, "record", p.stored, p.copied)
		}
	})
}

func TestInvariantsHoldAfterEveryCommand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		var now, forgotten int64
		var lastID uint64
		for i, cmd := range stream(60).Draw(t, "stream") {
			fresh := s.requests.first(cmd.GetRequestId()) == nil
			result := applyTo(t, s, i, cmd)
			if fresh && result.GetIndex() != uint64(i+1) {
				t.Fatalf("index %d in the result of %d", result.GetIndex(), i+1)
			}
			if result.GetReason() != logpb.Reason_REASON_NONE && result.GetMessage() == "" {
				t.Fatalf("a refusal without words: %v", result)
			}
			if s.Now() < now || s.requests.forgotten < forgotten || s.LastModelID() < lastID {
				t.Fatalf("something went back after %v", cmd)
			}
			now, forgotten, lastID = s.Now(), s.requests.forgotten, s.LastModelID()
			checkReferences(t, s)
		}
	})
}

// checkReferences builds a second state of the records, which finds what refers to nothing, and compares lookups.
func checkReferences(t *rapid.T, s *State) {
	if _, err := build(s.canonical()); err != nil {
		t.Fatal(err)
	}
	stored, byModel, byWorker := 0, 0, 0
	for _, of := range s.holdings {
		stored += len(of)
	}
	for _, m := range s.Models() {
		byModel += len(s.Holdings(m.GetId()))
		if s.Resolve(m.GetName(), m.GetVersion()) != m {
			t.Fatalf("%v is not found by its name", m)
		}
	}
	for _, w := range s.Workers() {
		byWorker += len(s.HoldingsOf(w.GetName()))
	}
	if byModel != stored || byWorker != stored {
		t.Fatalf("%d holdings, %d by model, %d by worker", stored, byModel, byWorker)
	}
}

func all(s *State) func(yield func(proto.Message) bool) {
	return func(yield func(proto.Message) bool) {
		state := s.canonical()
		messages := []proto.Message{state.Cluster}
		for _, m := range state.Workers {
			messages = append(messages, m)
		}
		for _, m := range state.Models {
			messages = append(messages, m)
		}
		for _, m := range state.Holdings {
			messages = append(messages, m)
		}
		for _, m := range state.Profiles {
			messages = append(messages, m)
		}
		for _, m := range state.Remembered {
			messages = append(messages, m)
		}
		for _, m := range messages {
			if !yield(m) {
				return
			}
		}
	}
}

func applyTo(t *rapid.T, s *State, i int, cmd *logpb.Command) *logpb.Result {
	result, err := s.Apply(uint64(i+1), cmd)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func same(t *rapid.T, what string, got, want proto.Message) {
	if !proto.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func decoded(t *rapid.T, cmd *logpb.Command) *logpb.Command {
	data, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	var again logpb.Command
	if err := proto.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	return &again
}

func roundTrip(t *rapid.T, s *State) *State {
	var data bytes.Buffer
	if err := s.Snapshot().Encode(&data); err != nil {
		t.Fatal(err)
	}
	restored, err := Restore(&data)
	if err != nil {
		t.Fatal(err)
	}
	return restored
}
