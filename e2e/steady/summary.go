//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// summarise prints the table. The error says which demand is not met: no
// election, and nearly no request without an answer in time.
func summarise(w io.Writer, o options, all []figures) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nNo fault was made; %s, %v.\n\n", time.Now().UTC().Format(time.DateOnly), o)
	fmt.Fprintln(w, "| phase | time | requests/s | elections | terms begun | leaders taken over | stood, not elected | sessions lost | failed | late | p50 | p99 | max | control writes failed | slowest write | CPU idle | load average |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	var missed []error
	var notes []string
	for _, f := range all {
		c := &f.counts
		verdict := "0"
		if n := f.changes.elections(); n > 0 {
			verdict = fmt.Sprintf("%d FALSE", n)
			missed = append(missed, fmt.Errorf("%s: %d false elections", f.name, n))
		}
		if c.loss() > lossShare {
			missed = append(missed, fmt.Errorf("%s: %.2f %% of the requests were not answered in time, and %.1f %% may", f.name, 100*c.loss(), 100*lossShare))
		}
		cells := []any{
			f.name, f.took.Round(time.Second), f.rate, verdict, f.changes.terms, f.changes.leaders, max(0, f.changes.stood-f.changes.terms), f.changes.lost,
			fmt.Sprintf("%d / %d", c.other(), c.sent()), c.late,
			short(c.latencies.quantile(0.5)), short(c.latencies.quantile(0.99)), short(c.latencies.longest),
			fmt.Sprintf("%d / %d", f.writes.failed, f.writes.sent), short(f.writes.longest),
			fmt.Sprintf("%.0f %%", f.machine.idle), fmt.Sprintf("%.1f", f.machine.load),
		}
		text := make([]string, len(cells))
		for i, cell := range cells {
			text[i] = fmt.Sprint(cell)
		}
		fmt.Fprintln(w, "| "+strings.Join(text, " | ")+" |")
		notes = append(notes, f.notes()...)
	}
	fmt.Fprintln(w)
	for _, n := range notes {
		fmt.Fprintln(w, "- "+n)
	}
	return errors.Join(missed...)
}

// notes tell what the table does not.
func (f figures) notes() (notes []string) {
	note := func(format string, args ...any) {
		notes = append(notes, f.name+": "+fmt.Sprintf(format, args...))
	}
	note("%s: %v; other machines took %.0f %% of the time; this program stalled for %v at most",
		coresTitle, f.cores, f.machine.stolen, f.machine.stall.Round(time.Millisecond))
	if f.note != "" {
		note("%s", f.note)
	}
	if f.counts.degraded > 0 {
		note("%d answers were marked degraded: there was no leader", f.counts.degraded)
	}
	if f.writes.first != nil {
		note("the first control write that failed: %v", f.writes.first)
	}
	for _, name := range slices.Sorted(maps.Keys(f.counts.kinds)) {
		k := f.counts.kinds[name]
		note("%d × %s; the first %s", k.n, name, k.first)
	}
	return notes
}

// short is a time to three digits or so.
func short(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d < time.Second:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
