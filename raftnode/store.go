package raftnode

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

const (
	databaseFile = "raft.db"
	snapshotsDir = "snapshots" // named by the library

	// lockTimeout is how long Open waits for a predecessor that is still on its
	// way out to let go of the database.
	lockTimeout = 2 * time.Second
)

// disk is where the log, the term and the votes are kept.
type disk interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// store is everything that a replica keeps on disk. It passes all calls on, and
// reports their errors to faults.
type store struct {
	disk      disk
	snapshots *snapshots
	faults    *faults
}

// openStore opens, or makes, the files in opts.Dir and locks them.
func openStore(opts Options) (*store, error) {
	path := filepath.Join(opts.Dir, databaseFile)
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockTimeout,
			// A file that was once big would otherwise slow every commit down,
			// by writing out its list of free pages.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use by another process: "+
			"stop that one, or use another data directory", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}

	faults := &faults{dir: opts.Dir, report: opts.OnFault}
	s := &store{disk: bolt, faults: faults}
	if opts.wrapDisk != nil {
		s.disk = opts.wrapDisk(bolt)
	}
	s.snapshots, err = openSnapshots(opts, faults)
	if err != nil {
		_ = bolt.Close()
		return nil, err
	}
	return s, nil
}

func (s *store) FirstIndex() (uint64, error) {
	index, err := s.disk.FirstIndex()
	return index, s.faults.check("find the first log entry", err)
}

func (s *store) LastIndex() (uint64, error) {
	index, err := s.disk.LastIndex()
	return index, s.faults.check("find the last log entry", err)
}

func (s *store) GetLog(index uint64, log *raft.Log) error {
	err := s.disk.GetLog(index, log)
	if errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	return s.faults.check("read a log entry", err)
}

func (s *store) StoreLog(log *raft.Log) error {
	return s.faults.check("store a log entry", s.disk.StoreLog(log))
}

func (s *store) StoreLogs(logs []*raft.Log) error {
	return s.faults.check("store log entries", s.disk.StoreLogs(logs))
}

func (s *store) DeleteRange(first, last uint64) error {
	return s.faults.check("delete log entries", s.disk.DeleteRange(first, last))
}

func (s *store) Set(key, value []byte) error {
	return s.faults.check("store "+string(key), s.disk.Set(key, value))
}

func (s *store) SetUint64(key []byte, value uint64) error {
	return s.faults.check("store "+string(key), s.disk.SetUint64(key, value))
}

func (s *store) Get(key []byte) ([]byte, error) {
	value, err := s.disk.Get(key)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return value, err
	}
	return value, s.faults.check("read "+string(key), err)
}

func (s *store) GetUint64(key []byte) (uint64, error) {
	value, err := s.disk.GetUint64(key)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return value, err
	}
	return value, s.faults.check("read "+string(key), err)
}

// Close closes the database. Raft leaves behind a goroutine that may still ask
// for the age of the log; the error that it gets is nobody's fault.
func (s *store) Close() error {
	s.faults.live.Store(false)
	return s.disk.Close()
}

// faults reports the first error of the storage.
type faults struct {
	dir    string
	report func(error)
	once   sync.Once
	live   atomic.Bool // not while opening and closing: Open returns its errors
}

// check returns err unchanged, since raft compares some errors by their text.
func (f *faults) check(action string, err error) error {
	if err != nil && f.live.Load() {
		f.once.Do(func() {
			f.report(fmt.Errorf("raft storage in %s failed to %s: %w", f.dir, action, err))
		})
	}
	return err
}
