package oip

import "encoding/binary"

// lengthBytes is what precedes the content of each BYTES element: its length,
// little-endian.
const lengthBytes = 4

// frame is the raw form of BYTES elements. A message is far shorter than the
// 4 GiB that a length can say.
func frame(elements [][]byte) []byte {
	size := 0
	for _, e := range elements {
		size += lengthBytes + len(e)
	}
	data := make([]byte, 0, size)
	for _, e := range elements {
		data = binary.LittleEndian.AppendUint32(data, uint32(len(e)))
		data = append(data, e...)
	}
	return data
}

// skipFrames goes past n elements of raw BYTES and returns what follows. It
// takes fewer than n when data ends inside of the next one.
func skipFrames(data []byte, n int64) (taken int64, rest []byte) {
	for ; taken < n; taken++ {
		if len(data) < lengthBytes {
			return taken, data
		}
		length := uint64(binary.LittleEndian.Uint32(data))
		if uint64(len(data)-lengthBytes) < length {
			return taken, data
		}
		data = data[lengthBytes+length:]
	}
	return taken, data
}
