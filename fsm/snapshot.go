package fsm

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// A snapshot is the magic, whose last byte is the format, the length of the state as 8 bytes (big endian), the state
// as a logpb.State that begins with its header, and the sha256 of all that. So a release that finds a newer format or
// cluster version says so, and does not try to decode what it may not understand.
const (
	snapshotMagic  = "ORRYFSM"
	snapshotFormat = 1
	snapshotPrefix = len(snapshotMagic) + 1 + 8
	headerField    = 1 // of logpb.State
)

// ErrBadSnapshot says that a snapshot can't be restored: it is damaged, or of a newer release.
var ErrBadSnapshot = errors.New("bad snapshot")

// Snapshot is the state at one index. It stays as it is while further commands are applied.
type Snapshot struct{ state *logpb.State }

// Snapshot copies pointers only.
func (s *State) Snapshot() *Snapshot { return &Snapshot{s.canonical()} }

// Encode writes the snapshot, which it puts together in memory first.
func (s *Snapshot) Encode(w io.Writer) error {
	data := make([]byte, 0, snapshotPrefix+proto.Size(s.state)+sha256.Size)
	data = append(data, snapshotMagic...)
	data = append(data, snapshotFormat)
	data = binary.BigEndian.AppendUint64(data, 0)
	data = appendState(data, &logpb.State{Header: s.state.GetHeader()})
	data = appendState(data, headless(s.state)) // two encodings of one message, one after the other, are one of it
	binary.BigEndian.PutUint64(data[snapshotPrefix-8:], uint64(len(data)-snapshotPrefix))
	sum := sha256.Sum256(data)
	if _, err := w.Write(append(data, sum[:]...)); err != nil {
		return fmt.Errorf("write snapshot at index %d: %w", s.state.GetHeader().GetIndex(), err)
	}
	return nil
}

func headless(s *logpb.State) *logpb.State {
	return &logpb.State{
		Cluster: s.Cluster, NowUnixNs: s.NowUnixNs, LastModelId: s.LastModelId, Workers: s.Workers, Models: s.Models,
		Holdings: s.Holdings, Profiles: s.Profiles, Remembered: s.Remembered, ForgottenUnixNs: s.ForgottenUnixNs,
	}
}

// Restore reads a snapshot to its end and makes a new state of it. It fails with ErrBadSnapshot, or with the error of
// the reader.
func Restore(r io.Reader) (*State, error) { return restore(r, Version) }

func restore(r io.Reader, release uint32) (*State, error) {
	body, err := readSnapshot(r)
	if err != nil {
		return nil, err
	}
	s, err := decode(body, release)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSnapshot, err)
	}
	return s, nil
}

func decode(body []byte, release uint32) (*State, error) {
	header, err := decodeHeader(body)
	if err != nil {
		return nil, err
	}
	if err := checkHeader(header, release); err != nil {
		return nil, err
	}
	var from logpb.State
	if err := proto.Unmarshal(body, &from); err != nil {
		return nil, err
	}
	return build(&from, release)
}

// decodeHeader reads what a snapshot begins with, and nothing else.
func decodeHeader(body []byte) (*logpb.SnapshotHeader, error) {
	number, kind, n := protowire.ConsumeTag(body)
	if n < 0 || number != headerField || kind != protowire.BytesType {
		return nil, errors.New("it does not begin with a header")
	}
	data, n := protowire.ConsumeBytes(body[n:])
	var header logpb.SnapshotHeader
	if n < 0 || proto.Unmarshal(data, &header) != nil {
		return nil, errors.New("its header can't be decoded")
	}
	return &header, nil
}

func checkHeader(header *logpb.SnapshotHeader, release uint32) error {
	switch {
	case header.GetFormat() != snapshotFormat:
		return fmt.Errorf("its header has format %d, its frame %d", header.GetFormat(), snapshotFormat)
	case header.GetClusterVersion() > release:
		return fmt.Errorf("its cluster is at version %d, this release applies up to %d: update this replica", header.GetClusterVersion(), release)
	}
	return nil
}

// readSnapshot returns the encoded state once its frame and checksum are found right.
func readSnapshot(r io.Reader) ([]byte, error) {
	prefix := make([]byte, snapshotPrefix)
	if n, err := io.ReadFull(r, prefix); err != nil {
		return nil, incomplete(err, "it ends after %d of the first %d bytes", n, snapshotPrefix)
	}
	if !bytes.HasPrefix(prefix, []byte(snapshotMagic)) {
		return nil, fmt.Errorf("%w: it starts with %q, not %q", ErrBadSnapshot, prefix[:len(snapshotMagic)], snapshotMagic)
	}
	if format := prefix[len(snapshotMagic)]; format != snapshotFormat {
		return nil, fmt.Errorf("%w: its format is %d, this release reads %d: update this replica", ErrBadSnapshot, format, snapshotFormat)
	}
	length := binary.BigEndian.Uint64(prefix[snapshotPrefix-8:])
	if length > 1<<40 {
		return nil, fmt.Errorf("%w: it claims %d bytes of state", ErrBadSnapshot, length)
	}
	// Nothing is allocated by the length alone: it may be damaged.
	rest, err := io.ReadAll(io.LimitReader(r, int64(length)+sha256.Size+1))
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	switch have, want := uint64(len(rest)), length+sha256.Size; {
	case have < want:
		return nil, fmt.Errorf("%w: it ends after %d of %d bytes", ErrBadSnapshot, have, want)
	case have > want:
		return nil, fmt.Errorf("%w: there is more after its %d bytes", ErrBadSnapshot, want)
	}
	body, sum := rest[:length], rest[length:]
	hash := sha256.New()
	hash.Write(prefix)
	hash.Write(body)
	if !bytes.Equal(hash.Sum(nil), sum) {
		return nil, fmt.Errorf("%w: its checksum is %x, its content has %x", ErrBadSnapshot, sum, hash.Sum(nil))
	}
	return body, nil
}

func incomplete(err error, format string, args ...any) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %s", ErrBadSnapshot, fmt.Sprintf(format, args...))
	}
	return fmt.Errorf("read snapshot: %w", err)
}

// canonical gathers all records in their canonical order, in slices of the caller's own.
func (s *State) canonical() *logpb.State {
	state := &logpb.State{
		Header:          &logpb.SnapshotHeader{Format: snapshotFormat, Index: s.index, ClusterVersion: s.cluster.GetVersion()},
		Cluster:         s.cluster,
		NowUnixNs:       s.now,
		LastModelId:     s.lastModelID,
		Workers:         s.workers.values(),
		Models:          s.models.values(),
		Profiles:        s.profiles.values(),
		Remembered:      s.requests.all(),
		ForgottenUnixNs: s.requests.forgotten,
	}
	holdings := 0
	for _, id := range s.models.keys {
		holdings += len(s.holdings[id])
	}
	state.Holdings = slices.Grow(state.Holdings, holdings)
	for _, id := range s.models.keys {
		state.Holdings = append(state.Holdings, s.holdings[id]...)
	}
	return state
}

// build makes a state of its canonical form and checks what every state keeps: a snapshot that breaks it was not
// written by Encode, or by code with a fault.
func build(from *logpb.State, release uint32) (*State, error) {
	if err := checkHeader(from.GetHeader(), release); err != nil {
		return nil, err
	}
	if err := checkForm(from); err != nil {
		return nil, err
	}
	s := newState(release)
	s.cluster = from.GetCluster()
	s.now = from.GetNowUnixNs()
	s.index = from.GetHeader().GetIndex()
	s.lastModelID = from.GetLastModelId()
	for _, w := range from.GetWorkers() {
		s.storeWorker(w)
	}
	for _, m := range from.GetModels() {
		if m.GetId() == 0 || m.GetId() > s.lastModelID {
			return nil, fmt.Errorf("model %d is there, the last id is %d", m.GetId(), s.lastModelID)
		}
		if other := s.find(m.GetName(), m.GetVersion()); other != nil || m.GetVersion() == "" {
			return nil, fmt.Errorf("models %d and %d are both %q version %q", other.GetId(), m.GetId(), m.GetName(), m.GetVersion())
		}
		s.storeModel(m)
	}
	for _, h := range from.GetHoldings() {
		worker := s.Worker(h.GetWorker())
		if s.Model(h.GetModelId()) == nil || worker == nil || worker.GetIncarnation() != h.GetIncarnation() {
			return nil, fmt.Errorf("a holding of model %d on %q, incarnation %q, is of what isn't there", h.GetModelId(), h.GetWorker(), h.GetIncarnation())
		}
		s.storeHolding(h)
	}
	for _, p := range from.GetProfiles() {
		s.storeProfile(p)
	}
	for _, row := range from.GetRemembered() {
		if row.GetResult() == nil || s.requests.first(row.GetRequestId()) != nil {
			return nil, fmt.Errorf("request %q is remembered without a result, or twice", row.GetRequestId())
		}
		s.requests.put(row)
	}
	s.requests.forgotten = from.GetForgottenUnixNs()
	s.changed = 0
	return s, nil
}

func checkForm(from *logpb.State) error {
	switch header := from.GetHeader(); {
	case from.GetCluster() == nil:
		return errors.New("it has no cluster record")
	case header.GetClusterVersion() != from.GetCluster().GetVersion():
		return fmt.Errorf("its header has cluster version %d, its content %d", header.GetClusterVersion(), from.GetCluster().GetVersion())
	case !ascending(from.GetWorkers(), func(a, b *logpb.Worker) bool { return a.GetName() < b.GetName() }):
		return errors.New("its workers are not in the order of their names")
	case !ascending(from.GetModels(), func(a, b *logpb.Model) bool { return a.GetId() < b.GetId() }):
		return errors.New("its models are not in the order of their ids")
	case !ascending(from.GetHoldings(), func(a, b *logpb.Holding) bool {
		return cmp.Or(cmp.Compare(a.GetModelId(), b.GetModelId()), strings.Compare(a.GetWorker(), b.GetWorker())) < 0
	}):
		return errors.New("its holdings are not in the order of models and workers")
	case !ascending(from.GetProfiles(), func(a, b *logpb.Profile) bool { return keyOf(a.GetKey()).compare(keyOf(b.GetKey())) < 0 }):
		return errors.New("its profiles are not in the order of their keys")
	}
	return nil
}

func ascending[T any](rows []T, less func(a, b T) bool) bool {
	for i := 1; i < len(rows); i++ {
		if !less(rows[i-1], rows[i]) {
			return false
		}
	}
	return true
}
