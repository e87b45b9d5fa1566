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

// sealEntry returns a copy of log with its checksum at the end of the extensions,
// which are empty otherwise, so that no data has to be copied. Log is unchanged.
func sealEntry(log *raft.Log) *raft.Log {
	sealed := *log
	sealed.Extensions = binary.BigEndian.AppendUint64(
		append(make([]byte, 0, len(log.Extensions)+checksumBytes), log.Extensions...), entryChecksum(log))
	return &sealed
}

// unsealEntry verifies the entry that was read for index, and takes its checksum
// off. An entry that is not sound is emptied.
func unsealEntry(index uint64, log *raft.Log) error {
	read := *log
	*log = raft.Log{}
	if len(read.Extensions) < checksumBytes {
		return fmt.Errorf("log entry %d: %w: it has none", index, errChecksum)
	}
	end := len(read.Extensions) - checksumBytes
	sum := binary.BigEndian.Uint64(read.Extensions[end:])
	read.Extensions = read.Extensions[:end:end]
	if end == 0 {
		read.Extensions = nil
	}
	if entryChecksum(&read) != sum {
		return fmt.Errorf("log entry %d: %w", index, errChecksum)
	}
	if read.Index != index {
		return fmt.Errorf("log entry %d: entry %d is in its place", index, read.Index)
	}
	*log = read
	return nil
}

// entryChecksum covers every field, and where one ends and the next begins.
func entryChecksum(log *raft.Log) uint64 {
	var header [49]byte
	binary.BigEndian.PutUint64(header[0:], log.Index)
	binary.BigEndian.PutUint64(header[8:], log.Term)
	binary.BigEndian.PutUint64(header[16:], uint64(len(log.Data)))
	binary.BigEndian.PutUint64(header[24:], uint64(len(log.Extensions)))
	binary.BigEndian.PutUint64(header[32:], uint64(log.AppendedAt.Unix()))
	binary.BigEndian.PutUint64(header[40:], uint64(log.AppendedAt.Nanosecond()))
	header[48] = byte(log.Type)
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
