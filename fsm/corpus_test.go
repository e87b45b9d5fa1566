package fsm

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/orrery-project/orrery/proto/logpb"
)

var update = flag.Bool("update", false, "write testdata/corpus/*.golden anew, and command streams that are missing")

// The streams in testdata/corpus are the logs of clusters out there. A release that replays one to another digest would
// disagree with replicas that have not been updated yet, and with its own snapshots: what differs needs a new cluster
// version. So a stream is never written again; a new version gets a new one beside it. A file has the commands one
// after the other, each after its length as a varint.
func TestTheCorpusReplaysToTheSameDigests(t *testing.T) {
	if _, err := os.Stat(corpus("v1.log")); *update && errors.Is(err, fs.ErrNotExist) {
		writeStream(t, corpus("v1.log"), firstStream(t))
	}
	streams, err := filepath.Glob(corpus("*.log"))
	if err != nil || len(streams) == 0 {
		t.Fatal("no corpus", err)
	}
	for _, name := range streams {
		golden := strings.TrimSuffix(name, ".log") + ".golden"
		got := replay(t, readStream(t, name))
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, name, strings.Split(got, "\n"), strings.Split(string(want), "\n"))
	}
}

// The corpus is worth its name only if every command took effect in it and every refusal was given.
func TestTheCorpusHasEveryCommandAndRefusal(t *testing.T) {
	bodies, reasons := map[string]bool{}, map[logpb.Reason]bool{}
	s := New()
	for i, cmd := range readStream(t, corpus("v1.log")) {
		result, err := s.Apply(uint64(i+1), cmd)
		if err != nil {
			t.Fatal(err)
		}
		reasons[result.GetReason()] = true
		if result.GetReason() == logpb.Reason_REASON_NONE {
			bodies[bodyName(cmd)] = true
		}
	}
	fields := (&logpb.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); !bodies[name] {
			t.Errorf("no %s", name)
		}
	}
	for reason, name := range logpb.Reason_name {
		if !reasons[logpb.Reason(reason)] {
			t.Errorf("no %s", name)
		}
	}
}

func corpus(name string) string { return filepath.Join("testdata", "corpus", name) }

// replay has a line for each command, and the digest after every 20th and the last.
func replay(t *testing.T, cmds []*logpb.Command) string {
	var lines strings.Builder
	s := New()
	for i, cmd := range cmds {
		result, err := s.Apply(uint64(i+1), cmd)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%d %s %s", i+1, bodyName(cmd), strings.ToLower(strings.TrimPrefix(result.GetReason().String(), "REASON_")))
		if result.GetIndex() != uint64(i+1) {
			fmt.Fprintf(&lines, " as at %d", result.GetIndex())
		}
		if ids := result.GetModelIds(); len(ids) > 0 {
			fmt.Fprintf(&lines, " %d", ids)
		}
		lines.WriteByte('\n')
		if (i+1)%20 == 0 || i+1 == len(cmds) {
			fmt.Fprintf(&lines, "digest %s\n", s.Digest())
		}
	}
	return lines.String()
}

func bodyName(cmd *logpb.Command) string {
	m := cmd.ProtoReflect()
	return string(m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Name())
}

func readStream(t testing.TB, name string) []*logpb.Command {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var cmds []*logpb.Command
	for r := bufio.NewReader(file); ; {
		var cmd logpb.Command
		if err := protodelim.UnmarshalFrom(r, &cmd); err == io.EOF {
			return cmds
		} else if err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, &cmd)
	}
}

func writeStream(t *testing.T, name string, cmds []*logpb.Command) {
	t.Helper()
	var data bytes.Buffer
	for _, cmd := range cmds {
		if _, err := protodelim.MarshalTo(&data, cmd); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// firstStream is the life of a small cluster, then a few hundred commands that were drawn.
func firstStream(t *testing.T) []*logpb.Command {
	l := newLog(t)
	l.do(register("w1", "i1")) // too early
	l.ok(&logpb.InitCluster{ClusterId: "c-1", Settings: &logpb.Settings{Policy: "edf"}})
	l.do(&logpb.InitCluster{ClusterId: "c-2"})
	for _, name := range []string{"w3", "w1", "w2"} {
		l.ok(register(name, "i1"))
	}
	l.ok(&logpb.SetPhase{From: logpb.Phase_PHASE_QUERYING, To: logpb.Phase_PHASE_WAITING})
	l.do(&logpb.SetPhase{From: logpb.Phase_PHASE_QUERYING, To: logpb.Phase_PHASE_WAITING})
	load := l.command(&logpb.LoadModel{Name: "m", Source: "a.onnx", SloNs: 1e8, Instances: 3, Constraints: []*logpb.Label{{Key: "zone", Value: "a"}}})
	l.apply(load)
	l.ok(&logpb.LoadModel{Name: "n", Version: "7", Source: "dir/b", Engine: "gomlx", Copies: 2, MaxRows: 16})
	l.do(&logpb.LoadModel{Name: "n", Version: "7", Source: "c"})
	l.apply(load) // a retry
	unreported := loaded(3, "w3", "i1", "")
	disordered := loaded(2, "w3", "i1", digestA)
	disordered.Info.ProfileRows = []uint32{2, 1}
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{
		loaded(1, "w1", "i1", digestA), loaded(1, "w2", "i1", digestB), pending(1, "w3", "i1"), unreported, disordered, failed(4, "w1", "i1"),
	}})
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "gpu", 7), profile(digestA, "cpu", 5)}})
	l.phase(logpb.Phase_PHASE_SERVING)
	l.do(&logpb.LoadModel{Name: "late", Source: "a"})
	l.ok(&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	l.ok(&logpb.LoadModel{Name: "late", Source: "a"})
	l.ok(&logpb.TakeDigest{})
	l.ok(&logpb.SetWorkerStatus{Name: "w3", Status: logpb.WorkerStatus_WORKER_STATUS_CORDONED})
	l.ok(register("w1", "i2"))
	l.ok(&logpb.RemoveWorker{Name: "w2", Incarnation: "i1"})
	l.do(&logpb.RemoveWorker{Name: "w2"})
	l.ok(&logpb.UnloadModel{Name: "n"})
	l.do(&logpb.UnloadModel{Name: "n"})
	l.ok(&logpb.RaiseEpoch{To: 2})
	newer := l.command(&logpb.RaiseEpoch{To: 4})
	newer.Version = Version + 1
	l.apply(newer)
	l.now += int64(time.Hour)
	l.ok(&logpb.TakeDigest{})
	l.apply(load) // a retry that comes too late

	after := l.now - start
	for _, cmd := range stream(400).Example(7) {
		cmd.RequestId = "drawn-" + cmd.GetRequestId()
		cmd.RequestedUnixNs += after
		cmd.ProposedUnixNs += after
		l.apply(cmd)
	}
	return l.cmds
}
