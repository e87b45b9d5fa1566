package fsm

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestEveryBodyOfTheProtocolIsApplied(t *testing.T) {
	fields := (&logpb.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		l := newCluster(t)
		cmd := l.command(&logpb.TakeDigest{})
		cmd.ProtoReflect().Set(fields.Get(i), cmd.ProtoReflect().NewField(fields.Get(i)))
		l.apply(cmd)
	}
}

func TestAnUnknownBodyStopsTheReplica(t *testing.T) {
	l := newCluster(t)
	before := l.state.Digest()
	_, err := l.state.Apply(l.index+1, &logpb.Command{RequestId: "x", RequestedUnixNs: start, ProposedUnixNs: start + 1e12, Version: 1})
	if !errors.Is(err, ErrUnknownCommand) {
		t.Fatalf("got %v", err)
	}
	equal(t, "digest", l.state.Digest(), before)
}

func TestANewerCommandIsRefusedWhetherItsBodyIsKnownOrNot(t *testing.T) {
	known, unknown := newCluster(t), newCluster(t)
	cmd := known.command(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	cmd.Version = Version + 1
	result := known.apply(cmd)
	equal(t, "reason", result.GetReason(), logpb.Reason_REASON_VERSION)
	equal(t, "models", len(known.state.Models()), 0)

	bare := proto.CloneOf(cmd)
	bare.Body = nil
	equal(t, "result", unknown.apply(bare), result)
	equal(t, "digest", unknown.state.Digest(), known.state.Digest())
}

func TestTheIndexOnlyRises(t *testing.T) {
	l := newCluster(t)
	for _, index := range []uint64{0, l.index} {
		if _, err := l.state.Apply(index, l.command(&logpb.TakeDigest{})); !errors.Is(err, ErrIndexBack) {
			t.Errorf("index %d: %v", index, err)
		}
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	l := newCluster(t)
	l.now += int64(time.Hour)
	l.ok(register("w1", "i1"))
	ahead := l.state.Now()
	l.now -= int64(time.Minute)
	l.ok(register("w2", "i1"))
	equal(t, "now", l.state.Now(), ahead)
	equal(t, "registered", l.state.Worker("w2").GetRegisteredUnixNs(), ahead)
}

func TestNothingBeforeTheClusterIsBootstrapped(t *testing.T) {
	l := newLog(t)
	equal(t, "cluster", l.state.Cluster(), &logpb.Cluster{})
	l.refused(register("w1", "i1"), logpb.Reason_REASON_INVALID, "not bootstrapped")
	l.refused(&logpb.TakeDigest{}, logpb.Reason_REASON_INVALID, "not bootstrapped")
	l.refused(&logpb.InitCluster{}, logpb.Reason_REASON_INVALID, "id is empty")
	l.ok(&logpb.InitCluster{ClusterId: "c-1"})
}

func TestTheClusterRecord(t *testing.T) {
	l := newLog(t)
	settings := &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT, Policy: "fifo"}
	l.ok(&logpb.InitCluster{ClusterId: "c-1", Settings: settings})
	want := &logpb.Cluster{Id: "c-1", Epoch: 1, Version: 1, Settings: settings}
	equal(t, "cluster", l.state.Cluster(), want)
	l.refused(&logpb.InitCluster{ClusterId: "c-2"}, logpb.Reason_REASON_ALREADY_INITIALISED, `"c-1"`)

	l.refused(&logpb.SetSettings{}, logpb.Reason_REASON_INVALID, "no settings")
	l.refused(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: 7}}, logpb.Reason_REASON_INVALID, "late_loads is 7")
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	equal(t, "settings", l.state.Cluster().GetSettings(), &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT})

	l.refused(&logpb.RaiseEpoch{To: 1}, logpb.Reason_REASON_INVALID, "only rises")
	l.ok(&logpb.RaiseEpoch{To: 5})
	l.refused(&logpb.RaiseEpoch{To: 4}, logpb.Reason_REASON_INVALID, "the epoch is 5")
	equal(t, "epoch", l.state.Cluster().GetEpoch(), uint64(5))
}

func TestPhases(t *testing.T) {
	const (
		querying, waiting, loading = logpb.Phase_PHASE_QUERYING, logpb.Phase_PHASE_WAITING, logpb.Phase_PHASE_LOADING
		profiling, serving         = logpb.Phase_PHASE_PROFILING, logpb.Phase_PHASE_SERVING
	)
	legal := map[[2]logpb.Phase]bool{
		{querying, waiting}: true, {waiting, loading}: true, {loading, profiling}: true, {profiling, serving}: true, {loading, loading}: true,
	}
	for from := querying; from <= serving+1; from++ {
		for to := querying - 1; to <= serving+1; to++ {
			l := newCluster(t)
			l.phase(min(from, serving))
			step := &logpb.SetPhase{From: from, To: to}
			if !legal[[2]logpb.Phase{from, to}] {
				l.refused(step, logpb.Reason_REASON_INVALID, "only to the next one")
				continue
			}
			l.ok(step)
			equal(t, "phase", l.state.Phase(), to)
		}
	}

	l := newCluster(t)
	l.refused(&logpb.SetPhase{From: loading, To: profiling}, logpb.Reason_REASON_WRONG_PHASE, "is querying, not loading")
	l.ok(&logpb.SetPhase{From: querying, To: waiting})
	l.ok(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	equal(t, "phase after a load", l.state.Phase(), loading)
	l.refused(&logpb.SetPhase{From: loading, To: profiling}, logpb.Reason_REASON_WRONG_PHASE, "last model wanted is 1, not 0")
	l.ok(&logpb.SetPhase{From: loading, To: profiling, LastModelId: 1})
	l.ok(&logpb.LoadModel{Name: "n", Source: "a.onnx"})
	equal(t, "phase after a load while profiling", l.state.Phase(), loading)
}

func TestModelsWantedWhileQueryingSkipTheWait(t *testing.T) {
	l := newCluster(t)
	l.ok(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	equal(t, "phase", l.state.Phase(), logpb.Phase_PHASE_QUERYING)
	l.ok(&logpb.SetPhase{From: logpb.Phase_PHASE_QUERYING, To: logpb.Phase_PHASE_WAITING, LastModelId: 1})
	equal(t, "phase", l.state.Phase(), logpb.Phase_PHASE_LOADING)
}
