package raftnode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The file format of bbolt, version 2. It has checksums for its two meta pages
// alone, and bbolt trusts the rest: a damaged page makes it read beyond the end
// of its map, recurse without end, or panic on a goroutine of its own, each of
// which ends the process before it could do anything about it. So the file is
// read here first, the way that bbolt would, but with every bound checked.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	boltHeaderBytes  = 16 // of a page: id 8, flags 2, count 2, overflow 4
	boltElementBytes = 16 // leaf: flags, offset, key and value size, 4 each; branch: offset 4, key size 4, page 8
	boltBucketBytes  = 16 // of a bucket's value: root page 8, sequence 8
	boltMetaBytes    = 64
	boltSumOffset    = 56 // in a meta: where its checksum is, over all before it

	boltBranch = 0x01
	boltLeaf   = 0x02
	boltBucket = 0x01 // flag of a leaf's element

	boltMinPage = 1 << 10
	boltMaxPage = 1 << 16

	// boltMaxDepth is far more than the height of any tree that fits on a disk.
	boltMaxDepth = 64
)

// boltFile is a database as it is on disk.
type boltFile struct {
	file      io.ReaderAt
	pageBytes int64
	pages     uint64          // all ids in use are below
	seen      map[uint64]bool // each page has one place in the tree
}

// boltMeta is one of the two roots; writes alternate between them.
type boltMeta struct {
	pageBytes int64
	root      uint64
	pages     uint64
	tx        uint64
}

// checkBolt reads the whole tree of the newest state of a database and calls
// visit for each key of each bucket, in order.
//
// The errors are damages, apart from those of reading and of visit.
func checkBolt(file io.ReaderAt, size int64, visit func(bucket string, key, value []byte) error) error {
	meta, err := newestMeta(file, size)
	if err != nil {
		return err
	}
	f := &boltFile{file: file, pageBytes: meta.pageBytes, pages: meta.pages, seen: map[uint64]bool{}}
	return f.tree(meta.root, nil, nil, 0, func(flags uint32, name, value []byte) error {
		if flags != boltBucket {
			return damaged("%q is no bucket", name)
		}
		bucket := string(name)
		return f.bucket(bucket, value, func(flags uint32, key, value []byte) error {
			if flags != 0 {
				return damaged("key %q of bucket %q has the flags %#x", key, bucket, flags)
			}
			return visit(bucket, key, value)
		})
	})
}

// newestMeta returns the root that bbolt would use. Both have to be sound: bbolt
// takes the older if the newer is damaged, and the last write were undone.
func newestMeta(file io.ReaderAt, size int64) (boltMeta, error) {
	first, err := readMeta(file, 0)
	if err != nil {
		return boltMeta{}, fmt.Errorf("meta page 0: %w", err)
	}
	second, err := readMeta(file, first.pageBytes)
	if err != nil {
		return boltMeta{}, fmt.Errorf("meta page 1: %w", err)
	}
	if first.pageBytes != second.pageBytes {
		return boltMeta{}, damaged("the meta pages differ in the size of a page: %d and %d", first.pageBytes, second.pageBytes)
	}
	newest := first
	if second.tx > first.tx {
		newest = second
	}
	if newest.pages > uint64(size/newest.pageBytes) {
		return boltMeta{}, damaged("the file is truncated: it has %d bytes and needs %d pages of %d",
			size, newest.pages, newest.pageBytes)
	}
	return newest, nil
}

func readMeta(file io.ReaderAt, offset int64) (boltMeta, error) {
	var page [boltHeaderBytes + boltMetaBytes]byte
	if err := readFull(file, page[:], offset); err != nil {
		return boltMeta{}, err
	}
	meta := page[boltHeaderBytes:]
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:boltSumOffset])
	if sum.Sum64() != binary.NativeEndian.Uint64(meta[boltSumOffset:]) {
		return boltMeta{}, damaged("%w", errChecksum)
	}
	magic, version := binary.NativeEndian.Uint32(meta), binary.NativeEndian.Uint32(meta[4:])
	if magic != boltMagic || version != boltVersion {
		return boltMeta{}, damaged("not that of a database: magic %#x, version %d", magic, version)
	}
	m := boltMeta{
		pageBytes: int64(binary.NativeEndian.Uint32(meta[8:])),
		root:      binary.NativeEndian.Uint64(meta[16:]),
		pages:     binary.NativeEndian.Uint64(meta[40:]),
		tx:        binary.NativeEndian.Uint64(meta[48:]),
	}
	if m.pageBytes < boltMinPage || m.pageBytes > boltMaxPage {
		return boltMeta{}, damaged("pages of %d bytes", m.pageBytes)
	}
	return m, nil
}

// bucket checks the bucket whose value in the root bucket is given.
func (f *boltFile) bucket(name string, value []byte, visit func(flags uint32, key, value []byte) error) error {
	if len(value) < boltBucketBytes {
		return damaged("bucket %q has a value of %d bytes", name, len(value))
	}
	root, inline := binary.NativeEndian.Uint64(value), value[boltBucketBytes:]
	if root != 0 {
		if len(inline) != 0 {
			return damaged("bucket %q has %d bytes too many", name, len(inline))
		}
		return f.tree(root, nil, nil, 0, visit)
	}
	// A small bucket is a page of its own in the value, and ends where that does.
	page, err := parsePage(inline)
	if err != nil {
		return fmt.Errorf("bucket %q: %w", name, err)
	}
	if page.id != 0 || page.flags != boltLeaf || page.overflow != 0 || page.used != int64(len(inline)) {
		return damaged("bucket %q: page %d with flags %#x uses %d of %d bytes",
			name, page.id, page.flags, page.used, len(inline))
	}
	return page.leaf(nil, nil, visit)
}

// tree checks the page of that id and all below it. Its first key has to be low
// (any, if nil), and its last below high (any, if nil).
func (f *boltFile) tree(id uint64, low, high []byte, depth int, visit func(flags uint32, key, value []byte) error) error {
	if depth > boltMaxDepth {
		return damaged("page %d is %d pages deep", id, depth)
	}
	page, err := f.page(id)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	if page.flags == boltLeaf {
		if page.count == 0 && depth > 0 {
			return damaged("page %d: an empty leaf", id)
		}
		if err := page.leaf(low, high, visit); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		return nil
	}
	if page.count == 0 {
		return damaged("page %d: an empty branch", id)
	}
	for i := range page.count {
		key, next := page.key(i), high
		if i+1 < page.count {
			next = page.key(i + 1)
		}
		if err := inOrder(key, i == 0, low, next); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		if err := f.tree(page.child(i), key, next, depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}

// page reads a page with all that it flows over into, and checks its layout.
func (f *boltFile) page(id uint64) (*boltPage, error) {
	header := make([]byte, f.pageBytes)
	if id < 2 || id >= f.pages {
		return nil, damaged("not below %d", f.pages)
	}
	if err := readFull(f.file, header, int64(id)*f.pageBytes); err != nil {
		return nil, err
	}
	overflow := uint64(binary.NativeEndian.Uint32(header[12:]))
	if overflow >= f.pages-id {
		return nil, damaged("flows over into %d pages of %d", overflow, f.pages)
	}
	for used := id; used <= id+overflow; used++ {
		if f.seen[used] {
			return nil, damaged("page %d is in two places", used)
		}
		f.seen[used] = true
	}
	content := header
	if overflow > 0 {
		content = make([]byte, (int64(overflow)+1)*f.pageBytes)
		copy(content, header)
		if err := readFull(f.file, content[f.pageBytes:], int64(id+1)*f.pageBytes); err != nil {
			return nil, err
		}
	}
	page, err := parsePage(content)
	if err != nil {
		return nil, err
	}
	if page.id != id {
		return nil, damaged("page %d is in its place", page.id)
	}
	if needed := (page.used + f.pageBytes - 1) / f.pageBytes; needed != int64(overflow)+1 {
		return nil, damaged("its %d bytes are in %d pages", page.used, overflow+1)
	}
	return page, nil
}

// boltPage is a page of the tree whose layout was found to be sound.
type boltPage struct {
	content  []byte
	id       uint64
	flags    uint16
	count    int
	overflow uint32
	used     int64
	keys     []boltSpan
}

// boltSpan says where in the page an element's key begins and ends; in a leaf the
// value follows, up to end.
type boltSpan struct{ key, value, end int64 }

// parsePage checks the layout: keys and values follow the elements without a gap,
// so that no element can be missing.
func parsePage(content []byte) (*boltPage, error) {
	if len(content) < boltHeaderBytes {
		return nil, damaged("a page of %d bytes", len(content))
	}
	p := &boltPage{
		content:  content,
		id:       binary.NativeEndian.Uint64(content),
		flags:    binary.NativeEndian.Uint16(content[8:]),
		count:    int(binary.NativeEndian.Uint16(content[10:])),
		overflow: binary.NativeEndian.Uint32(content[12:]),
	}
	if p.flags != boltLeaf && p.flags != boltBranch {
		return nil, damaged("flags %#x", p.flags)
	}
	end := int64(boltHeaderBytes + p.count*boltElementBytes)
	if end > int64(len(content)) {
		return nil, damaged("%d elements in %d bytes", p.count, len(content))
	}
	p.keys = make([]boltSpan, p.count)
	for i := range p.count {
		element := p.element(i)
		if p.flags == boltLeaf {
			element = element[4:]
		}
		var offset, keyBytes, valueBytes int64
		offset = int64(boltHeaderBytes+i*boltElementBytes) + int64(binary.NativeEndian.Uint32(element))
		keyBytes = int64(binary.NativeEndian.Uint32(element[4:]))
		if p.flags == boltLeaf {
			valueBytes = int64(binary.NativeEndian.Uint32(element[8:]))
		}
		if offset != end || keyBytes == 0 || end+keyBytes+valueBytes > int64(len(content)) {
			return nil, damaged("element %d of %d: a key of %d and a value of %d bytes at %d, after %d",
				i, p.count, keyBytes, valueBytes, offset, end)
		}
		p.keys[i] = boltSpan{key: end, value: end + keyBytes, end: end + keyBytes + valueBytes}
		end = p.keys[i].end
	}
	p.used = end
	return p, nil
}

// element returns the bytes from element i on.
func (p *boltPage) element(i int) []byte { return p.content[boltHeaderBytes+i*boltElementBytes:] }

func (p *boltPage) key(i int) []byte {
	return p.content[p.keys[i].key:p.keys[i].value:p.keys[i].value]
}

func (p *boltPage) value(i int) []byte {
	return p.content[p.keys[i].value:p.keys[i].end:p.keys[i].end]
}

// child returns the page that element i of a branch leads to.
func (p *boltPage) child(i int) uint64 { return binary.NativeEndian.Uint64(p.element(i)[8:]) }

// leaf visits the elements of a leaf, whose keys are bounded as in tree.
func (p *boltPage) leaf(low, high []byte, visit func(flags uint32, key, value []byte) error) error {
	for i := range p.count {
		next := high
		if i+1 < p.count {
			next = p.key(i + 1)
		}
		if err := inOrder(p.key(i), i == 0, low, next); err != nil {
			return err
		}
		if err := visit(binary.NativeEndian.Uint32(p.element(i)), p.key(i), p.value(i)); err != nil {
			return err
		}
	}
	return nil
}

// inOrder checks one key of a page: the first is the very one by which its parent
// leads here, and each is below the next.
func inOrder(key []byte, first bool, low, next []byte) error {
	if first && low != nil && !bytes.Equal(key, low) {
		return damaged("begins with the key %x instead of %x", key, low)
	}
	if next != nil && bytes.Compare(key, next) >= 0 {
		return damaged("the key %x is before %x", key, next)
	}
	return nil
}

// readFull reads len(p) bytes. A file that ends before is damaged; other errors
// are the disk's.
func readFull(file io.ReaderAt, p []byte, offset int64) error {
	n, err := file.ReadAt(p, offset)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return damaged("the file ends in the middle of it")
	default:
		return err
	}
}
