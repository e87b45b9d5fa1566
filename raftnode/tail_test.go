package raftnode

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// TestLostWriteIsFound puts an older copy of one file beside the newer others.
func TestLostWriteIsFound(t *testing.T) {
	write := func(from, to, term uint64) func(*store) error {
		return func(s *store) error {
			var entries []*raft.Log
			for i := from; i <= to; i++ {
				entries = append(entries, &raft.Log{Index: i, Term: term})
			}
			return s.StoreLogs(entries)
		}
	}
	remove := func(from, to uint64) func(*store) error {
		return func(s *store) error { return s.DeleteRange(from, to) }
	}
	for name, test := range map[string]struct {
		step func(*store) error // after the copies of entries 1 to 10
		file string             // the one that is older
		want bool               // whether that is a damage
	}{
		// The pin is not synced, so a loss of power can set it back.
		"pin before entries":               {step: write(11, 20, 1), file: tailFile},
		"log before entries":               {step: write(11, 20, 1), file: databaseFile, want: true},
		"log before one entry":             {step: write(11, 11, 1), file: databaseFile, want: true},
		"log before older ones went":       {step: remove(1, 5), file: databaseFile},
		"log before newer ones went":       {step: remove(6, 10), file: databaseFile}, // as after a crash between the two
		"log before all went":              {step: remove(1, 10), file: databaseFile},
		"pin before older ones went":       {step: remove(1, 5), file: tailFile, want: true}, // for want of a snapshot
		"pin before newer ones went":       {step: remove(6, 10), file: tailFile, want: true},
		"log before others came in place":  {step: both(remove(6, 10), write(6, 10, 2)), file: databaseFile, want: true},
		"log before fewer came in place":   {step: both(remove(6, 10), write(6, 7, 2)), file: databaseFile, want: true},
		"neither":                          {step: write(11, 20, 1)},
		"neither, others came in place":    {step: both(remove(6, 10), write(6, 10, 2))},
		"neither, all are gone, and some":  {step: both(remove(1, 10), write(1, 3, 2))},
		"neither, all are gone":            {step: remove(1, 10)},
		"log before all, others in place":  {step: both(remove(1, 10), write(1, 10, 2)), file: databaseFile, want: true},
		"log before others, then it grows": {step: both(remove(6, 10), write(6, 20, 2)), file: databaseFile, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := errors.Join(
				change(t, dir, func(s *store) error { return s.SetUint64(termKey, 2) }),
				change(t, dir, write(1, 10, 1)),
			)
			if err != nil {
				t.Fatal(err)
			}
			older := readFiles(t, dir)
			if err := change(t, dir, test.step); err != nil {
				t.Fatal(err)
			}
			if test.file != "" {
				if err := os.WriteFile(filepath.Join(dir, test.file), older[test.file], 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := unsound(t, dir); got != test.want {
				t.Errorf("unsound: %t, want %t", got, test.want)
			}
		})
	}
}

func both(a, b func(*store) error) func(*store) error {
	return func(s *store) error { return errors.Join(a(s), b(s)) }
}

// change opens the store in dir for one step.
func change(t *testing.T, dir string, step func(*store) error) error {
	t.Helper()
	s, err := openStore(storeOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identify(dir, "c1", s); err != nil {
		t.Fatal(err)
	}
	return errors.Join(s.mayFound(), step(s), s.Close())
}

func TestStoringOverEntriesIsRefused(t *testing.T) {
	s, err := openStore(storeOptions(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.StoreLogs([]*raft.Log{{Index: 1}, {Index: 2}}); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs([]*raft.Log{{Index: 2}}); err == nil {
		t.Error("it was stored")
	}
}
