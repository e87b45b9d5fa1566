package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"

	"github.com/hashicorp/raft"
)

// checksumBytes is the length of a checksum, which ends what it protects.
const checksumBytes = 8

// errChecksum says that what was read is not what was written.
var errChecksum = errors.New("wrong checksum")

// checksumTable is of the polynomial that the library uses for its snapshots.
func checksumTable() *crc64.Table { return crc64.MakeTable(crc64.ECMA) }

// sealBytesOfEntry is what sealing adds to an entry: the checksum of the one before,
// and its own.
const sealBytesOfEntry = 2 * checksumBytes

// sealEntry returns a copy of log with the seal at the end of the extensions, which
// are empty otherwise, so that no data has to be copied, and its place in the
// chain. Before is the checksum of the entry before, or zero. Log is unchanged.
func sealEntry(log *raft.Log, before uint64) (*raft.Log, link) {
	sealed := *log
	sum := entryChecksum(log, before)
	sealed.Extensions = append(make([]byte, 0, len(log.Extensions)+sealBytesOfEntry), log.Extensions...)
	sealed.Extensions = binary.BigEndian.AppendUint64(sealed.Extensions, before)
	sealed.Extensions = binary.BigEndian.AppendUint64(sealed.Extensions, sum)
	return &sealed, link{log.Index, sum}
}

// unsealEntry verifies the entry that was read for index, and takes its seal off,
// which it returns. An entry that is not sound is emptied.
func unsealEntry(index uint64, log *raft.Log) (before, sum uint64, err error) {
	read := *log
	*log = raft.Log{}
	end := len(read.Extensions) - sealBytesOfEntry
	if end < 0 {
		return 0, 0, fmt.Errorf("log entry %d: %w: it has none", index, errChecksum)
	}
	before = binary.BigEndian.Uint64(read.Extensions[end:])
	sum = binary.BigEndian.Uint64(read.Extensions[end+checksumBytes:])
	read.Extensions = read.Extensions[:end:end]
	if end == 0 {
		read.Extensions = nil
	}
	if entryChecksum(&read, before) != sum {
		return 0, 0, fmt.Errorf("log entry %d: %w", index, errChecksum)
	}
	if read.Index != index {
		return 0, 0, fmt.Errorf("log entry %d: entry %d is in its place", index, read.Index)
	}
	*log = read
	return before, sum, nil
}

// entryChecksum covers every field, and where one ends and the next begins.
func entryChecksum(log *raft.Log, before uint64) uint64 {
	var header [57]byte
	binary.BigEndian.PutUint64(header[0:], log.Index)
	binary.BigEndian.PutUint64(header[8:], log.Term)
	binary.BigEndian.PutUint64(header[16:], uint64(len(log.Data)))
	binary.BigEndian.PutUint64(header[24:], uint64(len(log.Extensions)))
	binary.BigEndian.PutUint64(header[32:], uint64(log.AppendedAt.Unix()))
	binary.BigEndian.PutUint64(header[40:], uint64(log.AppendedAt.Nanosecond()))
	binary.BigEndian.PutUint64(header[48:], before)
	header[56] = byte(log.Type)
	table := checksumTable()
	sum := crc64.Update(crc64.Checksum(header[:], table), table, log.Data)
	return crc64.Update(sum, table, log.Extensions)
}

// sealBytes returns content and its checksum.
func sealBytes(content []byte) []byte {
	sum := crc64.Checksum(content, checksumTable())
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, len(content)+checksumBytes), content...), sum)
}

// unsealBytes returns what sealBytes was given.
func unsealBytes(sealed []byte) ([]byte, error) {
	end := len(sealed) - checksumBytes
	if end < 0 || crc64.Checksum(sealed[:end], checksumTable()) != binary.BigEndian.Uint64(sealed[end:]) {
		return nil, errChecksum
	}
	return sealed[:end], nil
}
