package raftnode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The files of a snapshot. All but the seal are the library's, and its checksum
// covers the state alone: without the seal, a damaged description would be taken
// for true, or passed over in silence for that of an older snapshot.
const (
	metaFile  = "meta.json"
	stateFile = "state.bin"
	sealFile  = "seal"

	unfinishedSuffix = ".tmp"
)

// snapshotMeta is what the library writes into metaFile.
type snapshotMeta struct {
	raft.SnapshotMeta
	CRC []byte // CRC-64 of the state
}

// sealOf returns what the seal of a description says.
func sealOf(meta []byte) []byte {
	return fmt.Appendf(nil, "snapshot %016x\n", crc64.Checksum(meta, checksumTable()))
}

// readSnapshotMeta returns the description of the snapshot in dir, if it is the
// one that was sealed.
func readSnapshotMeta(dir string) (*snapshotMeta, error) {
	meta, err := readSnapshotFile(dir, metaFile)
	if err != nil {
		return nil, err
	}
	seal, err := readSnapshotFile(dir, sealFile)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(dir)
	if !bytes.Equal(seal, sealOf(meta)) {
		return nil, damaged("snapshot %s: %s: %w", name, metaFile, errChecksum)
	}
	var decoded snapshotMeta
	if err := json.Unmarshal(meta, &decoded); err != nil {
		return nil, damaged("snapshot %s: %s: %w", name, metaFile, err)
	}
	if decoded.ID != name {
		return nil, damaged("snapshot %s: that is %s", name, decoded.ID)
	}
	return &decoded, nil
}

func readSnapshotFile(dir, name string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged("snapshot %s: %s is missing", filepath.Base(dir), name)
	}
	return content, err
}

// verifySnapshot reads the snapshot in dir wholly.
func verifySnapshot(dir string) (position, error) {
	meta, err := readSnapshotMeta(dir)
	if err != nil {
		return position{}, err
	}
	state, err := os.Open(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return position{}, damaged("snapshot %s: %s is missing", meta.ID, stateFile)
	}
	if err != nil {
		return position{}, err
	}
	defer func() { _ = state.Close() }()
	sum := crc64.New(checksumTable())
	size, err := io.Copy(sum, state)
	if err != nil {
		return position{}, err
	}
	if size != meta.Size || !bytes.Equal(sum.Sum(nil), meta.CRC) {
		return position{}, damaged("snapshot %s: %s: %w", meta.ID, stateFile, errChecksum)
	}
	return position{meta.Index, meta.Term}, nil
}

// verifySnapshots verifies the newest snapshot in dir and returns its position,
// or zero if there is none. Snapshots that are not finished are removed, and older
// ones that are not whole: a crash can leave them behind half deleted.
//
// It never falls back on an older one: what the log lacks since would be missing.
func verifySnapshots(dir string, logger hclog.Logger) (newest position, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return position{}, nil
	}
	if err != nil {
		return position{}, err
	}
	var finished [][3]uint64 // term, index, time
	for _, entry := range entries {
		if !entry.IsDir() {
			continue // the library looks at directories alone
		}
		path := filepath.Join(dir, entry.Name())
		if strings.HasSuffix(entry.Name(), unfinishedSuffix) {
			if err := os.RemoveAll(path); err != nil {
				return position{}, fmt.Errorf("remove an unfinished snapshot: %w", err)
			}
			continue
		}
		parsed, ok := parseSnapshotName(entry.Name())
		if !ok {
			return position{}, fmt.Errorf("%s is no snapshot of this replica: move it away", path)
		}
		finished = append(finished, parsed)
	}
	slices.SortFunc(finished, func(a, b [3]uint64) int { return slices.Compare(b[:], a[:]) })
	for i, parsed := range finished {
		path := filepath.Join(dir, snapshotName(parsed))
		at, err := verifySnapshot(path)
		var damage *damageError
		switch {
		case err == nil && at != position{parsed[1], parsed[0]}:
			err = damaged("snapshot %s: it is of term %d and index %d", filepath.Base(path), at.term, at.index)
			return position{}, err
		case err == nil && i == 0:
			newest = at
		case i > 0 && errors.As(err, &damage):
			logger.Warn("an old snapshot is not whole: it is removed", "snapshot", filepath.Base(path), "error", err)
			if err := os.RemoveAll(path); err != nil {
				return position{}, fmt.Errorf("remove an old snapshot: %w", err)
			}
		case err != nil:
			return position{}, err
		}
	}
	return newest, nil
}

// parseSnapshotName returns the term, the index and the time in the name that the
// library gives to a snapshot.
func parseSnapshotName(name string) (parsed [3]uint64, ok bool) {
	parts := strings.Split(name, "-")
	if len(parts) != len(parsed) {
		return parsed, false
	}
	for i, part := range parts {
		var err error
		if parsed[i], err = strconv.ParseUint(part, 10, 64); err != nil {
			return parsed, false
		}
	}
	return parsed, snapshotName(parsed) == name
}

func snapshotName(parsed [3]uint64) string {
	return fmt.Sprintf("%d-%d-%d", parsed[0], parsed[1], parsed[2])
}
