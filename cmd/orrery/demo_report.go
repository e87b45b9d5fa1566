package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
)

// recovery is how long after the first answer under the new leader the time
// during the failover is said to last.
const recovery = time.Second

// demoReport is what the demonstration found. Times count from the start of the
// load.
type demoReport struct {
	samples []sample
	// killed is when the leader was killed, elected when a survivor named a new
	// one.
	killed, elected time.Duration
	victim          *demoMember
	// rejoined is how long the killed one took to come back.
	rejoined time.Duration
}

// window is a part of the load's time.
type window struct {
	name    string
	samples []sample
}

// windows parts the samples: before are those that were over when the leader
// was killed; after are those that were due when recovery had passed since the
// first answer under the new leader; the others are during.
func windows(samples []sample, killed, elected time.Duration) []window {
	first := time.Duration(math.MaxInt64 - recovery)
	for _, s := range samples {
		if s.err == nil && s.done >= elected {
			first = min(first, s.done)
		}
	}
	parts := []window{{name: "before"}, {name: "during"}, {name: "after"}}
	for _, s := range samples {
		i := 1
		switch {
		case s.done < killed:
			i = 0
		case s.at >= first+recovery:
			i = 2
		}
		parts[i].samples = append(parts[i].samples, s)
	}
	return parts
}

// latencies are those of the answered requests, ascending.
func latencies(samples []sample) []time.Duration {
	var all []time.Duration
	for _, s := range samples {
		if s.err == nil {
			all = append(all, s.latency())
		}
	}
	slices.Sort(all)
	return all
}

// quantile is the smallest value that at least the share q of the values does
// not exceed; 0 without values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// longestGap is the longest time without an answer.
func longestGap(samples []sample) time.Duration {
	var answered []sample
	for _, s := range samples {
		if s.err == nil {
			answered = append(answered, s)
		}
	}
	slices.SortFunc(answered, func(a, b sample) int { return cmp.Compare(a.done, b.done) })
	gap := time.Duration(0)
	for i := 1; i < len(answered); i++ {
		gap = max(gap, answered[i].done-answered[i-1].done)
	}
	return gap
}

// tally counts what became of the requests.
func tally(samples []sample) (answered, faithful, right int) {
	for _, s := range samples {
		if s.err == nil {
			answered++
		}
		if s.faithful {
			faithful++
		}
		if s.right {
			right++
		}
	}
	return answered, faithful, right
}

func (r *demoReport) print(w io.Writer) {
	answered, faithful, right := tally(r.samples)
	fmt.Fprintf(w, "\nReport\n──────\n")
	fmt.Fprintf(w, "requests         %d sent, %d answered, %d failed\n", len(r.samples), answered, len(r.samples)-answered)
	fmt.Fprintf(w, "answers          %d equal the training run's, %d differ; %.1f %% are true\n",
		faithful, answered-faithful, 100*float64(right)/float64(max(answered, 1)))
	fmt.Fprintf(w, "without leader   %s, from the kill until a survivor named a new one\n", short(r.elected-r.killed))
	fmt.Fprintf(w, "longest gap      %s between two answers\n", short(longestGap(r.samples)))
	fmt.Fprintf(w, "back as a voter  %s after the killed one was started again\n\n", short(r.rejoined))
	t := newTable(w, "FAILOVER", "REQUESTS", "FAILED", "P50", "P99", "MAX")
	for _, part := range windows(r.samples, r.killed, r.elected) {
		l := latencies(part.samples)
		t.row(part.name, strconv.Itoa(len(part.samples)), strconv.Itoa(len(part.samples)-len(l)),
			short(quantile(l, 0.5)), short(quantile(l, 0.99)), short(quantile(l, 1)))
	}
	t.flush()
}

// verdict is an error unless every request was answered as predicted.
func (r *demoReport) verdict() error {
	answered, faithful, _ := tally(r.samples)
	if len(r.samples) == 0 {
		return errors.New("the demonstration made no request")
	}
	if failed := len(r.samples) - answered; failed > 0 {
		i := slices.IndexFunc(r.samples, func(s sample) bool { return s.err != nil })
		return fmt.Errorf("%d of %d requests failed, the first at %.3fs: %w", failed, len(r.samples), r.samples[i].at.Seconds(), r.samples[i].err)
	}
	if faithful != answered {
		return fmt.Errorf("%d of %d answers are not those of the training run", answered-faithful, answered)
	}
	return nil
}
