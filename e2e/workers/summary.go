//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// summarise prints the table. The error says which demands are not met that do
// not depend on how fast the machine is.
func summarise(w io.Writer, b *book) error {
	o := b.options
	fmt.Fprintf(w, "\norrery %s on %d CPUs, %s, seed %d, %d requests/s: %.0f %% of what %d workers can do.\n\n",
		b.Binary, runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly), o.Seed, o.Rate, 100*float64(o.Rate)/ceiling, workers)
	fmt.Fprintln(w, "| fault | trials | | p50 | max | target | |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	var notes []string
	var missed []error
	for _, r := range o.rows {
		c := column(b.Trials(b.print(r)))
		notes = append(notes, explain(r, c, b.Invalid(b.print(r)))...)
		if len(c) == 0 {
			continue
		}
		first := fmt.Sprintf("| %s | %d ", r.title, len(c))
		for _, m := range r.measures {
			cells, err := c.judge(r, m)
			fmt.Fprintln(w, first+"| "+strings.Join(append([]string{m.title}, cells...), " | ")+" |")
			missed = append(missed, err)
			first = "| | "
		}
		cells, err := c.requests(r)
		fmt.Fprintln(w, first+"| "+strings.Join(cells, " | ")+" |")
		missed = append(missed, err)
	}
	if len(notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range notes {
		fmt.Fprintln(w, "- "+n)
	}
	return errors.Join(missed...)
}

// column is the trials of one row.
type column []result

func (c column) figures(name string) (all []float64) {
	for _, t := range c {
		all = append(all, t.Figures[name])
	}
	slices.Sort(all)
	return all
}

// The verdicts on a target: by all trials, or by half of them.
const (
	met    = "ok"
	half   = "ok at the p50 only"
	failed = "MISSED"
)

// judge makes the cells of a measure: p50, max, target and verdict.
func (c column) judge(r row, m measure) (cells []string, err error) {
	all := c.figures(m.name)
	p50, most := bench.Median(all), all[len(all)-1]
	cells = []string{m.unit.text(p50), m.unit.text(most), "", ""}
	switch {
	case m.least > 0:
		sum := 0.0
		for _, x := range all {
			sum += x
		}
		cells[2], cells[3] = fmt.Sprintf("≥ %s in all", m.unit.text(m.least)), fmt.Sprintf("%s in all", m.unit.text(sum))
	case m.bounded:
		cells[2], cells[3] = "≤ "+m.unit.text(m.most), met
		if p50 > m.most {
			cells[3] = failed
		} else if most > m.most {
			cells[3] = half
		}
		if m.must && most > m.most {
			cells[3] = failed
			err = fmt.Errorf("row %s, %s: %s, and at most %s may be", r.name, m.title, m.unit.text(most), m.unit.text(m.most))
		}
	}
	return cells, err
}

// requests makes the cells of what became of the load.
func (c column) requests(r row) (cells []string, err error) {
	sent, bad, worst := 0, 0, 0
	for _, t := range c {
		sent, bad, worst = sent+t.Sent, bad+t.Bad(), max(worst, t.Bad())
	}
	cells = []string{fmt.Sprintf("requests failed (deadline %v)", r.deadline), fmt.Sprintf("%d / %d", bad, sent), fmt.Sprint(worst), "", ""}
	if r.strict {
		cells[3], cells[4] = "0", met
		if bad > 0 {
			cells[4] = failed
			err = fmt.Errorf("row %s: %d of %d requests failed, and none may", r.name, bad, sent)
		}
	}
	return cells, err
}

// explain tells what the table does not.
func explain(r row, c column, invalid []string) (notes []string) {
	if len(invalid) > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d trials did not count and were made again; the last: %s", r.name, len(invalid), invalid[len(invalid)-1]))
	}
	for _, t := range c {
		for _, n := range t.Notes {
			notes = append(notes, fmt.Sprintf("%s, trial %d: %s", r.name, t.Trial, n))
		}
		if t.Wrong > 0 {
			notes = append(notes, fmt.Sprintf("%s, trial %d: %d answers were WRONG", r.name, t.Trial, t.Wrong))
		}
		if r.strict && t.Bad() > 0 {
			notes = append(notes, fmt.Sprintf("%s, trial %d: %s", r.name, t.Trial, t.Errors[0]))
		}
	}
	return notes
}
