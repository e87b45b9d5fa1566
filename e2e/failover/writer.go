//go:build linux

package main

import (
	"slices"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

// writePause is between the end of a write and the beginning of the next.
const writePause = 20 * time.Millisecond

// startWriters begins to write. End must be called.
func startWriters(patience time.Duration, at []*devcluster.Process) (*bench.Writers, error) {
	return bench.StartWriters(bench.WriterOptions{Patience: patience, Pause: writePause}, at)
}

// gap is the longest time between two of some moments, in order, of which the
// second is after from and the first before to; also that from the last moment
// to to. With clip it counts from from at the earliest.
func gap(moments []time.Time, from, to time.Time, clip bool) (longest time.Duration, ended time.Time) {
	last := from
	if !clip {
		if i, _ := slices.BinarySearchFunc(moments, from, time.Time.Compare); i > 0 {
			last = moments[i-1]
		}
	}
	for _, at := range moments {
		if !at.After(from) {
			continue
		}
		if d := at.Sub(last); d > longest {
			longest, ended = d, at
		}
		last = at
		if at.After(to) {
			return longest, ended
		}
	}
	if d := to.Sub(last); d > longest {
		longest, ended = d, to
	}
	return longest, ended
}
