//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

const (
	// target is how soon a new leader is to serve, since its election.
	target = time.Second
	// entriesPerModel is how many log entries a model may cost to be loaded by all
	// workers and measured: its own load request is one. A few more are nobody's.
	entriesPerModel = 2
	fewEntries      = 100
)

// figures are all that was measured.
type figures struct {
	options   options
	load      loading
	profiling profiling
	busy      bench.Busy
	// restCPU is the leader's share, of 100, of one processor when all is quiet.
	restCPU     float64
	sizes       sizes
	successions []succession
}

// holdings is how many copies there are.
func (f figures) holdings() int { return f.options.models * f.options.workers }

// missed is the error that says which targets are missed; serve is how soon a new
// leader is to serve.
func (f figures) missed(serve time.Duration) error {
	var missed []error
	if n := f.load.entries + f.profiling.entries; n > entriesPerModel*f.options.models+fewEntries {
		missed = append(missed, fmt.Errorf("%d log entries for %d models on %d workers", n, f.options.models, f.options.workers))
	}
	for i, s := range f.successions {
		if s.serving > serve {
			missed = append(missed, fmt.Errorf("kill %d: the new leader served %v after its election, and %v is the target", i+1, s.serving, serve))
		}
	}
	return errors.Join(missed...)
}

// print writes the tables.
func (f figures) print(w io.Writer) {
	o := f.options
	fmt.Fprintf(w, "\n| %d models on each of %d workers | | log entries | CPU time of the leader |\n|---|---|---|---|\n", o.models, o.workers)
	fmt.Fprintf(w, "| %d copies loaded, by %d load requests, %d at a time | %v | %d, of which %d are the requests | %v |\n",
		f.holdings(), o.models, o.parallel, tenths(f.load.took), f.load.entries, o.models, tenths(f.load.leaderCPU))
	fmt.Fprintf(w, "| wait for further requests (load_idle %v) | %v | | |\n", o.loadIdle, tenths(f.profiling.idle))
	fmt.Fprintf(w, "| %d models measured | %v | %d | %v |\n", o.models, tenths(f.profiling.took), f.profiling.entries, tenths(f.profiling.leaderCPU))
	fmt.Fprintf(w, "\n- Slowest load request: %v. CPU time of the workers while they loaded: %v.\n", tenths(f.load.calls), tenths(f.load.workersCPU))
	fmt.Fprintf(w, "- On the leader's disk: %.1f MB; a snapshot: %.1f MB.\n", megabytes(f.sizes.log), megabytes(f.sizes.snapshot))
	fmt.Fprintf(w, "- At rest the leader uses %.0f %% of a processor.\n", f.restCPU)
	fmt.Fprintf(w, "- %v.\n", f.busy)
	if len(f.successions) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| SIGKILL of the leader | elected after | from the election: leads | serves | from the kill: first of %d models answers | median | last | load average | longest stall |\n|---|---|---|---|---|---|---|---|---|\n", o.sample)
	for i, s := range f.successions {
		n := len(s.answers)
		fmt.Fprintf(w, "| %d | %v | %v | %v | %v | %v | %v | %.1f | %v |\n", i+1, milli(s.elected), milli(s.leading), milli(s.serving),
			milli(s.answers[0]), milli(s.answers[n/2]), milli(s.answers[n-1]), s.load, milli(s.stalled))
	}
}

func tenths(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
func milli(d time.Duration) time.Duration  { return d.Round(time.Millisecond) }
func megabytes(n int64) float64            { return float64(n) / 1e6 }
