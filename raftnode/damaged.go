package raftnode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// ErrLostState says that this replica's data directory once held state that was
// found damaged. What the cluster knew may be in there, or with other replicas
// that can't be reached now: this replica may join a cluster, but not found one.
var ErrLostState = errors.New("the state of this replica was lost")

const (
	// condemnedFile marks a store whose state may not be used any more. It stays
	// until an empty store has taken its place.
	condemnedFile = "condemned"

	// damagedPrefix begins the names of directories with damaged stores.
	damagedPrefix = "damaged-"

	// damagedFormat of the time, in UTC, sorts by age.
	damagedFormat = "20060102T150405.000Z"

	// keepDamaged is how many damaged stores are kept for people to look at.
	keepDamaged = 3

	// maxLostBytes is how much of what was found the new replica remembers.
	maxLostBytes = 200

	// reasonFile is in the directory of a damaged store, and says what was found.
	reasonFile = "reason.txt"
)

// lostKey is among the stable values of a replica that took the place of one with
// a damaged store; its value is what was found.
var lostKey = []byte("LostState")

// damageError is an error of what is on disk, as opposed to one of the disk.
type damageError struct{ err error }

func (e *damageError) Error() string { return e.err.Error() }
func (e *damageError) Unwrap() error { return e.err }

func damaged(format string, args ...any) error {
	return &damageError{fmt.Errorf(format, args...)}
}

// MayBootstrap returns nil, or an error that is ErrLostState and says what was
// lost and what to do, if this replica may only join a cluster.
func (n *Node) MayBootstrap() error { return n.store.mayFound() }

// Condemn marks the store of the replica in dir as damaged, which has been found
// out by other means: the next Open sets it aside and starts as a new replica. One
// that runs goes on; its process should stop.
func Condemn(dir, reason string) error {
	if err := writeDurably(filepath.Join(dir, condemnedFile), []byte(reason)); err != nil {
		return fmt.Errorf("condemn the store in %s: %w", dir, err)
	}
	return nil
}

// condemned returns a damage if the store in dir was condemned.
func condemned(dir string) error {
	reason, err := os.ReadFile(filepath.Join(dir, condemnedFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	default:
		return damaged("condemned: %s", reason)
	}
}

// mayFound returns the error of MayBootstrap.
func (s *store) mayFound() error {
	reason, err := s.stable.get(lostKey)
	if err != nil { // not found
		return nil
	}
	return fmt.Errorf("%w (%s), so it can join a cluster but not found one: start a replica that has the state. "+
		"If none has, give the state up by emptying %s, on every replica, or restore a backup", ErrLostState, reason, s.dir)
}

// setAside moves the store in dir to a directory beside it, and condemns it until
// renewed, so that a crash in between is no way back to a part of it.
func setAside(dir string, damage error, logger hclog.Logger) error {
	marked := filepath.Join(dir, condemnedFile)
	if _, err := os.Stat(marked); errors.Is(err, fs.ErrNotExist) {
		if err := Condemn(dir, damage.Error()); err != nil {
			return err
		}
	}
	target, err := makeDamagedDir(dir)
	if err != nil {
		return err
	}
	for _, name := range []string{databaseFile, tailFile, snapshotsDir} {
		err := os.Rename(filepath.Join(dir, name), filepath.Join(target, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := writeDurably(filepath.Join(target, reasonFile), []byte(damage.Error()+"\n")); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	logger.Error("the store is damaged: it was set aside, and a new replica takes its place",
		"error", damage, "dir", dir, "moved_to", target)
	return forgetDamaged(dir, filepath.Base(target))
}

// renewed says that an empty store has taken the place of the one set aside.
func renewed(dir string) error {
	if err := os.Remove(filepath.Join(dir, condemnedFile)); err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDamagedDir makes a directory for a damaged store, named after the time.
func makeDamagedDir(dir string) (string, error) {
	for now := time.Now().UTC(); ; now = now.Add(time.Millisecond) {
		path := filepath.Join(dir, damagedPrefix+now.Format(damagedFormat))
		if err := os.Mkdir(path, 0o700); !errors.Is(err, fs.ErrExist) {
			return path, err
		}
	}
}

// forgetDamaged removes the oldest damaged stores, but never the one named last.
func forgetDamaged(dir, last string) error {
	names, err := damagedDirs(dir)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == last })
	for len(names) >= keepDamaged {
		if err := os.RemoveAll(filepath.Join(dir, names[0])); err != nil {
			return err
		}
		names = names[1:]
	}
	return nil
}

// damagedDirs returns the names of the damaged stores in dir, oldest first.
func damagedDirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && strings.HasPrefix(entry.Name(), damagedPrefix) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// writeDurably replaces the file at path; a crash leaves the old one or the new.
func writeDurably(path string, content []byte) error {
	unfinished := path + newSuffix
	file, err := os.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(unfinished, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes what was created, renamed and removed in dir durable.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
