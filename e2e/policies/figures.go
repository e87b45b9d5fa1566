//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/orrery-project/orrery/scheduler/sim"
)

// result is what came of a workload with one seed.
type result struct {
	scenarios []sim.Scenario
	reports   []*sim.Report
}

// figure is one thing that is read from a result.
type figure struct {
	name string
	unit unit
	// of is +Inf for what never came.
	of func(*result) float64
}

// total is a figure of the first report.
func total(name string, u unit, of func(*sim.Report) float64) figure {
	return figure{name, u, func(r *result) float64 { return of(r.reports[0]) }}
}

func inTime() figure {
	return total("in time", percent, func(r *sim.Report) float64 { return r.Total.Attainment })
}

func p50() figure {
	return total("p50", milliseconds, func(r *sim.Report) float64 { return r.Total.Latency.P50 })
}

func p99() figure {
	return total("p99", milliseconds, func(r *sim.Report) float64 { return r.Total.Latency.P99 })
}

func goodput() figure {
	return total("goodput", perSecond, func(r *sim.Report) float64 { return r.Total.GoodRowsPerSecond })
}

func ofCeiling() figure {
	return total("goodput, of the ceiling", percent, func(r *sim.Report) float64 { return r.Total.GoodRowsPerSecond / r.CeilingPerSecond })
}

func late() figure {
	return total("late", percent, func(r *sim.Report) float64 { return share(r.Total.Late, r.Total.Requests) })
}

func batchRows() figure {
	return total("rows a batch", plain, func(r *sim.Report) float64 { return r.MeanBatchRows })
}

func loads() figure {
	return total("loads", perSecond, func(r *sim.Report) float64 { return r.LoadsPerSecond })
}

func coldStarts() figure {
	return total("cold starts", percent, func(r *sim.Report) float64 { return share(r.Total.ColdStarts, r.Total.Requests) })
}

func share(part, all uint64) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// group is a figure of one of a report's workloads, by its name.
func group(run int, workload, name string, u unit, of func(*sim.Group) float64) figure {
	return figure{name, u, func(r *result) float64 {
		all := r.reports[run].Workloads
		i := slices.IndexFunc(all, func(g sim.Group) bool { return g.Name == workload })
		if i < 0 {
			return math.NaN()
		}
		return of(&all[i])
	}}
}

func attainment(g *sim.Group) float64 { return g.Attainment }
func median(g *sim.Group) float64     { return g.Latency.P50 }
func p99Of(g *sim.Group) float64      { return g.Latency.P99 }

// recovery is how long it takes after the fault until each second is as good as
// it can be.
func recovery() figure {
	return figure{"good again after", wholeSeconds, func(r *result) float64 {
		s := &r.scenarios[0]
		at := sim.FaultAt(s.Duration)
		seconds, ok := r.reports[0].RecoveredAfter(at, recoveredShare, s.CeilingAt(at))
		if !ok {
			return math.Inf(1)
		}
		return float64(seconds)
	}}
}

// recoveredShare is how much of what could be answered has to be in each second.
const recoveredShare = 0.97

// achieved is what the last third of a run has of what it could have.
func achieved() figure {
	return figure{"of what there could be, in the last third", percent, func(r *result) float64 {
		s := &r.scenarios[0]
		share := r.reports[0].Achieved(s.Duration-s.Duration/3, s.Duration, s.CeilingAt(sim.FaultAt(s.Duration)))
		return min(1, share) // answers to what came before are among them
	}}
}

// unit says how a figure is written, and when its seeds differ noticeably.
type unit uint8

const (
	percent unit = iota // of a share
	milliseconds
	perSecond
	wholeSeconds
	multiple // of the time for one row
	plain
)

func (u unit) text(x float64) string {
	switch {
	case math.IsInf(x, 1):
		return "never"
	case math.IsNaN(x):
		return "?"
	}
	switch u {
	case percent:
		return percentText(x)
	case milliseconds:
		return fmt.Sprintf("%.1f ms", x)
	case perSecond:
		if x < 100 && x != 0 {
			return fmt.Sprintf("%.1f/s", x)
		}
		return fmt.Sprintf("%.0f/s", x)
	case wholeSeconds:
		return fmt.Sprintf("%.3g s", x)
	case multiple:
		return fmt.Sprintf("%.1f ×", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// percentText says neither of nearly all that it is all, nor of little that it
// is nothing.
func percentText(x float64) string {
	switch {
	case x == 0 || x == 1:
		return fmt.Sprintf("%.0f %%", 100*x)
	case x < 0.000005:
		return "< 0.001 %"
	case x > 0.999995 && x < 1:
		return "> 99.999 %"
	case x < 0.001 || x > 0.999 && x < 1:
		return fmt.Sprintf("%.3f %%", 100*x)
	}
	return fmt.Sprintf("%.2f %%", 100*x)
}

// differ says whether values of one mean lie noticeably apart.
func (u unit) differ(least, mean, most float64) bool {
	apart := most - least
	if u == percent {
		return apart > 0.0001 && apart > 0.05*math.Abs(min(mean, 1-mean))
	}
	return apart > 0.02*mean && u.text(least) != u.text(most)
}

// summary is the mean of all seeds, and the least and the most if they differ.
func (u unit) summary(values []float64) string {
	least, most, sum, finite := math.Inf(1), math.Inf(-1), 0.0, 0
	for _, x := range values {
		if math.IsNaN(x) {
			return u.text(x)
		}
		least, most = min(least, x), max(most, x)
		if !math.IsInf(x, 0) {
			sum, finite = sum+x, finite+1
		}
	}
	never := len(values) - finite
	if finite == 0 {
		return u.text(math.Inf(1))
	}
	mean := sum / float64(finite)
	switch {
	case never > 0:
		return fmt.Sprintf("%s (never with %d of %d)", u.text(mean), never, len(values))
	case u.differ(least, mean, most):
		return fmt.Sprintf("%s (%s–%s)", u.text(mean), u.bare(least), u.bare(most))
	}
	return u.text(mean)
}

// bare is the text without its unit.
func (u unit) bare(x float64) string {
	text := u.text(x)
	for _, suffix := range []string{" %", " ms", "/s", " s", " ×"} {
		if n := len(text) - len(suffix); n > 0 && text[n:] == suffix {
			return text[:n]
		}
	}
	return text
}
