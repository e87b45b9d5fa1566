package raftnode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

var (
	flips    = flag.Int("flips", 150, "random bit flips in TestRandomBitFlips")
	flipSeed = flag.Uint64("flip-seed", rand.Uint64(), "seed of TestRandomBitFlips")
)

// image is all that a replica can read of its store.
type image struct {
	id       string
	values   map[string][]byte
	entries  []raft.Log
	snapshot raft.SnapshotMeta
	state    []byte
}

// files are the contents of a directory by path.
type files map[string][]byte

// stopped returns the files of a replica that has run: a log over several pages,
// with some entries that fill pages of their own, two snapshots and a vote.
func stopped(t *testing.T) files {
	t.Helper()
	var dir string
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.adjust = func(o *Options) { o.Snapshots = Snapshots{Trailing: 120} }
		c.form("c1")
		r := c.replicas["c1"]
		dir = r.dir
		for range 3 {
			for i := range 100 {
				size := 20 + i
				if i%40 == 7 {
					size = 10_000
				}
				c.apply(strings.Repeat("x", size))
			}
			if len(r.fsm.content()) < 300 {
				if err := r.raft.Snapshot().Error(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		dir = keep(t, dir)
	})
	defer func() { _ = os.RemoveAll(filepath.Dir(dir)) }()
	return readFiles(t, dir)
}

// keep moves dir out of the reach of the test that it belongs to, into a directory
// of its own.
func keep(t *testing.T, dir string) string {
	t.Helper()
	kept, err := os.MkdirTemp("", "raftnode")
	if err != nil {
		t.Fatal(err)
	}
	kept = filepath.Join(kept, "store")
	if err := os.Rename(dir, kept); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return kept
}

func readFiles(t *testing.T, dir string) files {
	t.Helper()
	all := files{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		all[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// in returns a new directory that holds the files.
func (f files) in(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range f {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// with returns f with another content of one file; nil leaves the file out.
func (f files) with(name string, content []byte) files {
	changed := maps.Clone(f)
	changed[name] = content
	if content == nil {
		delete(changed, name)
	}
	return changed
}

// flipped returns f with one bit of one file changed.
func (f files) flipped(name string, bit int) files {
	content := bytes.Clone(f[name])
	content[bit/8] ^= 1 << (bit % 8)
	return f.with(name, content)
}

// find returns the names that end so, in order.
func (f files) find(suffix string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
	}
	return names
}

func storeOptions(dir string) Options {
	return Options{Dir: dir, Name: "c1", Snapshots: Snapshots{Retain: 2}, OnFault: func(err error) { panic(err) }}
}

// view opens the store in dir, reads all of it, and lets use go on with it.
func view(t *testing.T, dir string, use func(*store)) image {
	t.Helper()
	s, err := openStore(storeOptions(dir))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	seen := image{}
	if seen.id, err = identify(dir, "c1", s); err != nil {
		t.Fatal(err)
	}
	seen.values = s.stable.values
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	for i := first; i <= last && i > 0; i++ {
		var entry raft.Log
		if err := s.GetLog(i, &entry); err != nil {
			t.Fatal(err)
		}
		// Nil and empty are the same, and so are times with bits that say nothing.
		entry.Data = append([]byte{}, entry.Data...)
		entry.AppendedAt = time.Unix(entry.AppendedAt.Unix(), int64(entry.AppendedAt.Nanosecond())).UTC()
		seen.entries = append(seen.entries, entry)
	}
	list, err := s.snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) > 0 {
		meta, content, err := s.snapshots.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		seen.snapshot = *meta
		if seen.state, err = io.ReadAll(content); err != nil {
			t.Fatal(err)
		}
		if err := content.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if use != nil {
		use(s)
	}
	return seen
}

// verdict is what became of a damage.
type verdict int

const (
	harmless verdict = iota // everything reads as before, and stays sound when written to
	repaired                // the same, without an older snapshot
	found                   // there is a new replica
)

func (v verdict) String() string { return [...]string{"harmless", "repaired", "found"}[v] }

// judge opens a copy of the files, which were changed.
func judge(t *testing.T, what string, changed files, before image) verdict {
	t.Helper()
	dir := changed.in(t)
	defer func() { _ = os.RemoveAll(dir) }()
	var lost error
	after := view(t, dir, func(s *store) {
		if lost = s.mayFound(); lost == nil {
			use(t, s, before)
		}
	})
	aside, err := damagedDirs(dir)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case lost != nil && len(aside) == 1:
		if after.id == before.id || len(after.entries) > 0 || len(after.state) > 0 || len(after.values) != 2 {
			t.Fatalf("%s: found, but it came back with %v and %d entries", what, after.values, len(after.entries))
		}
		return found
	case lost != nil || len(aside) > 0:
		t.Fatalf("%s: lost: %v, set aside: %v", what, lost, aside)
	case !reflect.DeepEqual(after, before):
		t.Fatalf("%s: not found, and it reads otherwise: %s is %s, values %v and %v, %d and %d entries, snapshots %v and %v", what,
			before.id, after.id, before.values, after.values, len(before.entries), len(after.entries), before.snapshot, after.snapshot)
	}
	view(t, dir, func(s *store) {
		if lost := s.mayFound(); lost != nil {
			t.Fatalf("%s: not found, and writing to it damaged it: %v", what, lost)
		}
	})
	if snapshots, _ := filepath.Glob(filepath.Join(dir, snapshotsDir, "*")); len(snapshots) < 2 {
		return repaired
	}
	return harmless
}

// use writes to the store as a replica would that goes on.
func use(t *testing.T, s *store, before image) {
	t.Helper()
	last := before.entries[len(before.entries)-1]
	var entries []*raft.Log
	for i := range uint64(20) {
		entries = append(entries, &raft.Log{Index: last.Index + 1 + i, Term: last.Term, Data: make([]byte, 100*i)})
	}
	err := errors.Join(
		s.StoreLogs(entries),
		s.DeleteRange(before.entries[0].Index, before.snapshot.Index-10),
		s.DeleteRange(last.Index-5, last.Index+20),
		s.SetUint64([]byte("LastVoteTerm"), last.Term+1),
	)
	if err != nil {
		t.Fatal(err)
	}
}

func TestRandomBitFlips(t *testing.T) {
	t.Logf("-flip-seed %d", *flipSeed)
	random := rand.New(rand.NewPCG(*flipSeed, 0))
	all := stopped(t)
	before := view(t, all.in(t), nil)
	if len(before.entries) < 120 || len(before.state) == 0 || before.values["LastVoteCand"] == nil {
		t.Fatalf("%d entries, %d bytes of state, values %v", len(before.entries), len(before.state), before.values)
	}
	names := slices.Sorted(maps.Keys(all))
	// The database is most of what matters, and the other files are many.
	for range len(names) {
		names = append(names, databaseFile)
	}
	counts := map[string]int{}
	for range *flips {
		name := names[random.IntN(len(names))]
		bit := random.IntN(8 * len(all[name]))
		what := fmt.Sprintf("%s, bit %d of byte %d", name, bit%8, bit/8)
		verdict := judge(t, what, all.flipped(name, bit), before)
		counts[verdict.String()]++
		counts[filepath.Base(name)+" "+verdict.String()]++
	}
	t.Logf("%d flips: %v", *flips, counts)
	if counts["found"] == 0 {
		t.Error("none was found")
	}
}

// TestAimedBitFlips flips a bit in each byte of the structures that random flips
// seldom hit.
func TestAimedBitFlips(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := stopped(t)
	before := view(t, all.in(t), nil)
	database := all[databaseFile]
	dir := all.in(t)
	counts := map[string]int{}
	for _, span := range structures(t, database) {
		for at := span.from; at < span.to; at++ {
			bit := 8*at + random.IntN(8)
			what := fmt.Sprintf("%s, bit %d of byte %d of %d", span.what, bit%8, at-span.from, span.to-span.from)
			changed := all.flipped(databaseFile, bit)
			if err := os.WriteFile(databasePath(dir), changed[databaseFile], 0o600); err != nil {
				t.Fatal(err)
			}
			verdict := found
			if !unsound(t, dir) {
				verdict = judge(t, what, changed, before)
			}
			counts[span.what+" "+verdict.String()]++
			if verdict != found && !span.harmless {
				t.Errorf("%s: not found", what)
			}
		}
	}
	t.Logf("%v", counts)
}

// TestNumberOfAPageLeadsElsewhere lets each number of a page of the log lead to
// each other page: many were part of an older log, and are sound in themselves.
func TestNumberOfAPageLeadsElsewhere(t *testing.T) {
	all := stopped(t)
	before := view(t, all.in(t), nil)
	dir := all.in(t)
	database := all[databaseFile]
	meta, err := newestMeta(bytes.NewReader(database), int64(len(database)))
	if err != nil {
		t.Fatal(err)
	}
	page := int(meta.pageBytes)
	root := int(meta.root) * page
	buckets := parse(t, database[root:root+page])
	var numbers []int // where they are
	for i := range buckets.count {
		value := root + int(buckets.keys[i].value)
		child := int(binary.NativeEndian.Uint64(database[value:]))
		if child == 0 {
			continue // inline
		}
		numbers = append(numbers, value)
		branch := parse(t, database[child*page:(child+1)*page])
		for j := range branch.count {
			numbers = append(numbers, child*page+boltHeaderBytes+j*boltElementBytes+8)
		}
	}
	if len(numbers) < 10 {
		t.Fatalf("%d numbers", len(numbers))
	}
	stale := 0
	for _, at := range numbers {
		for number := range meta.pages {
			content := bytes.Clone(database)
			binary.NativeEndian.PutUint64(content[at:], number)
			if bytes.Equal(content, database) {
				continue
			}
			if _, err := newestMeta(bytes.NewReader(content), int64(len(content))); err != nil {
				t.Fatal(err)
			}
			if checkBolt(bytes.NewReader(content), int64(len(content)), func(string, []byte, []byte) error { return nil }) != nil {
				continue
			}
			stale++ // a sound tree that is not the newest
			if err := os.WriteFile(databasePath(dir), content, 0o600); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("page %d in place of %d", number, binary.NativeEndian.Uint64(database[at:]))
			if !unsound(t, dir) && judge(t, what, all.with(databaseFile, content), before) != found {
				t.Logf("%s: harmless", what)
			}
		}
	}
	t.Logf("%d numbers lead to %d sound trees", len(numbers), stale)
	if stale == 0 {
		t.Error("no number led to an older page")
	}
}

// unsound is the quick half of judge, and leaves dir as it is if it is true.
func unsound(t *testing.T, dir string) bool {
	t.Helper()
	opts := storeOptions(dir)
	opts.Logger = hclog.NewNullLogger()
	s, err := openIntact(opts)
	if err == nil {
		_ = s.disk.Close()
		return false
	}
	var damage *damageError
	if !errors.As(err, &damage) {
		t.Fatal(err)
	}
	return true
}

func TestEachBitOfSnapshot(t *testing.T) {
	all := stopped(t)
	metas := all.find(metaFile)
	newest := filepath.Dir(metas[len(metas)-1])
	dir := filepath.Join(all.in(t), newest)
	if _, err := verifySnapshot(dir); err != nil {
		t.Fatal(err)
	}
	var damage *damageError
	for _, name := range []string{metaFile, sealFile, stateFile} {
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		step := max(1, len(content)/500) // of the state, each so many bytes
		for i := 0; i < len(content); i += step {
			for bit := range 8 {
				_, err := file.WriteAt([]byte{content[i] ^ 1<<bit}, int64(i))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := verifySnapshot(dir); !errors.As(err, &damage) {
					t.Errorf("%s, bit %d of byte %d: %v", name, bit, i, err)
				}
			}
			if _, err := file.WriteAt(content[i:i+1], int64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := verifySnapshot(dir); err != nil {
		t.Error(err)
	}
}

// span is a part of the database's file.
type span struct {
	what     string
	from, to int
	harmless bool // bits in it may have no meaning
}

// structures returns the parts of a database that say where everything is: both
// meta pages, and of some pages of each kind the header, the first and the last
// element, and a key.
func structures(t *testing.T, database []byte) []span {
	t.Helper()
	meta, err := newestMeta(bytes.NewReader(database), int64(len(database)))
	if err != nil {
		t.Fatal(err)
	}
	page := int(meta.pageBytes)
	spans := []span{
		{"meta page 0", boltHeaderBytes, boltHeaderBytes + boltMetaBytes, false},
		{"meta page 1", page + boltHeaderBytes, page + boltHeaderBytes + boltMetaBytes, false},
	}
	root := int(meta.root) * page
	spans = append(spans, structure("root bucket", root, parse(t, database[root:root+page]))...)
	top := parse(t, database[root:root+page])
	for i := range top.count {
		value := root + int(top.keys[i].value)
		// Another root may be an older page with just the same in it.
		spans = append(spans, span{"bucket's root", value, value + 8, true}, span{"bucket's sequence", value + 8, value + 16, true})
		inline := value + boltBucketBytes
		if end := root + int(top.keys[i].end); end > inline {
			spans = append(spans, structure("inline bucket", inline, parse(t, database[inline:end]))...)
			continue
		}
		branch := int(binary.NativeEndian.Uint64(database[value:])) * page
		children := parse(t, database[branch:branch+page])
		spans = append(spans, structure("branch", branch, children)...)
		for _, j := range []int{0, children.count / 2, children.count - 1} {
			leaf := int(children.child(j)) * page
			overflow := int(binary.NativeEndian.Uint32(database[leaf+12:]))
			spans = append(spans, structure("leaf", leaf, parse(t, database[leaf:leaf+(1+overflow)*page]))...)
		}
	}
	return spans
}

func structure(kind string, at int, page *boltPage) []span {
	spans := []span{{kind + "'s header", at, at + boltHeaderBytes, false}}
	for _, i := range slices.Compact([]int{0, page.count - 1}) {
		element := at + boltHeaderBytes + i*boltElementBytes
		// A last value may be said to be longer than what its decoder reads.
		last := i == page.count-1 && page.flags == boltLeaf
		spans = append(spans,
			span{kind + "'s element", element, element + 12, false},
			span{kind + "'s element, end", element + 12, element + 16, last},
			span{kind + "'s key", at + int(page.keys[i].key), at + int(page.keys[i].value), false})
	}
	return spans
}

func parse(t *testing.T, content []byte) *boltPage {
	t.Helper()
	page, err := parsePage(content)
	if err != nil {
		t.Fatal(err)
	}
	return page
}
