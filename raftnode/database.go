package raftnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

const (
	// lockTimeout is how long Open waits for a predecessor that is still on its
	// way out to let go of the directory.
	lockTimeout = 2 * time.Second

	lockRetry = 20 * time.Millisecond

	// newSuffix is of files that are being written, and renamed when complete.
	newSuffix = ".new"
)

// lockDir makes this process the only one to use dir, until the lock is closed or
// the process ends. The database's own lock would go with it when it is moved.
func lockDir(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(lockRetry) {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		retry := errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR)
		if retry && time.Now().Before(deadline) {
			continue
		}
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another process: "+
				"stop that one, or use another data directory", databasePath(dir))
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
}

// openBolt opens the database at path. Its structure was verified before: bbolt
// ends the process over a page that is damaged.
func openBolt(path string) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockTimeout,
			// A file that was once big would otherwise slow every commit down,
			// by writing out its list of free pages.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
}

// makeDatabase makes the database in dir, with the record of a replica that knows
// nothing, or only what it has lost. It appears complete or not at all: one without
// its record is damaged.
func makeDatabase(dir, lost string) error {
	if err := makeTail(dir); err != nil {
		return err
	}
	path := databasePath(dir)
	unfinished := path + newSuffix
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	bolt, err := openBolt(unfinished)
	if err != nil {
		return err
	}
	values := map[string][]byte{}
	if lost != "" {
		values[string(lostKey)] = []byte(lost[:min(len(lost), maxLostBytes)])
	}
	record, err := encodeRecord(values)
	if err == nil {
		err = bolt.Set(recordKey, record)
	}
	if err := errors.Join(err, bolt.Close()); err != nil {
		return err
	}
	if err := os.Rename(unfinished, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// databasePath returns where the database in dir is.
func databasePath(dir string) string { return filepath.Join(dir, databaseFile) }
