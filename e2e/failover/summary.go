//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// odd is how many times the p50 a maximum may be before it has to be explained.
const odd = 3

// column is the trials of one row and variant.
type column []result

func (c column) sorted(of func(result) float64) []float64 {
	var all []float64
	for _, t := range c {
		all = append(all, of(t))
	}
	slices.Sort(all)
	return all
}

// gaps are the times without an acknowledged write, at any controller and at the
// one of each trial where it was longest.
func (c column) gaps() []float64      { return c.sorted(func(t result) float64 { return t.Gap }) }
func (c column) worstGaps() []float64 { return c.sorted(func(t result) float64 { return t.WorstGap }) }

func last(sorted []float64) float64 { return sorted[len(sorted)-1] }

func (c column) sum(of func(result) int) (n int) {
	for _, t := range c {
		n += of(t)
	}
	return n
}

func (c column) most(of func(result) float64) (most float64) {
	for _, t := range c {
		most = max(most, of(t))
	}
	return most
}

func failed(t result) int { return t.Bad() }
func sent(t result) int   { return t.Sent }

// idle is the least idle share of a step.
func (r result) idle() float64 {
	least := 100.0
	for _, p := range r.Parts {
		least = min(least, p.Idle)
	}
	return least
}

// worst is the part that made the gap.
func (r result) worst() part {
	if len(r.Parts) == 0 {
		return part{}
	}
	return slices.MaxFunc(r.Parts, func(a, b part) int { return cmp.Compare(a.Gap, b.Gap) })
}

// summarise prints the table. The error says that a demand on inference is not
// met.
func summarise(w io.Writer, o options, b *book) error {
	fmt.Fprintf(w, "\norrery %s on %d CPUs, %s, seed %d, %d requests/s. Time without an acknowledged control write: at all survivors taken together, and at the slowest one.\n\n",
		b.Binary, runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly), o.Seed, b.rate)
	fmt.Fprintln(w, "| fault | trials | p50 | max | bar (p50) | | slowest survivor: p50 | max | requests failed | longest time without an answer | library's timeouts: p50 | max | failed | ratio |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	var notes []string
	var missed []error
	for _, r := range o.rows {
		var ours, library column
		for _, v := range variants(o) {
			c := column(b.trials(r, v))
			if v.name == "orrery" {
				ours = c
			} else {
				library = c
			}
			notes = append(notes, explain(r, v, c, b.invalid(r, v))...)
		}
		if len(ours) == 0 {
			continue
		}
		fmt.Fprintln(w, line(r, ours, library))
		missed = append(missed, demand(r, ours))
	}
	if len(notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range notes {
		fmt.Fprintln(w, "- "+n)
	}
	return errors.Join(missed...)
}

func line(r row, ours, library column) string {
	gaps := ours.gaps()
	p50 := bench.Median(gaps)
	verdict := "ok"
	if p50 > bench.MS(r.bar) {
		verdict = "MISSED"
	}
	requests := fmt.Sprintf("%d / %d (deadline %v)", ours.sum(failed), ours.sum(sent), r.deadline)
	if demand(r, ours) != nil {
		requests += " MISSED"
	}
	cells := []string{r.title, fmt.Sprint(len(ours)), bench.Seconds(p50), bench.Seconds(last(gaps)), "≤ " + bench.Seconds(bench.MS(r.bar)), verdict}
	if r.everywhere {
		cells = append(cells, "", "") // each of them is away for a while
	} else {
		cells = append(cells, bench.Seconds(bench.Median(ours.worstGaps())), bench.Seconds(last(ours.worstGaps())))
	}
	cells = append(cells, requests, bench.Seconds(ours.most(func(t result) float64 { return t.AnswerGap })))
	if len(library) == 0 {
		cells = append(cells, "", "", "", "")
	} else {
		theirs := library.gaps()
		cells = append(cells, bench.Seconds(bench.Median(theirs)), bench.Seconds(last(theirs)),
			fmt.Sprintf("%d / %d", library.sum(failed), library.sum(sent)), fmt.Sprintf("%.1f ×", bench.Median(theirs)/p50))
	}
	return "| " + strings.Join(cells, " | ") + " |"
}

// demand is what the requests of a row were to be and were not.
func demand(r row, c column) error {
	all, bad := c.sum(sent), c.sum(failed)
	switch {
	case r.share == 1 && bad > 0:
		return fmt.Errorf("row %s: %d of %d requests failed, and none may", r.name, bad, all)
	case float64(all-bad) < r.share*float64(all):
		return fmt.Errorf("row %s: %.2f %% of requests were answered, and %.1f %% must be", r.name, 100*float64(all-bad)/float64(all), 100*r.share)
	case r.degraded && c.sum(func(t result) int { return t.Degraded }) == 0:
		return fmt.Errorf("row %s: no answer was marked degraded", r.name)
	}
	return nil
}

// explain tells what the table does not.
func explain(r row, v variant, c column, invalid []string) (notes []string) {
	note := func(format string, args ...any) {
		notes = append(notes, fmt.Sprintf("%s, %s: ", r.name, v.name)+fmt.Sprintf(format, args...))
	}
	if len(invalid) > 0 {
		note("%d trials did not count and were made again; the last: %s", len(invalid), invalid[len(invalid)-1])
	}
	if len(c) == 0 {
		return notes
	}
	if n := c.sum(func(t result) int { return btoi(!t.Recovered) }); n > 0 {
		note("in %d of %d trials writes did not go on within %v", n, len(c), recovery)
	}
	if n := c.sum(func(t result) int { return btoi(!t.Whole) }); n > 0 {
		note("in %d of %d trials the cluster did not become whole again", n, len(c))
	}
	if n := c.sum(func(t result) int { return t.Wrong }); n > 0 {
		note("%d answers were WRONG", n)
	}
	if r.away > 1 {
		listening := c.sorted(func(t result) float64 { return t.ListeningMS })
		note("counted from the start of the processes, of which the first listens after %s (p50); %d of %d answers were marked degraded; %d writes were refused meanwhile, the slowest after %s, and %d were not refused within %v",
			bench.Seconds(bench.Median(listening)), c.sum(func(t result) int { return t.Degraded }), c.sum(sent)-c.sum(failed),
			c.sum(func(t result) int { return t.Refused }), bench.Seconds(c.most(func(t result) float64 { return t.RefuseMax })),
			c.sum(func(t result) int { return t.Unrefused }), r.patience)
	}
	for _, exit := range exits(c) {
		note("%s", exit)
	}
	p50 := bench.Median(c.gaps())
	for _, t := range c {
		if t.Gap > odd*p50 {
			note("trial %d took %s, over %d times the p50: %s", t.Trial, bench.Seconds(t.Gap), odd, course(t))
		}
	}
	return notes
}

// exits counts how the leaders ended.
func exits(c column) (all []string) {
	counts := map[string]int{}
	var order []string
	for _, t := range c {
		if t.Exit == "" {
			continue
		}
		if counts[t.Exit]++; counts[t.Exit] == 1 {
			order = append(order, t.Exit)
		}
	}
	for _, e := range order {
		all = append(all, fmt.Sprintf("the process ended by itself with %s %d times", e, counts[e]))
	}
	return all
}

// course tells when the steps of the slowest part were done, and how busy the
// machine was.
func course(t result) string {
	p := t.worst()
	step := func(name string, at float64) string {
		if at == 0 {
			return name + " not logged"
		}
		return name + " after " + bench.Seconds(at)
	}
	text := strings.Join([]string{step("a survivor stood", p.Stood), step("elected", p.Elected), step("led", p.Leading),
		step("acknowledged", p.Acknowledged)}, ", ")
	if p.Name != "" {
		text = p.Name + ": " + text
	}
	return fmt.Sprintf("%s; %d candidacies; load average %.1f, CPU idle %.0f %%, stolen %.0f %%, this program stalled for %s",
		text, p.Candidacies, t.Load1, p.Idle, p.Stolen, bench.Seconds(p.Stall))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
