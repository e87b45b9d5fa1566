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

const (
	// block is how many trials a cluster has before the other variant gets its
	// turn, so that both meet the same neighbours.
	block = 5
	// retries is how many trials of a row and variant may fail to count.
	retries = 3
	// trialTimeout bounds a trial.
	trialTimeout = 4 * time.Minute
)

// measure makes all trials that the book lacks.
func measure(ctx context.Context, o options, b *book) (err error) {
	dir, remove, err := workDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	fmt.Printf("failover: %s (%s), %d trials of each row, %d requests/s, seed %d, results in %s, load average %.2f\n",
		o.binary, b.binary, o.trials, o.rate, o.seed, o.results, bench.LoadAverage())
	for _, r := range o.rows {
		for from := 1; from <= o.trials; from += block {
			for _, v := range variants(o) {
				if err := measureBlock(ctx, o, b, r, v, from, filepath.Join(dir, "cluster")); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// measureBlock makes the trials of one block that are missing, on one cluster
// as long as that one stays whole.
func measureBlock(ctx context.Context, o options, b *book, r row, v variant, from int, dir string) (err error) {
	done := map[int]bool{}
	for _, t := range b.trials(r, v) {
		done[t.Trial] = true
	}
	var s *stage
	defer func() {
		if s != nil {
			err = errors.Join(err, s.close())
		}
	}()
	failures := 0
	for n := from; n < from+block && n <= o.trials; n++ {
		for !done[n] {
			if s == nil {
				if s, err = openStage(ctx, o, r, v, dir); err != nil {
					return fmt.Errorf("row %s, %s: %w", r.name, v.name, err)
				}
			}
			result := result{Print: b.print(r, v), Row: r.name, Variant: v.name, Trial: n, Seed: o.seed, At: time.Now().UTC().Truncate(time.Millisecond)}
			if err := oneTrial(ctx, o, s, r, &result); err != nil {
				return err
			}
			if err := b.add(result); err != nil {
				return err
			}
			tell(r, result)
			if result.Invalid == "" {
				done[n] = true
			} else if failures++; failures > retries {
				return fmt.Errorf("row %s, %s: %d trials did not count; the last: %s", r.name, v.name, failures, result.Invalid)
			}
			if o.logs != "" {
				if err := s.keepLogs(o.logs, fmt.Sprintf("%s-%s-%d-%s", r.name, v.name, n, result.At.Format("150405"))); err != nil {
					return err
				}
			}
			if !result.Whole {
				broken := s
				s = nil
				if err := broken.close(); err != nil {
					fmt.Printf("  stop the cluster: %v\n", err)
				}
			}
		}
	}
	return nil
}

func oneTrial(ctx context.Context, o options, s *stage, r row, result *result) error {
	bounded, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	err := runTrial(bounded, o, s, r, randomFor(o.seed, r.name, result.Trial), result)
	if err != nil && ctx.Err() == nil {
		result.Invalid = fmt.Sprintf("not done within %v: %v", trialTimeout, err)
		return nil
	}
	return err
}

// tell prints one trial.
func tell(r row, t result) {
	if t.Invalid != "" {
		fmt.Printf("%-8s %-8s %3d  does not count: %s\n", r.name, t.Variant, t.Trial, t.Invalid)
		return
	}
	fmt.Printf("%-8s %-8s %3d  %7.1f ms without a write (%.1f at one controller), %d of %d requests failed, %.0f ms without an answer, idle %.0f %%, load %.1f\n",
		r.name, t.Variant, t.Trial, t.Gap, t.WorstGap, t.Failed+t.Wrong, t.Sent, t.AnswerGap, t.idle(), t.Load1)
	for _, n := range t.Notes {
		fmt.Println("    " + n)
	}
	for _, e := range t.Errors {
		fmt.Println("    " + e)
	}
}
