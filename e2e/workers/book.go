//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// result is one trial, as a line of the results file. Times are milliseconds.
type result struct {
	bench.Head
	// Figures are what the row's measures are called, with what was measured.
	Figures map[string]float64 `json:"figures"`
	bench.Requests
	// Whole says that all was as before in the end.
	Whole bool     `json:"whole"`
	Load1 float64  `json:"load1"`
	Idle  float64  `json:"cpu_idle_percent"`
	Stall float64  `json:"stall_ms"`
	Notes []string `json:"notes,omitempty"`
}

// book is the results file. Only trials of the same binary and options count.
type book struct {
	*bench.Book[result]
	options options
}

// print is what a trial of a row depends on.
func (b *book) print(r row) string {
	o := b.options
	return bench.Print(o.Keys, b.Binary, o.Rate, o.span, o.perHost, o.loopback, r.name, r.deadline, r.away)
}

// measureAll makes all trials that the book lacks.
func measureAll(ctx context.Context, o options, b *book) (err error) {
	dir, remove, err := workDir(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	fmt.Printf("workers: %s (%s), %d trials of each row, %d requests/s of the %.0f/s that %d workers can do, seed %d, spans of %v, %d workers in each process of a crowd, results in %s, load average %.2f\n",
		o.Binary, b.Binary, o.Trials, o.Rate, ceiling, workers, o.Seed, o.span, o.perHost, o.Results, bench.LoadAverage())
	for _, r := range o.rows {
		if err := series(o, b, r, filepath.Join(dir, "cluster")).Make(ctx); err != nil {
			return err
		}
	}
	return nil
}

// workDir is a folder in memory.
func workDir(o options) (dir string, remove func() error, err error) {
	if !o.loopback {
		return bench.WorkDir("workers")
	}
	dir, err = bench.MemoryDir("workers")
	return dir, func() error { return os.RemoveAll(dir) }, err
}

// series are the trials of one row.
func series(o options, b *book, r row, dir string) bench.Series[*stage, result] {
	return bench.Series[*stage, result]{
		Name: r.name, Book: b.Book, Print: b.print(r), From: 1, To: o.Trials,
		Head: func(trial int) bench.Head {
			return bench.Head{Print: b.print(r), Row: r.name, Trial: trial, Seed: o.Seed, At: time.Now().UTC().Truncate(time.Millisecond)}
		},
		Open:  func(ctx context.Context) (*stage, error) { return openStage(ctx, o, r, dir) },
		Close: (*stage).close,
		Run: func(ctx context.Context, s *stage, h bench.Head) (result, error) {
			one := result{Head: h, Figures: map[string]float64{}}
			err := runTrial(ctx, o, s, r, &one)
			return one, err
		},
		Void: func(h bench.Head) result { return result{Head: h} },
		Done: func(s *stage, one result) (bool, error) {
			tell(r, one)
			whole := one.Whole && !r.fresh
			if o.Logs == "" {
				return whole, nil
			}
			return whole, bench.KeepLogs(s.cluster, o.Logs, fmt.Sprintf("%s-%d-%s", r.name, one.Trial, one.At.Format("150405")))
		},
	}
}

// tell prints one trial.
func tell(r row, t result) {
	if t.Invalid != "" {
		fmt.Printf("%-14s %3d  does not count: %s\n", r.name, t.Trial, t.Invalid)
	} else {
		var said []string
		for _, m := range r.measures {
			said = append(said, m.title+" "+m.unit.text(t.Figures[m.name]))
		}
		fmt.Printf("%-14s %3d  %s; %d of %d requests failed, longest %.0f ms; idle %.0f %%, stalled %.0f ms, load %.1f\n",
			r.name, t.Trial, strings.Join(said, ", "), t.Bad(), t.Sent, t.LatencyMax, t.Idle, t.Stall, t.Load1)
	}
	for _, n := range t.Notes {
		fmt.Println("    " + n)
	}
	for _, e := range t.Errors {
		fmt.Println("    " + e)
	}
}
