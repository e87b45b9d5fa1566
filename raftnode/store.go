package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

const (
	databaseFile = "raft.db"
	snapshotsDir = "snapshots" // named by the library
)

// termKey is where raft keeps its term among the stable values.
var termKey = []byte("CurrentTerm")

// disk is where the log, the term and the votes are kept.
type disk interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// store is everything that a replica keeps on disk. It gives each entry and the
// stable values a checksum, passes all calls on, and reports their errors to
// faults.
type store struct {
	dir       string
	lock      io.Closer
	disk      disk
	chain     *chain
	stable    *stable
	snapshots *snapshots
	faults    *faults
	watchdog  *watchdog
}

// openStore opens, or makes, the files in opts.Dir and locks them. What it opens
// has been verified. A store that is damaged is set aside, and an empty one takes
// its place that knows of it. Errors of the disk itself are returned, and leave
// everything as it is.
func openStore(opts Options) (*store, error) {
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	lock, err := lockDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	s, err := openIntact(opts)
	var damage *damageError
	if errors.As(err, &damage) {
		s, err = replaceDamaged(opts, err)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open the store in %s: %w", opts.Dir, err)
	}
	s.lock = lock
	return s, nil
}

// openIntact opens the store in opts.Dir. The error is a damage if anything in
// it, or what should be in it, is not as it was written.
func openIntact(opts Options) (*store, error) {
	if err := condemned(opts.Dir); err != nil {
		return nil, err
	}
	path := databasePath(opts.Dir)
	indexes, exists, err := verifyDatabase(path)
	if err != nil {
		return nil, err
	}
	newest, err := verifySnapshots(filepath.Join(opts.Dir, snapshotsDir), opts.Logger)
	if err != nil {
		return nil, err
	}
	if !exists {
		lost, err := formerState(opts.Dir)
		if err != nil {
			return nil, err
		}
		if err := makeDatabase(opts.Dir, lost); err != nil {
			return nil, err
		}
	}
	bolt, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	s, err := verified(opts, bolt, newest, indexes)
	if err != nil {
		_ = bolt.Close()
		return nil, err
	}
	return s, nil
}

// formerState returns what is known to have been lost in a directory without a
// database, or a damage if a part of the store is still there.
func formerState(dir string) (lost string, err error) {
	// The database is made before the directory of the snapshots, and an empty pin
	// before both.
	_, err = os.Stat(filepath.Join(dir, snapshotsDir))
	if err == nil {
		return "", damaged("%s is missing", databaseFile)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if pin, pinned, err := openTail(dir); err == nil {
		_ = pin.Close()
		if pinned != (link{}) {
			return "", damaged("%s is missing", databaseFile)
		}
	}
	former, err := damagedDirs(dir)
	if err != nil || len(former) == 0 {
		return "", err
	}
	return "see " + former[len(former)-1], nil
}

// verified returns the store of bolt, whose structure is sound, if all that it
// holds is, and fits the newest snapshot and what was pinned of the log.
func verified(opts Options, bolt disk, newest position, indexes []uint64) (_ *store, err error) {
	values, err := readRecord(bolt)
	if err != nil {
		return nil, err
	}
	pin, pinned, err := openTail(opts.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = pin.Close()
		}
	}()
	stable := newStable(bolt, values)
	term, err := uint64Of(stable.get(termKey))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, err
	}
	if _, ok := values[string(identityKey)]; !ok && (len(indexes) > 0 || newest.index > 0) {
		return nil, damaged("there is a log, but no id")
	}
	if newest.term > term {
		return nil, damaged("the newest snapshot is of term %d, and the replica in term %d", newest.term, term)
	}
	terms, tail, err := verifyLog(bolt, indexes, term, pinned)
	if err != nil {
		return nil, err
	}
	superfluous, err := verifyContinuity(newest, indexes, terms)
	if err != nil {
		return nil, err
	}
	chain := &chain{disk: bolt, pin: pin, tail: tail}
	if err := chain.setPin(tail); err != nil {
		return nil, err
	}
	if superfluous > 0 {
		if err := chain.deleteRange(indexes[0], superfluous-1); err != nil {
			return nil, err
		}
	}
	s := &store{
		dir:      opts.Dir,
		disk:     bolt,
		chain:    chain,
		faults:   &faults{dir: opts.Dir, report: opts.OnFault},
		watchdog: &watchdog{},
	}
	if opts.wrapDisk != nil {
		s.disk = opts.wrapDisk(bolt)
	}
	s.chain.disk = s.disk
	s.stable = newStable(s.disk, values)
	s.snapshots, err = openSnapshots(opts, s, s.faults, s.watchdog)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// replaceDamaged sets the damaged store aside and opens a new one in its place.
func replaceDamaged(opts Options, damage error) (*store, error) {
	if err := setAside(opts.Dir, damage, opts.Logger); err != nil {
		return nil, fmt.Errorf("set the damaged store aside (%w): %w", damage, err)
	}
	if err := makeDatabase(opts.Dir, damage.Error()); err != nil {
		return nil, err
	}
	if err := renewed(opts.Dir); err != nil {
		return nil, err
	}
	return openIntact(opts)
}

func (s *store) FirstIndex() (uint64, error) {
	defer s.watchdog.end(s.watchdog.begin("find the first log entry", false))
	index, err := s.disk.FirstIndex()
	return index, s.faults.check("find the first log entry", err)
}

func (s *store) LastIndex() (uint64, error) {
	defer s.watchdog.end(s.watchdog.begin("find the last log entry", false))
	index, err := s.disk.LastIndex()
	return index, s.faults.check("find the last log entry", err)
}

// GetLog reads an entry. One that is not as it was written is an error and never
// data.
func (s *store) GetLog(index uint64, log *raft.Log) error {
	defer s.watchdog.end(s.watchdog.begin("read a log entry", false))
	err := s.disk.GetLog(index, log)
	if errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	if err == nil {
		_, _, err = unsealEntry(index, log)
	}
	return s.faults.check("read a log entry", err)
}

// StoreLog stores the first entry of a new cluster: raft uses it for nothing else.
// So this is where a replica that must not found one is stopped, whoever asks.
func (s *store) StoreLog(log *raft.Log) error {
	if err := s.mayFound(); err != nil {
		return err
	}
	return s.StoreLogs([]*raft.Log{log})
}

func (s *store) StoreLogs(logs []*raft.Log) error {
	defer s.watchdog.end(s.watchdog.begin("store log entries", false))
	return s.faults.check("store log entries", s.chain.store(logs))
}

func (s *store) DeleteRange(first, last uint64) error {
	defer s.watchdog.end(s.watchdog.begin("delete log entries", false))
	return s.faults.check("delete log entries", s.chain.deleteRange(first, last))
}

func (s *store) Set(key, value []byte) error {
	action := "store " + string(key)
	defer s.watchdog.end(s.watchdog.begin(action, false))
	return s.faults.check(action, s.stable.set(key, value))
}

func (s *store) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (s *store) Get(key []byte) ([]byte, error) { return s.stable.get(key) }

func (s *store) GetUint64(key []byte) (uint64, error) { return uint64Of(s.stable.get(key)) }

func uint64Of(value []byte, err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%x is no number of 8 bytes", value)
	}
	return binary.BigEndian.Uint64(value), nil
}

// Close closes the database. Raft leaves behind a goroutine that may still ask
// for the age of the log; the error that it gets is nobody's fault.
func (s *store) Close() error {
	s.faults.live.Store(false)
	return errors.Join(s.disk.Close(), s.chain.pin.Close(), s.lock.Close())
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
