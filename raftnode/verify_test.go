package raftnode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestDamagedFiles(t *testing.T) {
	all := stopped(t)
	before := view(t, all.in(t), nil)
	database := all[databaseFile]
	metas := all.find(metaFile)
	older, newest := filepath.Dir(metas[0]), filepath.Dir(metas[1])
	cut := func(name string, left int) files { return all.with(name, all[name][:left]) }
	zeroed := func(page int) files {
		content := bytes.Clone(database)
		clear(content[page*4096 : (page+1)*4096])
		return all.with(databaseFile, content)
	}
	without := func(dir string) files {
		changed := all
		for _, name := range all.find("") {
			if strings.HasPrefix(name, dir+string(filepath.Separator)) {
				changed = changed.with(name, nil)
			}
		}
		return changed
	}
	type test struct {
		files files
		want  verdict
	}
	tests := map[string]test{
		"database empty":              {cut(databaseFile, 0), found},
		"database of one page":        {cut(databaseFile, 4096), found},
		"database half":               {cut(databaseFile, len(database)/8192*4096), found},
		"database of garbage":         {all.with(databaseFile, bytes.Repeat([]byte("garbage!"), 4096)), found},
		"database gone":               {all.with(databaseFile, nil), found},
		"tail gone":                   {all.with(tailFile, nil), found},
		"tail empty":                  {cut(tailFile, 0), found},
		"database and snapshots gone": {without(snapshotsDir).with(databaseFile, nil), found},
		"snapshots gone":              {without(snapshotsDir), found},
		"newest snapshot gone":        {without(newest), found},
		"its state gone":              {all.with(filepath.Join(newest, stateFile), nil), found},
		"its description gone":        {all.with(filepath.Join(newest, metaFile), nil), found},
		"its seal gone":               {all.with(filepath.Join(newest, sealFile), nil), found},
		"its state cut":               {cut(filepath.Join(newest, stateFile), 9), found},
		"its state empty":             {cut(filepath.Join(newest, stateFile), 0), found},
		"its description empty":       {cut(filepath.Join(newest, metaFile), 0), found},
		"its seal empty":              {cut(filepath.Join(newest, sealFile), 0), found},
		"its state of the older":      {all.with(filepath.Join(newest, stateFile), all[filepath.Join(older, stateFile)]), found},
		"older snapshot gone":         {without(older), repaired},
		"older snapshot half gone":    {all.with(filepath.Join(older, metaFile), nil), repaired},
		"nothing":                     {all, harmless},
		"older one in newest place":   {all.with(filepath.Join(newest, metaFile), all[filepath.Join(older, metaFile)]).with(filepath.Join(newest, sealFile), all[filepath.Join(older, sealFile)]), found},
	}
	meta, err := newestMeta(bytes.NewReader(database), int64(len(database)))
	if err != nil {
		t.Fatal(err)
	}
	tests["meta page 0 zeroed"] = test{zeroed(0), found}
	tests["meta page 1 zeroed"] = test{zeroed(1), found}
	tests["root zeroed"] = test{zeroed(int(meta.root)), found}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := judge(t, name, test.files, before); got != test.want {
				t.Errorf("it was %v, want %v", got, test.want)
			}
		})
	}
}

func TestEachPageZeroed(t *testing.T) {
	all := stopped(t)
	before := view(t, all.in(t), nil)
	database := all[databaseFile]
	used := 0
	for page := range len(database) / 4096 {
		content := bytes.Clone(database)
		clear(content[page*4096 : (page+1)*4096])
		if bytes.Equal(content, database) {
			continue
		}
		changed := all.with(databaseFile, content)
		if unsound(t, changed.in(t)) || judge(t, "zeroed", changed, before) == found {
			used++
		}
	}
	if used < 10 {
		t.Errorf("%d pages were missed", used)
	}
}

func TestDiskErrorIsNoDamage(t *testing.T) {
	all := stopped(t)
	metas := all.find(metaFile)
	for name, at := range map[string]string{
		"database":              databaseFile,
		"snapshot's state":      filepath.Join(filepath.Dir(metas[1]), stateFile),
		"snapshot's seal":       filepath.Join(filepath.Dir(metas[1]), sealFile),
		"unknown snapshot":      filepath.Join(snapshotsDir, "mine"),
		"mark of a condemned":   condemnedFile,
		"older snapshot's seal": filepath.Join(filepath.Dir(metas[0]), sealFile),
	} {
		t.Run(name, func(t *testing.T) {
			dir := all.with(at, nil).in(t)
			if err := os.Mkdir(filepath.Join(dir, at), 0o700); err != nil { // which can't be read
				t.Fatal(err)
			}
			s, err := openStore(storeOptions(dir))
			if err == nil {
				_ = s.Close()
				t.Fatal("it was opened")
			}
			if aside, _ := damagedDirs(dir); len(aside) > 0 {
				t.Errorf("it was set aside because of %v", err)
			}
		})
	}
}

func TestStoreWithoutChecksumsIsRefused(t *testing.T) {
	dir := t.TempDir()
	bolt, err := openBolt(databasePath(dir))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(bolt.Set(identityKey, []byte("c1-0123456789abcdef")), bolt.SetUint64(termKey, 7), bolt.Close())
	if err != nil {
		t.Fatal(err)
	}
	_, err = openStore(storeOptions(dir))
	if err == nil || !strings.Contains(err.Error(), "move the directory away") {
		t.Errorf("got %v", err)
	}
	if aside, _ := damagedDirs(dir); len(aside) > 0 {
		t.Error("it was set aside")
	}
}

func TestContinuity(t *testing.T) {
	run := func(from, to uint64) (indexes []uint64) {
		for i := from; i <= to; i++ {
			indexes = append(indexes, i)
		}
		return indexes
	}
	for name, test := range map[string]struct {
		snapshot    position
		indexes     []uint64
		superfluous uint64
		damaged     bool
	}{
		"nothing":                          {},
		"log":                              {indexes: run(1, 9)},
		"log begins late":                  {indexes: run(2, 9), damaged: true},
		"log with a hole":                  {indexes: slices.Concat(run(1, 4), run(6, 9)), damaged: true},
		"snapshot":                         {snapshot: position{9, 1}},
		"log to snapshot":                  {snapshot: position{9, 1}, indexes: run(3, 9)},
		"log over snapshot":                {snapshot: position{5, 1}, indexes: run(3, 9)},
		"log after snapshot":               {snapshot: position{5, 1}, indexes: run(6, 9)},
		"log too far after snapshot":       {snapshot: position{5, 1}, indexes: run(7, 9), damaged: true},
		"hole after snapshot":              {snapshot: position{5, 1}, indexes: slices.Concat(run(3, 7), run(9, 9)), damaged: true},
		"installed snapshot":               {snapshot: position{50, 1}, indexes: run(3, 9), superfluous: 10},
		"installed snapshot and log":       {snapshot: position{50, 1}, indexes: slices.Concat(run(3, 9), run(51, 60)), superfluous: 10},
		"and another snapshot":             {snapshot: position{55, 1}, indexes: slices.Concat(run(3, 9), run(51, 60)), superfluous: 10},
		"log that contradicts snapshot":    {snapshot: position{5, 2}, indexes: run(3, 9), superfluous: 10},
		"log that ends before the restore": {snapshot: position{10, 1}, indexes: slices.Concat(run(3, 9), run(11, 12)), superfluous: 10},
	} {
		t.Run(name, func(t *testing.T) {
			terms := make([]uint64, len(test.indexes))
			for i := range terms {
				terms[i] = 1
			}
			superfluous, err := verifyContinuity(test.snapshot, test.indexes, terms)
			if superfluous != test.superfluous || (err != nil) != test.damaged {
				t.Errorf("superfluous before %d, error %v", superfluous, err)
			}
		})
	}
}

func TestEntriesCutOffByCrashAreDeleted(t *testing.T) {
	all := stopped(t)
	dir := all.in(t)
	before := view(t, dir, nil)
	// A crash in between a snapshot from elsewhere and the deletion of the log.
	s, err := openStore(storeOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	last := before.entries[len(before.entries)-1]
	s.snapshots.log = &raft.InmemStore{}
	sink, err := s.snapshots.Create(1, last.Index+100, last.Term, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	after := view(t, dir, nil)
	if after.id != before.id || len(after.entries) > 0 || after.snapshot.Index != last.Index+100 {
		t.Errorf("%s has %d entries and the snapshot %v", after.id, len(after.entries), after.snapshot)
	}
}

func TestSnapshotFromElsewhereCutsLogOff(t *testing.T) {
	for name, test := range map[string]struct {
		snapshot, first, last uint64
	}{
		"inside the log":  {snapshot: 15, first: 10, last: 20},
		"after the log":   {snapshot: 30, first: 0, last: 0},
		"before the log":  {snapshot: 5, first: 10, last: 20},
		"next in the log": {snapshot: 21, first: 0, last: 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := openStore(storeOptions(t.TempDir()))
			if err != nil {
				t.Fatal(err)
			}
			for i := range uint64(11) {
				if err := s.StoreLogs([]*raft.Log{{Index: 10 + i, Term: 1}}); err != nil {
					t.Fatal(err)
				}
			}
			sink, err := s.snapshots.Create(1, test.snapshot, 1, raft.Configuration{}, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			first, _ := s.FirstIndex()
			last, _ := s.LastIndex()
			if first != test.first || last != test.last {
				t.Errorf("the log goes from %d to %d, want %d to %d", first, last, test.first, test.last)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestSoundDatabasesAreSound lets bbolt split, merge and grow pages in all ways
// that a log can cause: what it writes must never be taken for damaged.
func TestSoundDatabasesAreSound(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), databaseFile)
	if err := makeDatabase(filepath.Dir(path), ""); err != nil {
		t.Fatal(err)
	}
	bolt, err := openBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bolt.Close() }()
	first, next := uint64(1), uint64(1)
	for range 400 {
		switch choice := random.IntN(10); {
		case choice < 6:
			var entries []*raft.Log
			for range 1 + random.IntN(60) {
				size := random.IntN(300)
				if random.IntN(30) == 0 {
					size = random.IntN(30_000)
				}
				entries = append(entries, &raft.Log{Index: next, Data: make([]byte, size)})
				next++
			}
			err = bolt.StoreLogs(entries)
		case choice < 7 && next > first:
			cut := first + random.Uint64N(next-first)
			err = bolt.DeleteRange(first, cut)
			first = cut + 1
		case choice < 8 && next > first:
			cut := next - 1 - random.Uint64N(min(100, next-first))
			err = bolt.DeleteRange(cut, next-1)
			next = cut
		default:
			err = bolt.Set(recordKey, make([]byte, random.IntN(3000)))
		}
		if err != nil {
			t.Fatal(err)
		}
		indexes, exists, err := verifyDatabase(path)
		if err != nil || !exists {
			t.Fatalf("after entries %d to %d: %v", first, next, err)
		}
		if uint64(len(indexes)) != next-first || next > first && indexes[0] != first {
			t.Fatalf("%d entries, want %d to %d", len(indexes), first, next)
		}
	}
}

// TestGarbledDatabaseDoesNotPanic overwrites several bytes at once.
func TestGarbledDatabaseDoesNotPanic(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	all := stopped(t)
	spans := structures(t, all[databaseFile])
	var found int
	for range 2000 {
		content := bytes.Clone(all[databaseFile])
		for range 1 + random.IntN(8) {
			span := spans[2+random.IntN(len(spans)-2)] // the meta pages have checksums
			binary.NativeEndian.PutUint16(content[span.from+random.IntN(span.to-span.from):], uint16(random.Uint32()))
		}
		err := checkBolt(bytes.NewReader(content), int64(len(content)), func(string, []byte, []byte) error { return nil })
		var damage *damageError
		if err != nil && !errors.As(err, &damage) {
			t.Fatal(err)
		}
		if err != nil {
			found++
		}
	}
	if found < 1000 {
		t.Errorf("%d of 2000 were found", found)
	}
}

func TestEntriesComeBack(t *testing.T) {
	s, err := openStore(storeOptions(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for i, want := range []raft.Log{
		{Term: 1},
		{Term: 2, Type: raft.LogConfiguration, Data: []byte("data")},
		{Term: 2, Data: []byte("data"), Extensions: []byte("extensions"), AppendedAt: time.Now()},
		{Term: 1 << 60, Type: raft.LogNoop, Extensions: make([]byte, 8), AppendedAt: time.Now().In(time.FixedZone("far", 5*3600+1800))},
	} {
		want.Index = uint64(i + 1)
		given := want
		if err := s.StoreLogs([]*raft.Log{&given}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(given.Extensions, want.Extensions) || len(given.Extensions) != len(want.Extensions) {
			t.Errorf("the caller's entry became %+v", given)
		}
		var got raft.Log
		if err := s.GetLog(want.Index, &got); err != nil {
			t.Fatal(err)
		}
		if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
			!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
			t.Errorf("stored %+v, read %+v", want, got)
		}
	}
}

// TestChangedEntryIsNeverData changes each field behind the store's back.
func TestChangedEntryIsNeverData(t *testing.T) {
	entry := raft.Log{Index: 1, Term: 1, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: time.Unix(1, 0)}
	for name, change := range map[string]func(*raft.Log){
		"term":          func(l *raft.Log) { l.Term++ },
		"type":          func(l *raft.Log) { l.Type++ },
		"data":          func(l *raft.Log) { l.Data = []byte("dato") },
		"no data":       func(l *raft.Log) { l.Data = nil },
		"extensions":    func(l *raft.Log) { l.Extensions[0]++ },
		"no checksum":   func(l *raft.Log) { l.Extensions = nil },
		"boundary":      func(l *raft.Log) { l.Data, l.Extensions = []byte("datam"), l.Extensions[1:] },
		"time":          func(l *raft.Log) { l.AppendedAt = time.Unix(1, 1) },
		"another index": func(l *raft.Log) { sealed, _ := sealEntry(&raft.Log{Index: 2, Term: 1}, 0); *l = *sealed },
	} {
		t.Run(name, func(t *testing.T) {
			reported := make(chan error, 1)
			opts := storeOptions(t.TempDir())
			opts.OnFault = func(err error) { reported <- err }
			s, err := openStore(opts)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			s.faults.live.Store(true)
			changed, _ := sealEntry(&entry, 0)
			change(changed)
			index := changed.Index
			if name == "another index" {
				index = 1
				s.disk = swapped{s.disk}
			}
			if err := s.disk.StoreLogs([]*raft.Log{changed}); err != nil {
				t.Fatal(err)
			}
			var got raft.Log
			if err := s.GetLog(index, &got); err == nil || got.Data != nil || got.Index != 0 {
				t.Errorf("read %+v and %v", got, err)
			}
			if len(reported) == 0 {
				t.Error("it was not reported")
			}
		})
	}
}

// swapped reads the next entry instead of the one asked for.
type swapped struct{ disk }

func (s swapped) GetLog(index uint64, log *raft.Log) error { return s.disk.GetLog(index+1, log) }

func TestStableValues(t *testing.T) {
	dir := t.TempDir()
	for round := range uint64(3) {
		s, err := openStore(storeOptions(dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := identify(dir, "c1", s); err != nil {
			t.Fatal(err)
		}
		term, err := s.GetUint64(termKey)
		if round == 0 && (err == nil || err.Error() != "not found") { // raft compares the text
			t.Errorf("no term: %v", err)
		}
		if term != round {
			t.Errorf("term %d, want %d", term, round)
		}
		counted := &countingDisk{disk: s.disk}
		s.stable.disk = counted
		for range 3 {
			if err := s.SetUint64(termKey, round+1); err != nil {
				t.Fatal(err)
			}
		}
		if counted.sets != 1 {
			t.Errorf("%d writes for one new value", counted.sets)
		}
		if err := s.Set([]byte("LastVoteCand"), binary.BigEndian.AppendUint64(nil, round)); err != nil {
			t.Fatal(err)
		}
		counted.fail = true
		if err := s.SetUint64(termKey, 99); !errors.Is(err, errDisk) {
			t.Errorf("got %v", err)
		}
		if term, err := s.GetUint64(termKey); term != round+1 || err != nil {
			t.Errorf("after a write that failed the term is %d: %v", term, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

type countingDisk struct {
	disk
	sets int
	fail bool
}

func (d *countingDisk) Set(key, value []byte) error {
	if d.fail {
		return errDisk
	}
	d.sets++
	return d.disk.Set(key, value)
}

// BenchmarkOpenStore opens, and so verifies, a log of 20,000 entries of 300 bytes.
func BenchmarkOpenStore(b *testing.B) {
	opts := storeOptions(b.TempDir())
	s, err := openStore(opts)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := identify(opts.Dir, "c1", s); err != nil {
		b.Fatal(err)
	}
	for i := range uint64(200) {
		var entries []*raft.Log
		for j := range uint64(100) {
			entries = append(entries, &raft.Log{Index: 100*i + j + 1, Term: 1, Data: make([]byte, 300), AppendedAt: time.Now()})
		}
		if err := s.StoreLogs(entries); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(s.SetUint64(termKey, 1), s.Close()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := openStore(opts)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(s.mayFound(), s.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSealEntry is what the checksum costs of an entry of 300 bytes.
func BenchmarkSealEntry(b *testing.B) {
	entry := &raft.Log{Index: 1, Term: 1, Data: make([]byte, 300)}
	for b.Loop() {
		sealed, _ := sealEntry(entry, 0)
		if _, _, err := unsealEntry(1, sealed); err != nil {
			b.Fatal(err)
		}
	}
}
