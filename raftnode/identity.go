package raftnode

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

const identityBytes = 8 // of randomness

// identityKey is where the id is among the stable values.
var identityKey = []byte("ReplicaID")

// identify returns the id of the replica in dir, and makes one for a store that is
// new: one that has any other state has its id.
//
// The id is kept in one record with the votes. They live and die together, then: a
// replica that had lost its votes but not its id could vote twice in one term.
func identify(dir, name string, store *store) (string, error) {
	kept, err := store.Get(identityKey)
	switch {
	case err == nil:
		id := string(kept)
		if !wellFormed(id, name) {
			return "", fmt.Errorf("%s belongs to the replica %s, not to one named %q: "+
				"set its former name, or use another data directory", dir, id, name)
		}
		return id, nil
	case !errors.Is(err, raftboltdb.ErrKeyNotFound):
		return "", fmt.Errorf("read the replica's id: %w", err)
	}

	random := make([]byte, identityBytes)
	_, _ = rand.Read(random) // never fails: it ends the process instead
	id := name + "-" + hex.EncodeToString(random)
	if err := store.Set(identityKey, []byte(id)); err != nil {
		return "", fmt.Errorf("keep the replica's id: %w", err)
	}
	return id, nil
}

// wellFormed reports whether id is name, a dash and the random part.
func wellFormed(id, name string) bool {
	random, ok := strings.CutPrefix(id, name+"-")
	decoded, err := hex.DecodeString(random)
	return ok && err == nil && len(decoded) == identityBytes
}
