//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/errs"
)

// series are the requests to one model.
type series struct {
	engine string
	// sizes are the numbers of rows to which batches are padded, ascending.
	sizes   []int
	samples []sample
	busy    bench.Busy
}

// size is the number of rows to which a batch was padded.
func (s series) size(batchRows int) int {
	i, _ := slices.BinarySearch(s.sizes, batchRows)
	return s.sizes[min(i, len(s.sizes)-1)]
}

// answered are the samples that were answered well, and, by reason, how many
// were not. Each of the former tells what was predicted, or the error says that
// one does not.
func (s series) answered() (good []sample, bad map[string]int, err error) {
	bad = map[string]int{}
	for _, one := range s.samples {
		switch {
		case errors.Is(one.err, bench.ErrWrong):
			bad["wrong"]++
		case one.err != nil:
			bad[string(errs.From(one.err).Reason)]++
		case one.predicted <= 0 || one.actual <= 0 || one.batchRows < one.rows:
			return nil, nil, fmt.Errorf("%s: an answer does not tell what was predicted: %+v", s.engine, one)
		default:
			good = append(good, one)
		}
	}
	return good, bad, nil
}

// line is what some samples tell.
type line struct {
	requests int
	// batches have the rows of all requests, if all of each batch were answered.
	batches           float64
	predicted, actual time.Duration // p50
	// off is actual - predicted: p1, p50 and p99.
	off [3]time.Duration
	// over is the share, of 100, that took longer than predicted.
	over float64
}

func lineOf(some []sample) (l line) {
	var predicted, actual, off []time.Duration
	for _, s := range some {
		predicted, actual, off = append(predicted, s.predicted), append(actual, s.actual), append(off, s.actual-s.predicted)
		l.batches += float64(s.rows) / float64(s.batchRows)
		if s.actual > s.predicted {
			l.over += 100 / float64(len(some))
		}
	}
	l.requests = len(some)
	l.predicted, l.actual = percentile(predicted, 0.5), percentile(actual, 0.5)
	l.off = [3]time.Duration{percentile(off, 0.01), percentile(off, 0.5), percentile(off, 0.99)}
	return l
}

// percentile is the nearest-rank percentile, 0 of none.
func percentile(some []time.Duration, p float64) time.Duration {
	if len(some) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(some))
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// summarise prints the table.
func summarise(w io.Writer, all []series) error {
	fmt.Fprintln(w, "\nTimes in ms. Rows: those to which the batch was padded.")
	fmt.Fprintln(w, "\n| engine | rows | requests | batches | predicted p50 | actual p50 | error p1 | error p50 | error p99 | longer than predicted |\n|---|---|---|---|---|---|---|---|---|---|")
	for _, s := range all {
		good, _, err := s.answered()
		if err != nil {
			return err
		}
		groups := map[int][]sample{}
		for _, one := range good {
			groups[s.size(one.batchRows)] = append(groups[s.size(one.batchRows)], one)
		}
		for _, size := range slices.Sorted(maps.Keys(groups)) {
			lineOf(groups[size]).print(w, s.engine, strconv.Itoa(size))
		}
		lineOf(good).print(w, s.engine, "all")
	}
	fmt.Fprintln(w)
	for _, s := range all {
		good, bad, _ := s.answered()
		fmt.Fprintf(w, "- %s: %d of %d requests were answered well, not: %v. %v\n", s.engine, len(good), len(s.samples), bad, s.busy)
	}
	return nil
}

func (l line) print(w io.Writer, engine, rows string) {
	ms := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds()*1000, 'f', 3, 64) }
	fmt.Fprintf(w, "| %s | %s | %d | %.0f | %s | %s | %s | %s | %s | %.1f %% |\n",
		engine, rows, l.requests, l.batches, ms(l.predicted), ms(l.actual), ms(l.off[0]), ms(l.off[1]), ms(l.off[2]), l.over)
}
