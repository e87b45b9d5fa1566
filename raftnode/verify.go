package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/hashicorp/raft"
)

// Names of the database's buckets, which raft-boltdb has chosen.
const (
	logsBucket   = "logs"
	stableBucket = "conf"
)

// verifyDatabase reads the database's file and checks its structure, before bbolt
// gets to see it. It returns the indexes of the log, in order; exists is false if
// there is no database.
func verifyDatabase(path string) (indexes []uint64, exists bool, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, false, err
	}
	err = checkBolt(file, info.Size(), func(bucket string, key, _ []byte) error {
		switch {
		case bucket == stableBucket:
		case bucket == logsBucket && len(key) == 8:
			indexes = append(indexes, binary.BigEndian.Uint64(key))
		default:
			return damaged("a key %x in bucket %q", key, bucket)
		}
		return nil
	})
	if err != nil {
		return nil, true, fmt.Errorf("%s: %w", databaseFile, err)
	}
	return indexes, true, nil
}

// verifyLog reads each entry the way raft does and verifies its checksum, that it
// follows the one before, and that the one that was pinned is there. It returns the
// terms of the entries, and the newest.
func verifyLog(log raft.LogStore, indexes []uint64, currentTerm uint64, pinned link) (terms []uint64, tail link, err error) {
	first, err := log.FirstIndex()
	if err != nil {
		return nil, tail, err
	}
	last, err := log.LastIndex()
	if err != nil {
		return nil, tail, err
	}
	if len(indexes) == 0 && (first != 0 || last != 0) ||
		len(indexes) > 0 && (first != indexes[0] || last != indexes[len(indexes)-1]) {
		return nil, tail, damaged("the log goes from %d to %d, but has %d entries", first, last, len(indexes))
	}
	terms = make([]uint64, len(indexes))
	found := pinned == link{}
	for i, index := range indexes {
		var entry raft.Log
		if err := log.GetLog(index, &entry); err != nil {
			return nil, tail, damaged("log entry %d: %w", index, err)
		}
		before, sum, err := unsealEntry(index, &entry)
		if err != nil {
			return nil, tail, damaged("%w", err)
		}
		if i > 0 && index == tail.index+1 && before != tail.sum {
			return nil, tail, damaged("log entry %d does not follow the one before", index)
		}
		tail = link{index, sum}
		found = found || tail == pinned
		terms[i] = entry.Term
		if entry.Term > currentTerm || i > 0 && entry.Term < terms[i-1] {
			return nil, tail, damaged("log entry %d is of term %d, after one of term %d and in term %d",
				index, entry.Term, terms[max(i, 1)-1], currentTerm)
		}
	}
	if !found {
		return nil, tail, damaged("log entry %d is missing or another one", pinned.index)
	}
	return terms, tail, nil
}

// position is an entry's place in the history.
type position struct{ index, term uint64 }

// verifyContinuity checks that the log goes on where the newest snapshot ends, or
// begins at the first entry if that is zero. Entries before superfluous are behind
// the snapshot and cut off from what follows it, or contradict it: those are to be
// deleted, and are what a crash may leave that interrupts the installation of a
// snapshot.
func verifyContinuity(snapshot position, indexes, terms []uint64) (superfluous uint64, err error) {
	if len(indexes) == 0 {
		return 0, nil
	}
	after := 0 // where the entries after the snapshot begin
	for after < len(indexes) && indexes[after] <= snapshot.index {
		after++
	}
	keep := after
	if after > 0 && indexes[after-1] == snapshot.index {
		if terms[after-1] != snapshot.term {
			return indexes[len(indexes)-1] + 1, nil
		}
		for keep = after - 1; keep > 0 && indexes[keep-1]+1 == indexes[keep]; keep-- {
		}
	}
	for i := after; i < len(indexes); i++ {
		if want := snapshot.index + uint64(i-after) + 1; indexes[i] != want {
			return 0, damaged("log entry %d is missing; the newest snapshot is of %d", want, snapshot.index)
		}
	}
	if keep == 0 {
		return 0, nil
	}
	return indexes[keep-1] + 1, nil
}
