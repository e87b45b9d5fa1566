package raftnode

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// snapshots are the snapshots on disk, each with a seal; their errors are reported
// to faults.
type snapshots struct {
	files    raft.SnapshotStore
	dir      string
	log      raft.LogStore
	faults   *faults
	watchdog *watchdog
}

// openSnapshots opens the snapshots in opts.Dir, whose lock the caller holds.
func openSnapshots(opts Options, log raft.LogStore, faults *faults, watchdog *watchdog) (*snapshots, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(opts.Dir, opts.Snapshots.Retain, opts.Logger)
	if err != nil {
		return nil, fmt.Errorf("open the snapshots in %s: %w", opts.Dir, err)
	}
	dir := filepath.Join(opts.Dir, snapshotsDir)
	return &snapshots{files: files, dir: dir, log: log, faults: faults, watchdog: watchdog}, nil
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	defer s.watchdog.end(s.watchdog.begin("create a snapshot", true))
	sink, err := s.files.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, s.faults.check("create a snapshot", err)
	}
	return &snapshotSink{SnapshotSink: sink, store: s, index: index, sum: crc64.New(checksumTable())}, nil
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.files.List()
	return list, s.faults.check("list the snapshots", err)
}

// Open returns a snapshot. The library has verified its state, but not what it
// says of the state.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if _, err := readSnapshotMeta(filepath.Join(s.dir, id)); err != nil {
		return nil, nil, s.faults.check("open a snapshot", err)
	}
	meta, content, err := s.files.Open(id)
	return meta, content, s.faults.check("open a snapshot", err)
}

// snapshotSink seals the snapshot that is written to it.
type snapshotSink struct {
	raft.SnapshotSink
	store  *snapshots
	index  uint64
	size   int64
	sum    hash.Hash64 // of what was written
	closed bool
}

func (s *snapshotSink) Write(p []byte) (int, error) {
	defer s.store.watchdog.end(s.store.watchdog.begin("write a snapshot", true))
	n, err := s.SnapshotSink.Write(p)
	s.size += int64(n)
	_, _ = s.sum.Write(p[:n])
	return n, s.store.faults.check("write a snapshot", err)
}

// Close seals the snapshot and finishes it, and then lets go of log entries that
// it cuts off.
func (s *snapshotSink) Close() error {
	defer s.store.watchdog.end(s.store.watchdog.begin("finish a snapshot", true))
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.seal(); err != nil {
		_ = s.SnapshotSink.Cancel()
		return s.store.faults.check("seal a snapshot", err)
	}
	if err := s.SnapshotSink.Close(); err != nil {
		return s.store.faults.check("finish a snapshot", err)
	}
	// The seal was made before there was what it describes.
	if _, err := readSnapshotMeta(filepath.Join(s.store.dir, s.ID())); err != nil {
		return s.store.faults.check("seal a snapshot", err)
	}
	return s.store.faults.check("delete log entries", deleteCutOff(s.store.log, s.index))
}

func (s *snapshotSink) Cancel() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return s.store.faults.check("cancel a snapshot", s.SnapshotSink.Cancel())
}

// seal writes the seal into the directory of the unfinished snapshot. The library
// then renames that, so that no crash can leave a snapshot without its seal. For
// this the description has to be known that the library is about to write: it is
// the preliminary one, with the size and the checksum filled in.
func (s *snapshotSink) seal() error {
	dir := filepath.Join(s.store.dir, s.ID()+unfinishedSuffix)
	preliminary, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return err
	}
	var meta snapshotMeta
	if err := json.Unmarshal(preliminary, &meta); err != nil {
		return fmt.Errorf("%s: %w", metaFile, err)
	}
	meta.Size, meta.CRC = s.size, s.sum.Sum(nil)
	final, err := json.Marshal(&meta)
	if err != nil {
		return fmt.Errorf("%s: %w", metaFile, err)
	}
	return writeDurably(filepath.Join(dir, sealFile), sealOf(append(final, '\n')))
}

// deleteCutOff deletes the log up to a snapshot's index if it ends before, as is
// the case where the snapshot came from elsewhere. The library leaves a gap then;
// entries before it may contradict the snapshot, and this replica, as a leader,
// would hand them on to one that lags.
func deleteCutOff(log raft.LogStore, index uint64) error {
	first, err := log.FirstIndex()
	if err != nil || first == 0 || first > index {
		return err
	}
	err = log.GetLog(index, &raft.Log{})
	if errors.Is(err, raft.ErrLogNotFound) {
		err = log.DeleteRange(first, index)
	}
	return err
}
