package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// outcome is what a request's end means.
type outcome uint8

const (
	good    outcome = iota // answered within its deadline, or without one
	late                   // executed, or lost at a worker, and past its deadline
	refused                // not executed
	failed                 // nobody could answer it
)

// Reasons of failures that no policy gives.
const (
	noLeader   = "NoLeader"
	unfinished = "Unfinished"
)

// ended is the end of a request.
type ended struct {
	outcome  outcome
	why      string
	answered bool
}

// group counts the requests that have something in common.
type group struct {
	name                                        string
	requests, good, late, refused, failed, cold uint64
	// answered and rows are good answers within the measured time, whenever their
	// requests came.
	answered, rows uint64
	reasons        []Count
	latency        histogram
}

func (g *group) count(why string) {
	for i := range g.reasons {
		if g.reasons[i].Reason == why {
			g.reasons[i].Requests++
			return
		}
	}
	g.reasons = append(g.reasons, Count{why, 1})
}

func (g *group) end(e ended, latency time.Duration) {
	switch e.outcome {
	case good:
		g.good++
	case late:
		g.late++
	case refused:
		g.refused++
	case failed:
		g.failed++
	}
	if e.outcome != good {
		g.count(e.why)
	}
	if e.answered {
		g.latency.add(latency)
	}
}

// tally counts what a device did within the measured time.
type tally struct {
	busy                                     time.Duration
	batches, rows, loads, evictions, refused int
}

// book gathers what a report is made of.
type book struct {
	scenario   *Scenario
	from, to   scheduler.Instant // the measured time
	total      group
	byModel    []group
	byTenant   []group
	byWorkload []group
	// tenantOf is each workload's index in byTenant.
	tenantOf []int

	steps, decisions uint64
	series           []Second
	second           histogram // of the last one of series
	spans            []Span
	shownFrom        scheduler.Instant
	shownTo          scheduler.Instant
	notes            []Note
	strokes          []stroke
}

func newBook(s *Scenario) *book {
	b := &book{scenario: s, from: epoch.Add(s.Warmup), to: epoch.Add(s.Duration), total: group{name: "all"}}
	b.shownFrom = epoch.Add(s.Timeline.From)
	b.shownTo = b.shownFrom.Add(s.Timeline.For)
	for _, m := range s.Models {
		b.byModel = append(b.byModel, group{name: m.Name})
	}
	for _, w := range s.Workloads {
		b.byWorkload = append(b.byWorkload, group{name: w.Name})
		i := slices.IndexFunc(b.byTenant, func(g group) bool { return g.name == w.Tenant })
		if i < 0 {
			i = len(b.byTenant)
			b.byTenant = append(b.byTenant, group{name: w.Tenant})
		}
		b.tenantOf = append(b.tenantOf, i)
	}
	return b
}

// measured is how much of a workload's time is measured.
func (b *book) measured(w *Workload) time.Duration {
	stop := b.scenario.Duration
	if w.Stop != 0 {
		stop = min(stop, w.Stop)
	}
	return b.within(epoch.Add(w.Start), epoch.Add(stop))
}

// counts says whether an instant is within the measured time.
func (b *book) counts(at scheduler.Instant) bool { return at >= b.from && at < b.to }

// within is how much of an interval is measured.
func (b *book) within(from, to scheduler.Instant) time.Duration {
	return max(0, min(to, b.to).Sub(max(from, b.from)))
}

func (b *book) groups(r *record) [4]*group {
	return [4]*group{&b.total, &b.byModel[r.model], &b.byTenant[b.tenantOf[r.source]], &b.byWorkload[r.source]}
}

// at is the second of an instant. Time does not go back, so those before it are
// complete.
func (b *book) at(now scheduler.Instant) *Second {
	n := int(now.Sub(epoch) / time.Second)
	for len(b.series) <= n {
		b.closeSecond()
		b.series = append(b.series, Second{Second: len(b.series)})
	}
	return &b.series[n]
}

// closeSecond writes the last second's latencies down.
func (b *book) closeSecond() {
	if n := len(b.series); n > 0 {
		b.series[n-1].Latency = latencyOf(&b.second)
		b.second.reset()
	}
}

func (b *book) arrived(r *record) {
	b.at(r.arrived).Requests++
	if !b.counts(r.arrived) {
		return
	}
	for _, g := range b.groups(r) {
		g.requests++
		if r.cold {
			g.cold++
		}
	}
}

func (b *book) ended(now scheduler.Instant, r *record, e ended) {
	latency := now.Sub(r.arrived)
	s := b.at(now)
	switch e.outcome {
	case good:
		s.Good++
	case late:
		s.Late++
	case refused:
		s.Refused++
	case failed:
		s.Failed++
	}
	if e.answered {
		b.second.add(latency)
	}
	counted := b.counts(r.arrived)
	for _, g := range b.groups(r) {
		if e.outcome == good && b.counts(now) {
			g.answered++
			g.rows += uint64(r.rows)
		}
		if counted {
			g.end(e, latency)
		}
	}
}

// moved counts a load or an eviction in the series.
func (b *book) moved(now scheduler.Instant, load bool) {
	if load {
		b.at(now).Loads++
	} else {
		b.at(now).Evictions++
	}
}

// span keeps what a device did until now, if it is to be shown.
func (b *book) span(d *device, j *job, now scheduler.Instant) {
	if now < b.shownFrom || j.started >= b.shownTo || len(b.spans) >= b.scenario.Timeline.Limit {
		return
	}
	b.spans = append(b.spans, Span{
		Worker: d.worker.Name, Device: int(d.index), Load: j.Kind == scheduler.LoadWeights,
		Model: d.worker.s.models[j.model].Name, Rows: j.Rows,
		FromMS: ms(j.started.Sub(epoch)), ToMS: ms(now.Sub(epoch)),
	})
}

func byCount(a, b Count) int {
	return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Reason, b.Reason))
}
