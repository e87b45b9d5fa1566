//go:build linux

package faultfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/netlab"
)

// TestMain keeps the mounts of the tests out of everybody's sight.
func TestMain(m *testing.M) {
	status, err := netlab.Main(m.Run)
	if errors.Is(err, netlab.ErrUnavailable) {
		fmt.Println("nothing is tested:", err)
		status = 0
	} else if err != nil {
		fmt.Println(err)
	}
	os.Exit(status)
}

func mounted(t *testing.T) (f *FS, dir, at string) {
	t.Helper()
	dir, at = t.TempDir(), t.TempDir()
	f, err := Mount(dir, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return f, dir, at
}

// change does everything that changes something, as a database does it, and
// returns the first error.
func change(t *testing.T, at string, content []byte) error {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(at, "file"), os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err) // opening always works
	}
	defer f.Close()
	_, err = f.WriteAt(content, 0)
	if err != nil {
		return err
	}
	return f.Sync()
}

func TestReadsAndWrites(t *testing.T) {
	_, dir, at := mounted(t)
	if err := os.Mkdir(filepath.Join(at, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "below", "file"), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(at, "below", "file"), filepath.Join(at, "file")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "one" {
		t.Errorf("the folder behind has %q (%v)", got, err)
	}
	if got, err := os.ReadFile(filepath.Join(at, "file")); err != nil || string(got) != "one" {
		t.Errorf("read %q (%v)", got, err)
	}
}

// TestMappedFileShowsWhatIsWritten: a database maps its file and writes beside
// the map.
func TestMappedFileShowsWhatIsWritten(t *testing.T) {
	_, _, at := mounted(t)
	page := make([]byte, os.Getpagesize())
	if err := os.WriteFile(filepath.Join(at, "file"), page, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(at, "file"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Error(err)
	}
	// Read first: a fault of a page that is not cached would block a thread that
	// this very process may need to serve it.
	if _, err := f.ReadAt(page, 0); err != nil {
		t.Fatal(err)
	}
	view, err := syscall.Mmap(int(f.Fd()), 0, len(page), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(view) }()
	if _, err := f.WriteAt([]byte("seen"), 10); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(view[10:14], []byte("seen")) {
		t.Errorf("the map shows %q", view[:20])
	}
}

func TestFail(t *testing.T) {
	fs, dir, at := mounted(t)
	if err := os.WriteFile(filepath.Join(at, "file"), []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		fs.Fail(errno)
		if err := change(t, at, []byte("during")); !errors.Is(err, errno) {
			t.Errorf("a write failed with %v, want %v", err, errno)
		}
		if err := os.Truncate(filepath.Join(at, "file"), 1); !errors.Is(err, errno) {
			t.Errorf("truncate: %v, want %v", err, errno)
		}
		if err := os.WriteFile(filepath.Join(at, "new"), nil, 0o644); !errors.Is(err, errno) {
			t.Errorf("a new file: %v, want %v", err, errno)
		}
		fs.Heal()
		if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "before" {
			t.Errorf("the folder behind has %q (%v)", got, err)
		}
	}
	if err := change(t, at, []byte("after ")); err != nil {
		t.Error(err)
	}
}

func TestHang(t *testing.T) {
	fs, dir, at := mounted(t)
	if err := os.WriteFile(filepath.Join(at, "file"), []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	fs.Hang()
	done := make(chan error)
	go func() { done <- change(t, at, []byte("during")) }()
	for deadline := time.Now().Add(10 * time.Second); fs.Held() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no write hangs")
		}
	}
	select {
	case err := <-done:
		t.Fatalf("the write returned: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "before" {
		t.Errorf("the folder behind has %q (%v)", got, err)
	}
	fs.Heal()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "during" || fs.Held() != 0 {
		t.Errorf("after Heal the folder behind has %q (%v), and %d writes hang", got, err, fs.Held())
	}
}
