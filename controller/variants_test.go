package controller

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// A worker that comes back with another version of the engine is measured anew; until
// then the times of the version before are what is known.
func TestAnEngineOfAnotherVersionIsMeasured(t *testing.T) {
	p := newPool(t)
	register := func(name, incarnation, version string) {
		p.apply(&logpb.Command{Body: &logpb.Command_RegisterWorker{RegisterWorker: &logpb.RegisterWorker{Worker: &logpb.Worker{
			Name: name, Incarnation: incarnation, SessionAddress: name + ":1", Speed: 1, Engines: []*logpb.Engine{{Name: "e", Version: version}},
			Devices: []*logpb.Device{{Kind: "cpu", PageBytes: 1 << 20, Pages: 200, Engines: []string{"e"}}},
		}}}})
		p.apply(&logpb.Command{Body: &logpb.Command_UpdateHoldings{UpdateHoldings: &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{{
			Holding: &logpb.Holding{ModelId: 1, Worker: name, Incarnation: incarnation, Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED},
			Info:    &logpb.ModelInfo{Digest: "d", Engine: "e", EngineVersion: version, ProfileRows: []uint32{1}, WeightsBytes: 1},
		}}}}})
	}
	measured := func(version string, at int64) {
		p.apply(&logpb.Command{Version: 4, Body: &logpb.Command_PutProfiles{PutProfiles: &logpb.PutProfiles{Profiles: []*logpb.Profile{{
			Key:              &logpb.ProfileKey{Digest: "d", Engine: "e", EngineVersion: version, DeviceKind: "cpu"},
			WeightsLoadP50Ns: 1, WeightsLoadP99Ns: 1, Execution: rowsTimes(1), MeasuredUnixNs: at,
		}}}}})
	}
	expect := func(what, used string, lacking ...string) {
		t.Helper()
		p.replica.Read(func(s *fsm.State) {
			m := s.Model(1)
			if profile := profileFor(s, m, "cpu"); profile.GetKey().GetEngineVersion() != used {
				t.Errorf("%s: the times of version %q are used, want %q", what, profile.GetKey().GetEngineVersion(), used)
			}
			var lack []string
			profiler := newProfiler(&coordinator{connections: map[string]*connection{}})
			for _, n := range profiler.needs(s) {
				if s.Profile(n.key.proto()) == nil {
					lack = append(lack, n.engineVersion)
				}
			}
			if len(lack) != len(lacking) || len(lack) > 0 && lack[0] != lacking[0] {
				t.Errorf("%s: versions %v have to be measured, want %v", what, lack, lacking)
			}
		})
	}
	p.apply(&logpb.Command{Body: &logpb.Command_RaiseVersion{RaiseVersion: &logpb.RaiseVersion{To: 4}}})
	p.apply(&logpb.Command{Body: &logpb.Command_LoadModel{LoadModel: &logpb.LoadModel{Name: "m", Source: "s"}}})
	register("w1", "1", "1")
	register("w2", "1", "1")
	measured("1", 10)
	expect("as it began", "1")
	register("w1", "2", "2")
	expect("one worker is updated", "1", "2")
	measured("2", 20)
	expect("it was measured", "2")
	register("w2", "2", "3")
	expect("the other one, to yet another version", "2", "3")
}

func TestFailuresAreForgivenInTime(t *testing.T) {
	f := failures[string]{}
	for range profileAttempts {
		if f.final("a") {
			t.Fatal("given up too soon")
		}
		f.count("a")
	}
	if !f.final("a") || f.final("b") {
		t.Error("not given up, or the wrong one")
	}
	f["a"].last = time.Now().Add(-forgiveAfter - time.Second)
	if f.final("a") || len(f) != 0 {
		t.Error("not forgiven")
	}
}

// A pass that had to wait for something is no reason to rest for ever.
func TestRestsAreBounded(t *testing.T) {
	k := newCoordinator(nil, hclog.NewNullLogger())
	k.feed.started = true
	if rest, look := k.restAfter(time.Minute), k.lookAfter(time.Minute); rest > longestRest || look > longestRest {
		t.Errorf("rests %v, looks after %v", rest, look)
	}
}
