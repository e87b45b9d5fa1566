package raftnode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// recordKey is where the stable values are in the database, all in one.
var recordKey = []byte("replica")

// maxRecordBytes keeps the record in the root page of the database, which is sure
// to be the newest. A page of its own would be found by its number, and a damaged
// number can lead to an older record.
const maxRecordBytes = 900

// stable holds the replica's id, its term and its votes in memory and keeps them
// on disk as one sealed record. Kept one by one, a damaged database could lose
// the vote and still have the term: that replica would vote again.
type stable struct {
	disk raft.StableStore

	mu     sync.Mutex
	values map[string][]byte
}

// newStable keeps values in disk from the first set on.
func newStable(disk raft.StableStore, values map[string][]byte) *stable {
	return &stable{disk: disk, values: values}
}

// get returns a copy, or the library's error for a missing key, whose text raft
// compares.
func (s *stable) get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.values[string(key)]
	if !ok {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return bytes.Clone(value), nil
}

// set returns once the record with the new value is on disk. A value that is
// there already (most votes go to the same candidate as the last) costs nothing.
func (s *stable) set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kept, ok := s.values[string(key)]; ok && bytes.Equal(kept, value) {
		return nil
	}
	values := maps.Clone(s.values)
	values[string(key)] = append([]byte{}, value...)
	record, err := encodeRecord(values)
	if err != nil {
		return err
	}
	if err := s.disk.Set(recordKey, record); err != nil {
		return err
	}
	s.values = values
	return nil
}

func encodeRecord(values map[string][]byte) ([]byte, error) {
	content, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("encode the record of the term and the votes: %w", err)
	}
	if len(content) > maxRecordBytes {
		return nil, fmt.Errorf("the record of the term and the votes is of %d bytes and may be of %d: "+
			"shorten the replicas' names or addresses", len(content), maxRecordBytes)
	}
	return sealBytes(content), nil
}

// readRecord returns the values that disk keeps. Any error but that of the disk
// itself is a damage: a database without its record is never left behind.
func readRecord(disk raft.StableStore) (map[string][]byte, error) {
	sealed, err := disk.Get(recordKey)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		if _, err := disk.Get(identityKey); err == nil {
			return nil, errors.New("it was written by a version from before the first release, without checksums: " +
				"move the directory away, and the replica rejoins as a new one")
		}
		return nil, damaged("the record of the term and the votes is missing")
	}
	if err != nil {
		return nil, err
	}
	content, err := unsealBytes(sealed)
	if err != nil {
		return nil, damaged("the record of the term and the votes: %w", err)
	}
	values := map[string][]byte{}
	if err := json.Unmarshal(content, &values); err != nil {
		return nil, damaged("the record of the term and the votes: %w", err)
	}
	return values, nil
}
