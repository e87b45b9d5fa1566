package fsm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/orrery-project/orrery/proto/logpb"
)

// start is the time of the first command of all tests, in unix nanoseconds.
const start = int64(1_800_000_000_000_000_000)

const (
	digestA = "aa11"
	digestB = "bb22"
)

// log drives a state: each command gets the next index, a fresh request id and a time 1 ms later.
type log struct {
	t     testing.TB
	state *State
	index uint64
	now   int64
	cmds  []*logpb.Command // that were applied
}

func newLog(t testing.TB) *log { return &log{t: t, state: New(), now: start} }

// newCluster is a bootstrapped log in the phase querying.
func newCluster(t testing.TB) *log {
	l := newLog(t)
	l.ok(&logpb.InitCluster{ClusterId: "c-1"})
	return l
}

// serving has two workers and one model that both have loaded.
func serving(t testing.TB) *log {
	l := newCluster(t)
	l.ok(register("w1", "i1"))
	l.ok(register("w2", "i1"))
	l.ok(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(1, "w1", "i1", digestA), loaded(1, "w2", "i1", digestA)}})
	l.phase(logpb.Phase_PHASE_SERVING)
	return l
}

// phase goes through all phases up to one.
func (l *log) phase(to logpb.Phase) {
	l.t.Helper()
	for l.state.Phase() < to {
		from := l.state.Phase()
		l.ok(&logpb.SetPhase{From: from, To: from + 1, LastModelId: l.state.LastModelID()})
	}
}

func (l *log) do(body proto.Message) *logpb.Result {
	l.t.Helper()
	return l.apply(l.command(body))
}

func (l *log) command(body proto.Message) *logpb.Command {
	l.now += int64(time.Millisecond)
	cmd := command(body)
	cmd.Version = NeededVersion(cmd)
	cmd.RequestId = fmt.Sprintf("r-%d", l.index+1)
	cmd.RequestedUnixNs = l.now
	cmd.ProposedUnixNs = l.now
	return cmd
}

func (l *log) apply(cmd *logpb.Command) *logpb.Result {
	l.t.Helper()
	l.index++
	l.cmds = append(l.cmds, proto.CloneOf(cmd))
	result, err := l.state.Apply(l.index, cmd)
	if err != nil {
		l.t.Fatal(err)
	}
	if result.GetIndex() == 0 {
		l.t.Fatalf("no index in %v", result)
	}
	return result
}

func (l *log) ok(body proto.Message) *logpb.Result {
	l.t.Helper()
	result := l.do(body)
	if result.GetReason() != logpb.Reason_REASON_NONE {
		l.t.Fatalf("%v was refused: %v", body, result)
	}
	return result
}

// refused expects a refusal with some words in it, and no effect but on what is remembered.
func (l *log) refused(body proto.Message, reason logpb.Reason, words ...string) {
	l.t.Helper()
	before := records(l.state)
	result := l.do(body)
	if result.GetReason() != reason {
		l.t.Fatalf("%v gave %v, want %v", body, result, reason)
	}
	for _, w := range words {
		if !strings.Contains(result.GetMessage(), w) {
			l.t.Errorf("%q does not say %q", result.GetMessage(), w)
		}
	}
	if diff := cmp.Diff(before, records(l.state), protocmp.Transform()); diff != "" {
		l.t.Errorf("a refusal changed the state: %s", diff)
	}
}

// records is the state but for what every command changes.
func records(s *State) *logpb.State {
	state := s.canonical()
	state.Header, state.NowUnixNs, state.Remembered, state.ForgottenUnixNs = nil, 0, nil, 0
	return state
}

// command puts a body into a command.
func command(body proto.Message) *logpb.Command {
	cmd := &logpb.Command{}
	fields := cmd.ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		if fields.Get(i).Message() == body.ProtoReflect().Descriptor() {
			cmd.ProtoReflect().Set(fields.Get(i), protoreflect.ValueOfMessage(body.ProtoReflect()))
			return cmd
		}
	}
	panic(fmt.Sprintf("%T is no command", body))
}

func worker(name, incarnation string) *logpb.Worker {
	return &logpb.Worker{
		Name: name, Incarnation: incarnation, SessionAddress: name + ":8020", Speed: 1,
		Devices: []*logpb.Device{{Kind: "cpu", PageBytes: 16 << 20, Pages: 64, Engines: []string{"gomlx"}}},
		Engines: []*logpb.Engine{{Name: "gomlx", Version: "1"}},
		Labels:  []*logpb.Label{{Key: "zone", Value: "a"}},
	}
}

func register(name, incarnation string) *logpb.RegisterWorker {
	return &logpb.RegisterWorker{Worker: worker(name, incarnation)}
}

func loaded(id uint64, worker, incarnation, digest string) *logpb.HoldingUpdate {
	return &logpb.HoldingUpdate{
		Holding: &logpb.Holding{ModelId: id, Worker: worker, Incarnation: incarnation, Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED, LoadNs: 5},
		Info:    &logpb.ModelInfo{Digest: digest, Engine: "gomlx", EngineVersion: "1", ProfileRows: []uint32{1, 2, 4}},
	}
}

func pending(id uint64, worker, incarnation string) *logpb.HoldingUpdate {
	return &logpb.HoldingUpdate{Holding: &logpb.Holding{ModelId: id, Worker: worker, Incarnation: incarnation}}
}

func failed(id uint64, worker, incarnation string) *logpb.HoldingUpdate {
	return &logpb.HoldingUpdate{Holding: &logpb.Holding{
		ModelId: id, Worker: worker, Incarnation: incarnation, Status: logpb.HoldingStatus_HOLDING_STATUS_FAILED, Error: "no such file",
	}}
}

func profile(digest, kind string, p50 int64) *logpb.Profile {
	return &logpb.Profile{
		Key:              &logpb.ProfileKey{Digest: digest, Engine: "gomlx", EngineVersion: "1", DeviceKind: kind},
		WeightsLoadP50Ns: 10, WeightsLoadP99Ns: 20,
		Execution: []*logpb.RowsTime{{Rows: 1, P50Ns: p50, P99Ns: p50 + 1, Runs: 9}, {Rows: 4, P50Ns: 2 * p50, P99Ns: 3 * p50, Runs: 9}},
	}
}

func names(workers []*logpb.Worker) string {
	var all []string
	for _, w := range workers {
		all = append(all, w.GetName())
	}
	return strings.Join(all, " ")
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
