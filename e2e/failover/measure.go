//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// block is how many trials a cluster has before the other variant gets its
// turn, so that both meet the same neighbours.
const block = 5

// measure makes all trials that the book lacks.
func measure(ctx context.Context, o options, b *book) (err error) {
	dir, remove, err := bench.WorkDir("failover")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	fmt.Printf("failover: %s (%s), %d trials of each row, %d requests/s, seed %d, results in %s, load average %.2f\n",
		o.Binary, b.Binary, o.Trials, o.Rate, o.Seed, o.Results, bench.LoadAverage())
	for _, r := range o.rows {
		for from := 1; from <= o.Trials; from += block {
			for _, v := range variants(o) {
				if err := series(o, b, r, v, from, filepath.Join(dir, "cluster")).Make(ctx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// series are the trials of one block.
func series(o options, b *book, r row, v variant, from int, dir string) bench.Series[*stage, result] {
	return bench.Series[*stage, result]{
		Name: r.name + ", " + v.name, Book: b.Book, Print: b.print(r, v), From: from, To: min(from+block-1, o.Trials),
		Head: func(trial int) bench.Head {
			return bench.Head{Print: b.print(r, v), Row: r.name, Variant: v.name, Trial: trial, Seed: o.Seed,
				At: time.Now().UTC().Truncate(time.Millisecond)}
		},
		Open:  func(ctx context.Context) (*stage, error) { return openStage(ctx, o, r, v, dir) },
		Close: (*stage).close,
		Run: func(ctx context.Context, s *stage, h bench.Head) (result, error) {
			one := result{Head: h}
			err := runTrial(ctx, o, s, r, bench.RandomFor(o.Seed, r.name, h.Trial), &one)
			return one, err
		},
		Void: func(h bench.Head) result { return result{Head: h} },
		Done: func(s *stage, one result) (bool, error) {
			tell(r, one)
			if o.Logs == "" {
				return one.Whole, nil
			}
			return one.Whole, bench.KeepLogs(s.cluster, o.Logs, fmt.Sprintf("%s-%s-%d-%s", r.name, v.name, one.Trial, one.At.Format("150405")))
		},
	}
}

// tell prints one trial.
func tell(r row, t result) {
	if t.Invalid != "" {
		fmt.Printf("%-8s %-8s %3d  does not count: %s\n", r.name, t.Variant, t.Trial, t.Invalid)
		return
	}
	fmt.Printf("%-8s %-8s %3d  %7.1f ms without a write (%.1f at one controller), %d of %d requests failed, %.0f ms without an answer, idle %.0f %%, load %.1f\n",
		r.name, t.Variant, t.Trial, t.Gap, t.WorstGap, t.Bad(), t.Sent, t.AnswerGap, t.idle(), t.Load1)
	for _, n := range t.Notes {
		fmt.Println("    " + n)
	}
	for _, e := range t.Errors {
		fmt.Println("    " + e)
	}
}
