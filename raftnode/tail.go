package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
)

// tailFile holds the position and the checksum of the newest log entry.
//
// The checksum of an entry covers that of the entry before, so the newest one pins
// all of the log. Without the pin, one flipped bit in a page's number can lead
// bbolt to a page that was in use once: an older log, in which everything is sound
// and the newest entries are missing.
const tailFile = "raft.tail"

// chain stores entries, each sealed together with its predecessor, and pins the
// newest. It is all of a log but its reading.
type chain struct {
	disk raft.LogStore
	pin  *os.File

	mu sync.Mutex // held over writes, which bbolt lets happen one by one as well
	// tail is the newest entry; zero if there is none.
	tail link
}

// link is an entry's place in the chain.
type link struct {
	index uint64
	sum   uint64
}

// store appends entries. They go on where the log ends, or leave a gap.
//
// The pin is moved after the entries are on disk, and not synced: after a loss of
// power it may name an older entry, but never one that is not there.
func (c *chain) store(logs []*raft.Log) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	tail := c.tail
	sealed := make([]*raft.Log, len(logs))
	for i, log := range logs {
		if log.Index <= tail.index {
			return fmt.Errorf("entry %d is to be stored after entry %d", log.Index, tail.index)
		}
		var before uint64
		if log.Index == tail.index+1 {
			before = tail.sum
		}
		sealed[i], tail = sealEntry(log, before)
	}
	if err := c.disk.StoreLogs(sealed); err != nil {
		return err
	}
	c.tail = tail
	return c.setPin(tail)
}

// deleteRange deletes entries. If the newest is among them, the pin is moved, and
// synced, before.
func (c *chain) deleteRange(first, last uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if first > c.tail.index || last < c.tail.index {
		return c.disk.DeleteRange(first, last)
	}
	left, err := linkTo(c.disk, first-1)
	if err != nil {
		return err
	}
	if err := c.setPin(left); err != nil {
		return err
	}
	if err := c.pin.Sync(); err != nil {
		return err
	}
	if err := c.disk.DeleteRange(first, last); err != nil {
		return err
	}
	c.tail = left
	return nil
}

func (c *chain) setPin(to link) error {
	_, err := c.pin.WriteAt(sealLink(to), 0)
	return err
}

// linkTo reads an entry's link; it is zero if there is no such entry.
func linkTo(log raft.LogStore, index uint64) (link, error) {
	var entry raft.Log
	err := log.GetLog(index, &entry)
	if errors.Is(err, raft.ErrLogNotFound) {
		return link{}, nil
	}
	if err != nil {
		return link{}, err
	}
	_, sum, err := unsealEntry(index, &entry)
	return link{index, sum}, err
}

func sealLink(l link) []byte {
	content := binary.BigEndian.AppendUint64(nil, l.index)
	return sealBytes(binary.BigEndian.AppendUint64(content, l.sum))
}

// makeTail makes the pin of a log without entries.
func makeTail(dir string) error {
	return writeDurably(filepath.Join(dir, tailFile), sealLink(link{}))
}

// openTail opens the pin in dir and reads it.
func openTail(dir string) (pin *os.File, pinned link, err error) {
	pin, err = os.OpenFile(filepath.Join(dir, tailFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, link{}, damaged("%s is missing", tailFile)
	}
	if err != nil {
		return nil, link{}, err
	}
	defer func() {
		if err != nil {
			_ = pin.Close()
		}
	}()
	sealed := make([]byte, len(sealLink(link{})))
	if err := readFull(pin, sealed, 0); err != nil {
		return nil, link{}, fmt.Errorf("%s: %w", tailFile, err)
	}
	content, err := unsealBytes(sealed)
	if err != nil {
		return nil, link{}, damaged("%s: %w", tailFile, err)
	}
	return pin, link{binary.BigEndian.Uint64(content), binary.BigEndian.Uint64(content[8:])}, nil
}
