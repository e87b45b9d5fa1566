package fsm

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/orrery-project/orrery/proto/logpb"
)

// differing are the parts in which two states' records differ.
func differing(a, b *logpb.State) Part {
	var parts Part
	for part, of := range map[Part]func(*logpb.State) *logpb.State{
		Cluster:  func(s *logpb.State) *logpb.State { return &logpb.State{Cluster: s.Cluster} },
		Workers:  func(s *logpb.State) *logpb.State { return &logpb.State{Workers: s.Workers} },
		Models:   func(s *logpb.State) *logpb.State { return &logpb.State{Models: s.Models, LastModelId: s.LastModelId} },
		Holdings: func(s *logpb.State) *logpb.State { return &logpb.State{Holdings: s.Holdings} },
		Profiles: func(s *logpb.State) *logpb.State { return &logpb.State{Profiles: s.Profiles} },
	} {
		if !proto.Equal(of(a), of(b)) {
			parts |= part
		}
	}
	return parts
}

func TestTheStateTellsWhichPartsChanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		before := s.canonical()
		for i, cmd := range stream(60).Draw(t, "stream") {
			applyTo(t, s, i, cmd)
			after := s.canonical()
			said, is := s.takeChanged(), differing(before, after)
			switch cmd.GetBody().(type) {
			case *logpb.Command_UpdateHoldings, *logpb.Command_PutProfiles: // may take back what they have done
				if is&^said != 0 {
					t.Fatalf("%v changed %05b and said %05b", cmd, is, said)
				}
			default:
				if is != said {
					t.Fatalf("%v changed %05b and said %05b", cmd, is, said)
				}
			}
			before = after
		}
	})
}

func TestAWaiterWakesOnlyForItsParts(t *testing.T) {
	l := serving(t)
	r := NewReplica(Options{})
	follow(t, r, l, 1)
	r.Changed(0) // never
	settings := &logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}}
	var last *logpb.Command
	for _, step := range []struct {
		what string
		body proto.Message // nil: the last command again
		want Part
	}{
		{"a digest", &logpb.TakeDigest{}, 0},
		{"settings", settings, Cluster},
		{"a duplicate", nil, 0},
		{"settings that are equal", settings, 0},
		{"a refusal", &logpb.UnloadModel{Name: "none"}, 0},
		{"a registration again", register("w1", "i1"), 0},
		{"a holding again", &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(1, "w1", "i1", digestA)}}, 0},
		{"a status", &logpb.SetWorkerStatus{Name: "w1", Status: logpb.WorkerStatus_WORKER_STATUS_CORDONED}, Workers},
		{"a holding", &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{failed(1, "w1", "i1")}}, Holdings},
		{"a profile", &logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "cpu", 5)}}, Profiles},
		{"a profile again", &logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "cpu", 5)}}, 0},
		{"an incarnation", register("w2", "i2"), Workers | Holdings},
		{"a wish again", &logpb.LoadModel{Name: "m", Source: "a.onnx"}, 0},
		{"an epoch", &logpb.RaiseEpoch{To: 2}, Cluster},
		{"the end of a model", &logpb.UnloadModel{Name: "m"}, Models | Holdings},
		{"the end of a worker that holds nothing", &logpb.RemoveWorker{Name: "w2"}, Workers},
	} {
		var waits [All + 1]<-chan struct{}
		for parts := Part(1); parts <= All; parts++ {
			waits[parts] = r.Changed(parts)
		}
		index := r.next(applied)
		if step.body != nil {
			last = l.command(step.body)
		}
		l.apply(proto.CloneOf(last))
		follow(t, r, l, l.index)
		if !closed(index) {
			t.Errorf("%s does not wake who waits for the index", step.what)
		}
		for parts := Part(1); parts <= All; parts++ {
			if got := closed(waits[parts]); got != (parts&step.want != 0) {
				t.Errorf("%s: who waits for %05b was woken: %v", step.what, parts, got)
			}
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
