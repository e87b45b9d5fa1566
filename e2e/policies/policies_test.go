//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/orrery-project/orrery/scheduler"
	"github.com/orrery-project/orrery/scheduler/sim"
)

// TestAllWorkloadsArePlayed is the benchmark in short.
func TestAllWorkloadsArePlayed(t *testing.T) {
	o, err := parse(strings.Fields("-seeds 2 -span 6s -policies edf"))
	if err != nil {
		t.Fatal(err)
	}
	o.only = regexp.MustCompile("poisson-.0|6|many-[34]..-|lost|tenants|priorities|bursts")
	var out strings.Builder
	if err := play(t.Context(), o, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, bad := range []string{"failed", "?", "NaN", "Inf"} {
		if strings.Contains(text, bad) {
			t.Errorf("the tables have %q:\n%s", bad, text)
		}
	}
	want := 0
	for _, table := range choose(tables(), o.only) {
		want += 2
		for _, w := range table.workloads {
			want += len(w.figures)
		}
	}
	lines := regexp.MustCompile(`(?m)^\|(.*\|){4}$`).FindAllString(text, -1)
	if len(lines) != want {
		t.Errorf("%d lines with four columns, want %d:\n%s", len(lines), want, text)
	}
	if !strings.Contains(text, "\n| 50 % of the ceiling | in time | ") {
		t.Errorf("there is no row of half the ceiling:\n%s", text)
	}
}

// The order in which runs end changes nothing.
func TestJobsChangeNothing(t *testing.T) {
	var texts []string
	for _, jobs := range []string{"1", "4"} {
		o, err := parse([]string{"-seeds", "3", "-span", "6s", "-only", "poisson-80|tenants", "-jobs", jobs})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := play(t.Context(), o, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, out.String())
	}
	if texts[0] != texts[1] {
		t.Errorf("%s\nand with four jobs\n%s", texts[0], texts[1])
	}
}

func TestNamesOfWorkloads(t *testing.T) {
	seen := map[string]bool{}
	for _, table := range tables() {
		for _, w := range table.workloads {
			if seen[w.name] || len(w.figures) == 0 {
				t.Errorf("%s: the name is taken, or there are no figures", w.name)
			}
			seen[w.name] = true
		}
	}
	o, err := parse(strings.Fields("-list -only ^lost"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := play(t.Context(), o, &out, io.Discard); err != nil || strings.Count(out.String(), "\n") != 1 || !strings.HasPrefix(out.String(), "lost-90 ") {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestARunThatIsStopped(t *testing.T) {
	o, err := parse(strings.Fields("-seeds 1 -span 6s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	var out strings.Builder
	if err := play(ctx, o, &out, io.Discard); err == nil || err.Error() != "enough" || strings.Contains(out.String(), "|") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// What can't be played leaves the other rows as they are, and is told at the end.
func TestAWorkloadThatFails(t *testing.T) {
	o, err := parse(strings.Fields("-seeds 2 -span 6s -policies edf"))
	if err != nil {
		t.Fatal(err)
	}
	bad := func(kit) ([]sim.Scenario, error) { return nil, errors.New("no scenario") }
	good := choose(tables(), regexp.MustCompile("poisson-50"))[0].workloads[0]
	all := []table{{"t", []workload{{name: "bad", label: "bad", scenarios: bad, figures: []figure{inTime()}, bound: true}, good}}}
	p := start(t.Context(), o, all)
	var out strings.Builder
	if err := p.print(t.Context(), &all[0], &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(); err == nil || !strings.Contains(err.Error(), "workload bad, policy edf, seed ") {
		t.Error(err)
	}
	if text := out.String(); !strings.Contains(text, "| bad | in time | failed | failed |") || strings.Count(text, "failed") != 2 {
		t.Errorf("%s", text)
	}
}

func TestFlags(t *testing.T) {
	for line, want := range map[string]string{
		"-seeds 0":      "at least 1 seed",
		"-jobs 0":       "at least 1 seed and 1 job",
		"-span 1s":      "from 6s to 1h",
		"-only (":       "-only",
		"-policies efd": `no scheduling policy "efd"`,
		"-bound efd":    `no scheduling policy "efd"`,
		"more":          "no arguments but flags",
	} {
		if _, err := parse(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	o, err := parse(strings.Fields("-bound= -only none"))
	if err != nil || len(o.columns()) != len(scheduler.Policies()) {
		t.Errorf("%v, %v", o.columns(), err)
	}
	if err := play(t.Context(), o, io.Discard, io.Discard); err == nil {
		t.Error("nothing was played, and that is no error")
	}
}

func TestSummaries(t *testing.T) {
	never := math.Inf(1)
	for _, test := range []struct {
		unit   unit
		values []float64
		want   string
	}{
		{percent, []float64{1, 1}, "100 %"},
		{percent, []float64{0, 0}, "0 %"},
		{percent, []float64{0.925, 0.926}, "92.55 %"},
		{percent, []float64{0.92, 0.93}, "92.50 % (92.00–93.00)"},
		{percent, []float64{0.99912, 1}, "99.956 % (99.912–100)"},
		{percent, []float64{0.9999999, 1}, "> 99.999 %"},
		{percent, []float64{0, 0.000002}, "< 0.001 %"},
		{milliseconds, []float64{10, 10.1}, "10.1 ms"},
		{milliseconds, []float64{10, 12}, "11.0 ms (10.0–12.0)"},
		{perSecond, []float64{0, 0}, "0/s"},
		{perSecond, []float64{46, 48}, "47.0/s (46.0–48.0)"},
		{perSecond, []float64{736.2, 736.4}, "736/s"},
		{wholeSeconds, []float64{2, 2, 3}, "2.33 s (2–3)"},
		{wholeSeconds, []float64{2, never}, "2 s (never with 1 of 2)"},
		{wholeSeconds, []float64{never, never}, "never"},
		{multiple, []float64{4.42, 4.42}, "4.4 ×"},
		{plain, []float64{1.2, math.NaN()}, "?"},
	} {
		if got := test.unit.summary(test.values); got != test.want {
			t.Errorf("%v: %s, want %s", test.values, got, test.want)
		}
	}
}
