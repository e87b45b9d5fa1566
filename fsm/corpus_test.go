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
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/orrery-project/orrery/proto/logpb"
)

var update = flag.Bool("update", false, "write testdata/corpus/*.golden anew, and command streams that are missing")

// The streams in testdata/corpus are the logs of clusters out there, the files in testdata/snapshots their snapshots. A
// release that replays or restores one to another digest would disagree with replicas that have not been updated yet,
// and with its own past: what differs needs a new cluster version. So no file is ever written again; a new version gets
// new ones beside them. A stream has the commands one after the other, each after its length as a varint; it begins
// with the state in the snapshot of the same name, or the empty one if there is none. Those of older versions
// were written by releases that had only these.
func TestTheCorpusReplaysToTheSameDigests(t *testing.T) {
	if _, err := os.Stat(corpus("v5.log")); *update && errors.Is(err, fs.ErrNotExist) {
		writeFifthVersion(t)
	}
	for _, name := range files(t, corpus("*.log")) {
		compareGolden(t, strings.TrimSuffix(name, ".log")+".golden", replay(t, begin(t, name), readStream(t, name)))
	}
}

func TestTheSnapshotsRestoreToTheSameDigests(t *testing.T) {
	for _, name := range files(t, snapshotFile("*")) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		summary, err := Inspect(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var lines strings.Builder
		for i, fields := 0, reflect.ValueOf(summary); i < fields.NumField(); i++ {
			fmt.Fprintf(&lines, "%s %v\n", strings.ToLower(fields.Type().Field(i).Name), fields.Field(i).Interface())
		}
		compareGolden(t, strings.TrimSuffix(name, ".snapshot")+".golden", lines.String())
	}
	// The end of a stream, by a snapshot of the release that applied it, is the end of its replay.
	for _, version := range []string{"v1", "v2", "v3", "v4", "v5"} {
		s := begin(t, corpus(version+".log"))
		replay(t, s, readStream(t, corpus(version+".log")))
		restored := restoreFile(t, snapshotFile(version+"-end"))
		equal(t, version, restored.Digest(), s.Digest())
		equal(t, version, restored.Index(), s.Index())
	}
}

// The digests that a stream checks are those that every replica comes to.
func TestNoReplicaDivergesInTheCorpus(t *testing.T) {
	compared := 0
	for _, name := range files(t, corpus("*.log")) {
		r := NewReplica(Options{OnFault: func(err error) { t.Errorf("%s: %v", name, err) }})
		if file, err := os.Open(snapshotFile(strings.TrimSuffix(filepath.Base(name), ".log"))); err == nil {
			if err := r.Restore(file); err != nil {
				t.Fatal(err)
			}
		}
		s, first := begin(t, name), r.Index()+1
		for i, cmd := range readStream(t, name) {
			r.Apply(entry(t, first+uint64(i), cmd))
			if _, err := s.Apply(first+uint64(i), cmd); err != nil {
				t.Fatal(err)
			}
			if _, ok := r.DigestAt(cmd.GetCheckDigest().GetIndex()); ok {
				compared++
			}
		}
		r.Read(func(own *State) { equal(t, name, own.Digest(), s.Digest()) })
	}
	if compared < 3 {
		t.Errorf("only %d digests were compared", compared)
	}
}

// The corpus is worth its name only if every command took effect in it and every refusal was given.
func TestTheCorpusHasEveryCommandAndRefusal(t *testing.T) {
	bodies, reasons := map[string]bool{}, map[logpb.Reason]bool{}
	for _, name := range files(t, corpus("*.log")) {
		s := begin(t, name)
		for _, cmd := range readStream(t, name) {
			result, err := s.Apply(s.Index()+1, cmd)
			if err != nil {
				t.Fatal(err)
			}
			reasons[result.GetReason()] = true
			if result.GetReason() == logpb.Reason_REASON_NONE {
				bodies[bodyName(cmd)] = true
			}
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

func snapshotFile(name string) string {
	return filepath.Join("testdata", "snapshots", name+".snapshot")
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatal("no corpus: ", pattern, err)
	}
	return names
}

func compareGolden(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, golden, strings.Split(got, "\n"), strings.Split(string(want), "\n"))
}

// begin is the state in which a stream begins.
func begin(t *testing.T, stream string) *State {
	t.Helper()
	name := snapshotFile(strings.TrimSuffix(filepath.Base(stream), ".log"))
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return New()
	}
	return restoreFile(t, name)
}

func restoreFile(t *testing.T, name string) *State {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s, err := Restore(file)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

func corpus(name string) string { return filepath.Join("testdata", "corpus", name) }

// replay applies a stream to a state, and has a line for each command, and the digest after every 20th and the last.
func replay(t *testing.T, s *State, cmds []*logpb.Command) string {
	t.Helper()
	var lines strings.Builder
	for i, cmd := range cmds {
		index := s.Index() + 1
		result, err := s.Apply(index, cmd)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%d %s %s", index, bodyName(cmd), strings.ToLower(strings.TrimPrefix(result.GetReason().String(), "REASON_")))
		if result.GetIndex() != index {
			fmt.Fprintf(&lines, " as at %d", result.GetIndex())
		}
		if ids := result.GetModelIds(); len(ids) > 0 {
			fmt.Fprintf(&lines, " %d", ids)
		}
		lines.WriteByte('\n')
		if index%20 == 0 || i+1 == len(cmds) {
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

// writeFifthVersion writes the corpus of version 5: the life of a small cluster that goes through all versions, then a
// few hundred commands that were drawn; and what comes after that cluster was restored from a snapshot of the fourth one.
func writeFifthVersion(t *testing.T) {
	l := newLog(t)
	l.ok(&logpb.InitCluster{ClusterId: "c-1", Settings: &logpb.Settings{Policy: "not yet bounded"}})
	l.ok(register("w1", "i1"))
	l.ok(register("w2", "i1"))
	l.ok(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(1, "w1", "i1", digestA), loaded(1, "w2", "i1", digestA)}})
	l.phase(logpb.Phase_PHASE_SERVING)
	for version := uint32(1); version <= 5; version++ {
		if version > 1 {
			l.ok(&logpb.RaiseVersion{To: version})
		}
		for _, settings := range []*logpb.Settings{
			{Policy: "fifo"},
			{Policy: "a name with blanks"},
			{LateLoads: logpb.Settings_LATE_LOADS_ADMIT},
			{LateLoads: logpb.Settings_LATE_LOADS_ADMIT, Policy: fmt.Sprint("of-version-", version)},
		} {
			l.do(&logpb.SetSettings{Settings: settings})
			understated := l.command(&logpb.SetSettings{Settings: settings})
			understated.Version = 1
			l.apply(understated)
		}
		for _, pin := range []*logpb.PinModel{{Name: "m", Devices: version}, {Name: "m", Devices: maxPinned + 1}, {Name: "x", Devices: 1}} {
			cmd := l.command(pin) // understated, releases that don't know it would stop
			l.apply(cmd)
			l.apply(cmd)
		}
	}
	understated := l.command(&logpb.PinModel{Name: "m"})
	understated.Version = 4
	l.apply(understated)
	l.ok(&logpb.LoadModel{Name: "m", Source: "b.onnx", Replace: true})
	l.ok(&logpb.ReplaceModel{ModelId: 2})
	l.ok(&logpb.PinModel{Name: "m", Version: "2", Devices: 7})
	l.check()
	l.draw(600, 31)
	l.check()
	keep(t, l, "v5", nil)

	file, err := os.ReadFile(snapshotFile("v4-end"))
	if err != nil {
		t.Fatal(err)
	}
	before := copied(t, l.state)
	again := &log{t: t, state: copied(t, l.state), index: l.state.Index(), now: l.now}
	again.ok(&logpb.RestoreState{Snapshot: file})
	again.check()
	again.draw(200, 37)
	again.check()
	keep(t, again, "v5-restored", before)
}

// check takes a digest and has it checked.
func (l *log) check() {
	l.t.Helper()
	taken := l.ok(&logpb.TakeDigest{})
	l.ok(&logpb.SetSettings{Settings: l.state.Cluster().GetSettings()})
	l.ok(&logpb.CheckDigest{Index: taken.GetIndex(), Digest: taken.GetDigest()})
}

// draw applies commands that are drawn. Those that check a digest name none that was taken.
func (l *log) draw(count, seed int) {
	prefix, after := fmt.Sprintf("drawn-%d-", seed), l.now-start
	for _, cmd := range stream(count).Example(seed) {
		if c := cmd.GetCheckDigest(); c != nil && c.Index > 0 {
			c.Index = 1
		}
		cmd.RequestId = prefix + cmd.GetRequestId()
		cmd.RequestedUnixNs += after
		cmd.ProposedUnixNs += after
		l.apply(cmd)
		l.now = max(l.now, cmd.GetProposedUnixNs(), cmd.GetRequestedUnixNs())
	}
}

// keep writes what a log has applied, from which state, and in which it ended.
func keep(t *testing.T, l *log, name string, from *State) {
	writeStream(t, corpus(name+".log"), l.cmds)
	for name, s := range map[string]*State{name: from, name + "-end": l.state} {
		if s == nil {
			continue
		}
		if err := os.WriteFile(snapshotFile(name), encoded(t, s.Snapshot()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
