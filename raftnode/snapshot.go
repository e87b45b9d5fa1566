package raftnode

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// snapshots are the snapshots on disk; their errors are reported to faults.
type snapshots struct {
	files  raft.SnapshotStore
	faults *faults
}

// openSnapshots opens the snapshots in opts.Dir, whose lock the caller holds.
func openSnapshots(opts Options, faults *faults) (*snapshots, error) {
	// What a crash left half written, the library would keep for ever.
	unfinished, err := filepath.Glob(filepath.Join(opts.Dir, snapshotsDir, "*.tmp"))
	if err != nil {
		return nil, fmt.Errorf("look for unfinished snapshots: %w", err)
	}
	for _, path := range unfinished {
		if err := os.RemoveAll(path); err != nil {
			return nil, fmt.Errorf("remove an unfinished snapshot: %w", err)
		}
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(opts.Dir, opts.Snapshots.Retain, opts.Logger)
	if err != nil {
		return nil, fmt.Errorf("open the snapshots in %s: %w", opts.Dir, err)
	}
	return &snapshots{files: files, faults: faults}, nil
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.files.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, s.faults.check("create a snapshot", err)
	}
	return &snapshotSink{SnapshotSink: sink, faults: s.faults}, nil
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.files.List()
	return list, s.faults.check("list the snapshots", err)
}

func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, content, err := s.files.Open(id)
	return meta, content, s.faults.check("open a snapshot", err)
}

type snapshotSink struct {
	raft.SnapshotSink
	faults *faults
}

func (s *snapshotSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	return n, s.faults.check("write a snapshot", err)
}

func (s *snapshotSink) Close() error {
	return s.faults.check("finish a snapshot", s.SnapshotSink.Close())
}

func (s *snapshotSink) Cancel() error {
	return s.faults.check("cancel a snapshot", s.SnapshotSink.Cancel())
}
