package fsm

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Whether a replica applied the whole log, started again from snapshots in the middle of it, once or again and again,
// got the log as bytes, or has the same records in maps that were filled in another order: its state and its results
// are the same.
func TestReplaySnapshotAndLiveStateAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cmds := stream(80).Draw(t, "stream")
		cut := rapid.IntRange(0, len(cmds)).Draw(t, "cut")
		again := rapid.SliceOfN(rapid.Bool(), len(cmds)+1, len(cmds)+1).Draw(t, "restored again")
		live, replayed, restoredOften, shuffledOften := New(), New(), New(), New()
		var restored *State
		for i := range len(cmds) + 1 {
			if i == cut {
				restored = roundTrip(t, live)
			}
			if again[i] {
				restoredOften = roundTrip(t, restoredOften)
				shuffledOften = shuffled(t, shuffledOften)
			}
			if i == len(cmds) {
				break
			}
			want := applyTo(t, live, i, cmds[i])
			same(t, "replayed", applyTo(t, replayed, i, decoded(t, cmds[i])), want)
			same(t, "restored again and again", applyTo(t, restoredOften, i, cmds[i]), want)
			same(t, "shuffled", applyTo(t, shuffledOften, i, cmds[i]), want)
			if restored != nil {
				same(t, "restored", applyTo(t, restored, i, cmds[i]), want)
			}
		}
		for what, s := range map[string]*State{
			"replayed": replayed, "restored": restored, "restored again and again": restoredOften, "restored at the end": roundTrip(t, live),
			"shuffled": shuffledOften, "shuffled at the end": shuffled(t, live),
		} {
			if s.Digest() != live.Digest() {
				t.Errorf("%s: %v\nlive: %v", what, s.canonical(), live.canonical())
			}
			if s.Index() != live.Index() || !maps.EqualFunc(s.versions, live.versions, slices.Equal[[]uint64]) {
				t.Errorf("%s: index %d, versions %v; live: %d, %v", what, s.Index(), s.versions, live.Index(), live.versions)
			}
			for _, m := range live.Models() {
				if got, want := names(s.Targets(m)), names(live.Targets(m)); got != want {
					t.Errorf("%s: targets %s, live: %s", what, got, want)
				}
			}
		}
	})
}

// Replicas that were told of the same things in another order, and of things that came and went, agree on the records.
func TestEquivalentHistoriesMakeEqualRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := []proto.Message{}
		for _, w := range []string{"w1", "w2", "w3", "w4"} {
			facts = append(facts, register(w, "i1"))
		}
		for _, d := range []string{digestA, digestB} {
			for _, kind := range []string{"cpu", "gpu"} {
				facts = append(facts, &logpb.PutProfiles{Profiles: []*logpb.Profile{profile(d, kind, 5)}})
			}
		}
		holds := []proto.Message{}
		for id := range uint64(3) {
			for _, w := range []string{"w1", "w2", "w3", "w4"} {
				u := loaded(id+1, w, "i1", digestA)
				u.Holding.Status = logpb.HoldingStatus(rapid.Int32Range(0, 2).Draw(t, "status"))
				holds = append(holds, &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{u}})
			}
		}
		var load proto.Message = &logpb.LoadModel{Name: "m", Source: "a", Instances: 3}
		history := func(label string) *State {
			bodies := []proto.Message{&logpb.InitCluster{ClusterId: "c-1"}}
			bodies = append(bodies, rapid.Permutation(facts).Draw(t, label+" facts")...)
			bodies = append(bodies, load)
			bodies = append(bodies, rapid.Permutation(holds).Draw(t, label+" holds")...)
			s := New()
			do := func(body proto.Message) {
				cmd := command(body)
				cmd.RequestId = fmt.Sprint(label, s.Index())
				if body == load {
					cmd.RequestId = "load" // which is kept with the model
				}
				cmd.RequestedUnixNs, cmd.ProposedUnixNs = start, start
				if result := applyTo(t, s, int(s.Index()), cmd); result.GetReason() != logpb.Reason_REASON_NONE {
					t.Fatalf("%v: %v", body, result)
				}
			}
			for i, body := range bodies {
				do(body)
				if i == 0 || rapid.IntRange(0, 3).Draw(t, label+" detour") > 0 {
					continue
				}
				do(register("w9", "i1"))
				if s.Model(1) != nil {
					do(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{failed(1, "w9", "i1")}})
				}
				do(&logpb.RemoveWorker{Name: "w9"})
				if known := s.Profile(profile(digestA, "cpu", 5).Key); known != nil {
					do(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "cpu", 9)}})
					do(&logpb.PutProfiles{Profiles: []*logpb.Profile{known}})
				}
			}
			return s
		}
		a, b := history("a"), history("b")
		same(t, "records", records(a), records(b))
		if digestOf(records(a)) != digestOf(records(b)) {
			t.Fatal("the digests differ, the records don't")
		}
		for _, m := range a.Models() {
			if names(a.Targets(m)) != names(b.Targets(m)) {
				t.Fatalf("targets of %v differ", m)
			}
		}
	})
}

// shuffled is the same state, with its tables and maps filled in an order that is drawn.
func shuffled(t *rapid.T, s *State) *State {
	from := s.canonical()
	n := newState(s.release)
	n.cluster, n.now, n.index, n.lastModelID = from.Cluster, s.now, s.index, s.lastModelID
	for _, w := range inSomeOrder(t, from.Workers) {
		n.storeWorker(w)
	}
	for _, m := range inSomeOrder(t, from.Models) {
		n.storeModel(m)
	}
	for _, h := range inSomeOrder(t, from.Holdings) {
		n.storeHolding(h)
	}
	for _, p := range inSomeOrder(t, from.Profiles) {
		n.storeProfile(p)
	}
	for _, row := range inSomeOrder(t, from.Remembered) {
		n.requests.byID[row.GetRequestId()] = row
	}
	n.requests.rows, n.requests.forgotten = from.Remembered, from.ForgottenUnixNs
	return n
}

func inSomeOrder[T any](t *rapid.T, rows []T) []T {
	if len(rows) < 2 {
		return rows
	}
	return rapid.Permutation(rows).Draw(t, "order")
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
	if _, err := build(s.canonical(), Version); err != nil {
		t.Fatal(err)
	}
	stored, byModel, byWorker := 0, 0, 0
	for _, of := range s.holdings {
		stored += len(of)
	}
	for _, m := range s.Models() {
		byModel += len(s.Holdings(m.GetId()))
		if s.find(m.GetName(), m.GetVersion()) != m {
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
