package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

func encoded(t testing.TB, s *Snapshot) []byte {
	t.Helper()
	var data bytes.Buffer
	if err := s.Encode(&data); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// framed puts a frame with the right checksum around what may not be a state.
func framed(body []byte) []byte {
	data := append([]byte(snapshotMagic), snapshotFormat)
	data = binary.BigEndian.AppendUint64(data, uint64(len(body)))
	data = append(data, body...)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

func TestASnapshotStaysAsItWas(t *testing.T) {
	l := serving(t)
	snapshot, digest, index := l.state.Snapshot(), l.state.Digest(), l.state.Index()
	want := encoded(t, l.state.Snapshot())
	l.ok(register("w1", "i2"))
	l.ok(&logpb.UnloadModel{Name: "m"})
	l.ok(&logpb.RaiseEpoch{To: 9})
	data := encoded(t, snapshot)
	if !bytes.Equal(data, want) {
		t.Error("later commands show in it")
	}
	restored, err := Restore(iotest.OneByteReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "digest", restored.Digest(), digest)
	equal(t, "index", restored.Index(), index)
}

func TestADamagedSnapshotIsRefused(t *testing.T) {
	data := encoded(t, serving(t).state.Snapshot())
	for i := range data {
		for _, bit := range []byte{1, 0x80} {
			flipped := bytes.Clone(data)
			flipped[i] ^= bit
			if _, err := Restore(bytes.NewReader(flipped)); !errors.Is(err, ErrBadSnapshot) {
				t.Fatalf("bit %#x of byte %d: %v", bit, i, err)
			}
		}
		if _, err := Restore(bytes.NewReader(data[:i])); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("cut after %d bytes: %v", i, err)
		}
	}
	broken := errors.New("disk")
	if _, err := Restore(io.MultiReader(bytes.NewReader(data[:40]), iotest.ErrReader(broken))); !errors.Is(err, broken) || errors.Is(err, ErrBadSnapshot) {
		t.Errorf("a reader that fails: %v", err)
	}
}

func TestASnapshotErrorSaysWhatIsWrong(t *testing.T) {
	good := encoded(t, serving(t).state.Snapshot())
	change := func(at int, to byte) []byte {
		data := bytes.Clone(good)
		data[at] = to
		return data
	}
	for words, data := range map[string][]byte{
		"after 0 of the first 16 bytes":   {},
		"starts with \"XRRYFSM\"":         change(0, 'X'),
		"format is 2, this release reads": change(7, 2),
		"claims":                          change(8, 1),
		"there is more after its":         append(bytes.Clone(good), 0),
		"it ends after":                   good[:len(good)-1],
		"its checksum is":                 change(len(good)-1, good[len(good)-1]+1),
		"its header can't be decoded":     framed([]byte{0x0a, 1, 0xff}),
		"cannot parse":                    framed([]byte{0x0a, 2, 8, 1, 0xff}),
		"does not begin with a header":    framed(nil),
	} {
		if _, err := Restore(bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v does not say %q", err, words)
		}
	}

	for words, spoil := range map[string]func(*logpb.State){
		"no cluster record":          func(s *logpb.State) { s.Cluster = nil },
		"header has cluster version": func(s *logpb.State) { s.Header.ClusterVersion = 0 },
		"update this replica": func(s *logpb.State) {
			s.Header.ClusterVersion, s.Cluster.Version = Version+1, Version+1
		},
		"workers are not in the order":  func(s *logpb.State) { s.Workers[0], s.Workers[1] = s.Workers[1], s.Workers[0] },
		"models are not in the order":   func(s *logpb.State) { s.Models = append(s.Models, s.Models[0]) },
		"holdings are not in the order": func(s *logpb.State) { s.Holdings[1] = s.Holdings[0] },
		"profiles are not in the order": func(s *logpb.State) { s.Profiles = []*logpb.Profile{{}, {}} },
		"the last id is 0":              func(s *logpb.State) { s.LastModelId = 0 },
		"are both": func(s *logpb.State) {
			again := proto.CloneOf(s.Models[0])
			again.Id, s.LastModelId = 2, 2
			s.Models = append(s.Models, again)
		},
		"of what isn't there":   func(s *logpb.State) { s.Workers = s.Workers[1:] },
		"of model 1 on \"w1\"":  func(s *logpb.State) { s.Workers[0].Incarnation = "i2" },
		"remembered without":    func(s *logpb.State) { s.Remembered[0].Result = nil },
		"without a result, or ": func(s *logpb.State) { s.Remembered[1] = s.Remembered[0] },
	} {
		state := proto.CloneOf(serving(t).state.canonical())
		spoil(state)
		if _, err := Restore(bytes.NewReader(encoded(t, &Snapshot{state}))); !errors.Is(err, ErrBadSnapshot) || !strings.Contains(err.Error(), words) {
			t.Errorf("%v does not say %q", err, words)
		}
	}
}

// What a later release writes may be anything: it is refused by its format or cluster version, by name, before it is
// decoded.
func TestASnapshotOfALaterReleaseIsRefusedByName(t *testing.T) {
	format := append([]byte(snapshotMagic), snapshotFormat+1)
	format = append(format, "whatever comes then"...)
	header := appendState(nil, &logpb.State{Header: &logpb.SnapshotHeader{Format: snapshotFormat, Index: 7, ClusterVersion: Version + 1}})
	for words, data := range map[string][]byte{
		fmt.Sprintf("format is %d, this release reads %d: update", snapshotFormat+1, snapshotFormat):           format,
		fmt.Sprintf("cluster is at version %d, this release applies up to %d: update", Version+1, Version):     framed(append(bytes.Clone(header), 0xff, 0xff)),
		fmt.Sprintf("its cluster is at version %d, this release applies up to %d: update", Version+1, Version): framed(append(bytes.Clone(header), 0x28, 1)), // workers are a number there
	} {
		_, err := Restore(bytes.NewReader(data))
		if !errors.Is(err, ErrBadSnapshot) || !strings.Contains(err.Error(), words) {
			t.Errorf("%v does not say %q", err, words)
		}
	}
	begins, err := decodeHeader(encoded(t, serving(t).state.Snapshot())[snapshotPrefix:])
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "header", begins, &logpb.SnapshotHeader{Format: snapshotFormat, Index: 8, ClusterVersion: 1})
}

// FuzzRestore looks for a snapshot that makes a replica panic, with a right checksum and without.
func FuzzRestore(f *testing.F) {
	f.Add(encoded(f, serving(f).state.Snapshot()))
	f.Add(appendState(nil, serving(f).state.canonical()))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, input := range [][]byte{data, framed(data)} {
			s, err := Restore(bytes.NewReader(input))
			if err != nil {
				continue
			}
			again, err := Restore(bytes.NewReader(encoded(t, s.Snapshot())))
			if err != nil {
				t.Fatalf("restored, but what it writes is not: %v", err)
			}
			equal(t, "digest", again.Digest(), s.Digest())
			s.Pending()
			for _, m := range s.Models() {
				s.Resolve(m.GetName(), "")
				s.ProfilesOf(m)
			}
		}
	})
}

// FuzzApply looks for an entry that makes a replica panic.
func FuzzApply(f *testing.F) {
	for i, cmd := range stream(60).Example(1) {
		data, err := proto.Marshal(cmd)
		if err != nil {
			f.Fatal(i, err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var cmd logpb.Command
		if proto.Unmarshal(data, &cmd) != nil {
			return
		}
		l := serving(t)
		if cmd.GetRequestedUnixNs() == 0 {
			cmd.RequestedUnixNs = start + 1
		}
		if _, err := l.state.Apply(l.index+1, &cmd); err != nil && !errors.Is(err, ErrUnknownCommand) {
			t.Fatal(err)
		}
		if _, err := build(l.state.canonical(), Version); err != nil {
			t.Fatal(err)
		}
	})
}
