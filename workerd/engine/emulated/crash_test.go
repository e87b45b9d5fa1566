package emulated

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/workerd/engine"
)

const killers = "model,input_bytes,output_bytes,disk_load_ms,weights_load_ms,crash_on,b1_ms\n" +
	"well,4,16,250,8,,2\n" +
	"on-load,4,16,250,8,load,2\n" +
	"on-weights,4,16,,8,weights,2\n" +
	"on-run,4,16,,8, run ,2\n" +
	"on-third,4,16,,8,run 3,2\n" +
	"zero,4,16,,8,run 0,2\n" +
	"word,4,16,,8,sometimes,2\n" +
	"words,4,16,,8,load 2,2\n"

func TestAModelThatKillsItsWorker(t *testing.T) {
	for name, test := range map[string]struct {
		// steps until the process is killed: a load, its weights, and runs; with a new load after two runs.
		steps int
		after time.Duration
	}{
		"well":       {0, 0},
		"on-load":    {1, 250 * time.Millisecond},
		"on-weights": {2, 8 * time.Millisecond},
		"on-run":     {3, 8 * time.Millisecond},
		"on-third":   {7, 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				killed := false
				e, err := New(Options{AllowCommands: true, Crash: func() { killed = true }})
				if err != nil {
					t.Fatal(err)
				}
				root := directory(t, "p.csv", killers)
				var m engine.Model
				var w engine.Weights
				load := func() (err error) { m, err = e.Load(t.Context(), root, "p.csv#"+name); return err }
				weights := func() (err error) { w, err = m.LoadWeights(t.Context(), 0); return err }
				run := func() error { _, err := w.Run(t.Context(), batch(1, 4)); return err }
				start := time.Now()
				for i, step := range []func() error{load, weights, run, run, load, weights, run, run} {
					err := step()
					if (err != nil) != killed || killed && !errors.Is(err, ErrEmulatedFailure) {
						t.Fatalf("step %d: %v, killed %v", i+1, err, killed)
					}
					if !killed {
						continue
					}
					if i+1 != test.steps || time.Since(start) != test.after {
						t.Errorf("killed in step %d after %v, want step %d after %v", i+1, time.Since(start), test.steps, test.after)
					}
					return
				}
				if test.steps != 0 {
					t.Error("nobody was killed")
				}
			})
		})
	}
}

func TestARunOfADyingModelIsCountedForItAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		killed := 0
		e, _ := New(Options{AllowCommands: true, Crash: func() { killed++ }})
		root := directory(t, "p.csv", killers)
		runs := map[string]func() error{}
		for _, name := range []string{"well", "on-third"} {
			m, err := e.Load(t.Context(), root, "p.csv#"+name)
			if err != nil {
				t.Fatal(err)
			}
			w, err := m.LoadWeights(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			runs[name] = func() error { _, err := w.Run(t.Context(), batch(1, 4)); return err }
		}
		for _, name := range []string{"well", "well", "well", "on-third", "on-third", "well"} {
			if err := runs[name](); err != nil || killed > 0 {
				t.Errorf("%s: %v, killed %d times", name, err, killed)
			}
		}
		// The third run kills, and each later one, should there be any.
		for n := range 2 {
			if err := runs["on-third"](); !errors.Is(err, ErrEmulatedFailure) || killed != n+1 {
				t.Errorf("run %d: %v, killed %d times", n+3, err, killed)
			}
		}
	})
}

func TestAModelThatKillsItsWorkerHasToBeAllowed(t *testing.T) {
	e, err := New(Options{Crash: func() { t.Error("killed") }})
	if err != nil {
		t.Fatal(err)
	}
	root := directory(t, "p.csv", killers)
	for name, want := range map[string]string{
		"on-load": "engines.emulated.allow_commands", "on-third": "engines.emulated.allow_commands",
		"zero": "column crash_on", "word": "column crash_on", "words": "column crash_on",
	} {
		_, err := e.Load(t.Context(), root, "p.csv#"+name)
		if !errors.Is(err, engine.ErrBadSource) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a bad source that says %q", name, err, want)
		}
	}
}

func TestALoadFromDiskTakesItsTimeAndCanBeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		load(t, Options{}, directory(t, "p.csv", killers), "p.csv#well")
		if took := time.Since(start); took != 250*time.Millisecond {
			t.Errorf("took %v", took)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		e, _ := New(Options{})
		start = time.Now()
		_, err := e.Load(ctx, directory(t, "p.csv", killers), "p.csv#well")
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 100*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
	})
}
