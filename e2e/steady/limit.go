//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

const (
	// A rate is kept up when so many of the requests sent are answered while it
	// lasts, so few fail, and nearly all are answered in that time.
	answeredShare = 0.98
	lossShare     = 0.001
	latencyBound  = 100 * time.Millisecond

	// rateFactor is between two rates until one is not kept up; then refinements
	// halve the interval.
	rateFactor  = 1.5
	refinements = 3
	// mostSteps bounds the steps, with repetitions.
	mostSteps = 24
	// rest is between two steps.
	rest = time.Second
)

// findLimit raises the rate until it is not kept up, and returns the highest
// that was.
func findLimit(ctx context.Context, o options, s *stage) (limit int, err error) {
	fmt.Printf("\n| requests/s | answers/s | not answered in time | p50 | p99 | elections | %s | CPU idle | kept up |\n|---|---|---|---|---|---|---|---|---|\n", coresTitle)
	var best figures
	var notes []string // what comes after the table
	limit, err = climb(o.startRate, mostSteps, func(rate int) (bool, error) {
		f, err := s.keepUp(ctx, phase{
			duration: o.step, every: o.step, model: fastModel, rate: rate, deadline: o.deadline, inFlight: max(1000, rate/2),
		})
		if err != nil {
			return false, err
		}
		why := f.fault()
		verdict := "yes"
		if why != "" {
			verdict = "no: " + why
		} else if best.rate < rate {
			best = f
		}
		fmt.Printf("| %d | %.0f | %d of %d | %v | %v | %d | %v | %.0f %% | %s |\n", rate, f.answersPerSecond(), f.counts.bad(), f.counts.sent(),
			short(f.counts.latencies.quantile(0.5)), short(f.counts.latencies.quantile(0.99)), f.changes.elections(), f.cores, f.machine.idle, verdict)
		for name, k := range f.counts.kinds {
			notes = append(notes, fmt.Sprintf("%d/s: %d × %s; the first %s", rate, k.n, name, k.first))
		}
		for _, line := range f.lines {
			notes = append(notes, fmt.Sprintf("%d/s: %s", rate, line))
		}
		return why == "", bench.Pause(ctx, rest)
	})
	fmt.Println()
	for _, n := range notes {
		fmt.Println("- " + n)
	}
	if err != nil {
		return 0, err
	}
	fmt.Printf("\nThe limit is %d requests/s. %s\n\n", limit, best.limitOf())
	return limit, nil
}

// fault is why a rate was not kept up, or empty.
func (f figures) fault() string {
	p99 := f.counts.latencies.quantile(0.99)
	offered := float64(f.rate) * f.took.Seconds()
	switch {
	case f.counts.loss() > lossShare:
		return fmt.Sprintf("%.2f %% not answered", 100*f.counts.loss())
	case p99 > latencyBound:
		return fmt.Sprintf("p99 over %v", latencyBound)
	case float64(f.counts.answered) < answeredShare*offered:
		return fmt.Sprintf("%.0f %% of the rate", 100*float64(f.counts.answered)/offered)
	}
	return ""
}

// limitOf says what was at its end.
func (f figures) limitOf() string {
	c := f.cores
	text := fmt.Sprintf("There the leader had %.2f processors, the followers %.2f, the workers %.2f, this program as the client %.2f, and all else %.2f; "+
		"%.0f %% of the time was idle. ", c.leader, c.followers, c.workers, c.self, c.others, f.machine.idle)
	switch {
	case c.others > 0.25*float64(runtime.NumCPU()):
		return text + "Too much was taken by other processes: measure again when they are gone."
	case f.machine.idle < 15:
		return text + "So it is the limit of the processors that all of these share."
	}
	return text + "So it is not the processors' limit, but of what a leader does one after the other."
}

// climb finds the highest rate for which try says yes: first by a factor, then
// by halves. What is refused is tried once more, since neighbours may have
// disturbed it. There are at most so many tries.
func climb(start, tries int, try func(rate int) (bool, error)) (best int, err error) {
	attempt := func(rate int) (bool, error) {
		for range 2 {
			if tries--; tries < 0 {
				return false, fmt.Errorf("no limit was found in the steps that there are; begin above %d by -start-rate", best)
			}
			if ok, err := try(rate); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	bad := 0
	for rate := start; bad == 0; rate = int(math.Ceil(float64(rate) * rateFactor)) {
		ok, err := attempt(rate)
		switch {
		case err != nil:
			return 0, err
		case ok:
			best = rate
		default:
			bad = rate
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("not even %d requests/s are kept up; begin lower by -start-rate", start)
	}
	for range refinements {
		rate := (best + bad) / 2
		ok, err := attempt(rate)
		switch {
		case err != nil:
			return 0, err
		case ok:
			best = rate
		default:
			bad = rate
		}
	}
	return best, nil
}
