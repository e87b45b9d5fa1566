//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// build makes the binary to test, unless one is named.
func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	if given := os.Getenv("E2E_BINARY"); given != "" {
		return given
	}
	path := filepath.Join(t.TempDir(), "built")
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "../../cmd/orrery")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the binary: %v\n%s", err, out)
	}
	return path
}

// stageFor opens a stage for a row.
func stageFor(t *testing.T, o options, r row) *stage {
	t.Helper()
	dir, err := bench.MemoryDir("workers-test")
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStage(t.Context(), o, r, filepath.Join(dir, "cluster"))
	if err != nil {
		t.Fatal(errors.Join(err, os.RemoveAll(dir)))
	}
	t.Cleanup(func() {
		if err := errors.Join(s.close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// try makes one trial of a row. What the figures are is hardly the tests'
// business, for the machine may be busy: but there must be no mistake, and the
// fault must have been seen.
func try(t *testing.T, o options, s *stage, r row, trial int) result {
	t.Helper()
	one := result{Head: bench.Head{Row: r.name, Trial: trial}, Figures: map[string]float64{}}
	if err := runTrial(t.Context(), o, s, r, &one); err != nil {
		t.Fatalf("%s: %v", r.name, err)
	}
	t.Logf("%s: %v, %d of %d failed, longest %.0f ms", r.name, one.Figures, one.Bad(), one.Sent, one.LatencyMax)
	if one.Invalid != "" || !one.Whole || len(one.Notes) > 0 || one.Sent < o.Rate || one.Bad() > 0 {
		t.Fatalf("%s: %+v", r.name, one)
	}
	for _, m := range r.measures {
		x, ok := one.Figures[m.name]
		if !ok || m.must && x > m.most || m.bounded && m.unit == milliseconds && x > patience*m.most {
			t.Errorf("%s, %s: %v (there: %v)", r.name, m.title, x, ok)
		}
	}
	return one
}

// patience is how many times slower than the target a busy machine may be.
const patience = 10

// TestShortForm runs short trials on real processes, on loopback where there are
// no networks to cut.
func TestShortForm(t *testing.T) {
	o := testOptions(t, build(t))
	t.Run("one cluster", func(t *testing.T) { testOneCluster(t, o) })
	t.Run("cut", func(t *testing.T) {
		if unavailable != nil {
			t.Skip(unavailable)
		}
		r := rowNamed(t, "cut")
		r.away = 3 * time.Second
		try(t, o, stageFor(t, o, r), r, 1)
	})
	t.Run("crowd", func(t *testing.T) {
		if unavailable != nil {
			t.Skip(unavailable)
		}
		r := rowNamed(t, "crowd")
		try(t, o, stageFor(t, o, r), r, 1)
	})
	t.Run("a run goes on where it stopped", func(t *testing.T) { testResumption(t, o) })
}

// testOneCluster takes one cluster through the rows that need no network to cut.
func testOneCluster(t *testing.T, o options) {
	kill, freeze, thaw, request := rowNamed(t, "kill"), rowNamed(t, "freeze"), rowNamed(t, "thaw"), rowNamed(t, "poison-request")
	freeze.away, thaw.away = 2*time.Second, 2*time.Second
	s := stageFor(t, o, thaw) // its workers are witnesses
	try(t, o, s, kill, 1)
	try(t, o, s, freeze, 1)
	try(t, o, s, request, 1)
	for n := range 2 {
		if got := try(t, o, s, thaw, n); got.Figures["executed"] == 0 {
			t.Error("no successor had anything executed")
		}
	}
}

// testResumption runs the benchmark as a user would, twice.
func testResumption(t *testing.T, o options) {
	o.rows, o.Trials = []row{rowNamed(t, "poison-model")}, 1
	for range 2 {
		if err := run(o); err != nil {
			t.Log(err) // what the figures are is not this test's business
		}
	}
	if b := open(t, o); len(b.Trials(b.print(o.rows[0]))) != 1 || len(b.Lines) != 1+len(b.Invalid(b.print(o.rows[0]))) {
		t.Errorf("lines %+v", b.Lines)
	}
}
