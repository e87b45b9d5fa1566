//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFlags(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "orrery")
	if err := os.WriteFile(binary, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]string{
		{"-models", "0"}, {"-workers", "0"}, {"-models", "10", "-sample", "11"}, {"-load-idle", "0s"}, {"more"}, {"-binary", "/nowhere/orrery"},
	} {
		if _, err := parse(append([]string{"-binary", binary}, bad...)); err == nil {
			t.Errorf("%q were taken", bad)
		}
	}
}

// some are figures in which all targets are met.
func some() figures {
	return figures{
		options: options{models: 1000, workers: 20, parallel: 100, sample: 3, loadIdle: time.Second},
		load:    loading{took: 10 * time.Second, entries: 1200}, profiling: profiling{took: time.Minute, entries: 300},
		sizes:       sizes{log: 4e6, snapshot: 2e6},
		successions: []succession{{elected: 300 * time.Millisecond, serving: 100 * time.Millisecond, answers: []time.Duration{1e6, 2e6, 3e6}}},
	}
}

func TestTargets(t *testing.T) {
	f := some()
	if err := f.missed(target); err != nil {
		t.Error(err)
	}
	var text strings.Builder
	f.print(&text)
	for _, want := range []string{"| 20000 copies loaded, by 1000 load requests, 100 at a time | 10s | 1200, of which 1000", "4.0 MB; a snapshot: 2.0 MB",
		"| 1 | 300ms | 0s | 100ms | 1ms | 2ms | 3ms |"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%s lacks %s", text.String(), want)
		}
	}
	f.load.entries = 20_000
	if err := f.missed(target); err == nil || !strings.Contains(err.Error(), "log entries") {
		t.Errorf("20,000 entries: %v", err)
	}
	f = some()
	f.successions[0].serving = 1100 * time.Millisecond
	if err := f.missed(target); err == nil || !strings.Contains(err.Error(), "kill 1") {
		t.Errorf("a leader that serves late: %v", err)
	}
}

// TestShortForm takes a small cluster through it: 600 copies, which must cost far
// fewer log entries. How long it takes is hardly its business, for the machine may
// be busy.
func TestShortForm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	binary := os.Getenv("E2E_BINARY")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "built")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "../../cmd/orrery")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the binary: %v\n%s", err, out)
		}
	}
	o, err := parse([]string{"-binary", binary, "-models", "60", "-workers", "10", "-kills", "1", "-sample", "10", "-load-idle", "1s", "-rest", "1s"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := measure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	f.print(os.Stdout)
	const patience = 10 // times the target: on a busy machine
	if err := f.missed(patience * target); err != nil {
		t.Error(err)
	}
}
