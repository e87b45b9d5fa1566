package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orrery-project/orrery/scheduler/sim"
)

// listedModels is how many models a table lists.
const listedModels = 20

// spread is the mean of a figure over all seeds, and its least and most.
type spread struct {
	Mean  float64 `json:"mean"`
	Least float64 `json:"min"`
	Most  float64 `json:"max"`
}

func spreadOf(runs []*sim.Report, figure func(*sim.Report) float64) (s spread) {
	for i, r := range runs {
		x := figure(r)
		if i == 0 {
			s.Least, s.Most = x, x
		}
		s.Mean += x / float64(len(runs))
		s.Least, s.Most = min(s.Least, x), max(s.Most, x)
	}
	return s
}

// text writes the mean, and the extremes where there are several.
func (s spread) text(runs int, write func(float64) string) string {
	if runs == 1 {
		return write(s.Mean)
	}
	return fmt.Sprintf("%s (%s to %s)", write(s.Mean), write(s.Least), write(s.Most))
}

func percent(share float64) string {
	text := strconv.FormatFloat(100*share, 'f', 3, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + " %"
}

func perSecond(x float64) string { return strconv.FormatFloat(x, 'f', 0, 64) }

func inMS(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) }

// simulatedTables prints one run in full, or a line for each of several.
func simulatedTables(w io.Writer, rows []simulated) {
	if len(rows) == 1 && len(rows[0].runs) == 1 {
		simulatedSheet(w, rows[0])
		return
	}
	first := rows[0].runs[0]
	fmt.Fprintf(w, "Simulated: %s, %v, %s a line. The ceiling is %.0f rows/s.\n\n", first.Scenario,
		time.Duration(first.DurationSeconds*float64(time.Second)), plural(len(rows[0].runs), "seed"), first.CeilingPerSecond)
	t := newTable(w, "POLICY", "SLO", "LOAD", "GOOD", "GOODPUT/S", "OF CEILING", "REFUSED", "LATE", "FAILED", "P50 MS", "P99 MS", "MAX MS", "BUSY", "ROWS/BATCH", "LOADS/S")
	for _, r := range rows {
		n := len(r.runs)
		total := func(count func(*sim.Group) uint64) string {
			return percent(spreadOf(r.runs, func(x *sim.Report) float64 {
				if x.Total.Requests == 0 {
					return 0
				}
				return float64(count(&x.Total)) / float64(x.Total.Requests)
			}).Mean)
		}
		mean := func(figure func(*sim.Report) float64) float64 { return spreadOf(r.runs, figure).Mean }
		goodput := spreadOf(r.runs, goodRows)
		t.row(r.policy, r.sloText(), r.loadText(),
			spreadOf(r.runs, func(x *sim.Report) float64 { return x.Total.Attainment }).text(n, percent),
			spreadOf(r.runs, func(x *sim.Report) float64 { return x.Total.GoodputPerSecond }).text(n, perSecond),
			percent(goodput.Mean/r.runs[0].CeilingPerSecond),
			total(func(g *sim.Group) uint64 { return g.Refused }), total(func(g *sim.Group) uint64 { return g.Late }), total(func(g *sim.Group) uint64 { return g.Failed }),
			inMS(mean(func(x *sim.Report) float64 { return x.Total.Latency.P50 })), inMS(mean(func(x *sim.Report) float64 { return x.Total.Latency.P99 })),
			inMS(spreadOf(r.runs, func(x *sim.Report) float64 { return x.Total.Latency.Max }).Most),
			percent(mean(func(x *sim.Report) float64 { return x.Utilisation })), fmt.Sprintf("%.2f", mean(func(x *sim.Report) float64 { return x.MeanBatchRows })),
			fmt.Sprintf("%.2f", mean(func(x *sim.Report) float64 { return x.LoadsPerSecond })))
	}
	t.flush()
	fmt.Fprintln(w)
	realTimes(w, rows)
}

// goodRows is rows a second that were answered in time.
func goodRows(r *sim.Report) float64 {
	return r.Total.GoodRowsPerSecond
}

func (s *simulated) sloText() string {
	if s.slo == 0 {
		return ""
	}
	return s.slo.String()
}

func (s *simulated) loadText() string {
	if s.load == 0 {
		return ""
	}
	return strconv.FormatFloat(s.load, 'f', -1, 64) + " %"
}

// simulatedSheet prints all of one run but its series.
func simulatedSheet(w io.Writer, s simulated) {
	r := s.runs[0]
	fmt.Fprintf(w, "Simulated: %s, policy %s, seed %d, %v", r.Scenario, r.Policy, r.Seed, time.Duration(r.DurationSeconds*float64(time.Second)))
	if r.WarmupSeconds > 0 {
		fmt.Fprintf(w, " of which %v are warm-up", time.Duration(r.WarmupSeconds*float64(time.Second)))
	}
	fmt.Fprint(w, "\n\n")
	t := newTable(w)
	g := r.Total
	t.row("requests", strconv.FormatUint(g.Requests, 10))
	t.row("answered in time", fmt.Sprintf("%d, %s", g.Good, percent(g.Attainment)))
	t.row("goodput", fmt.Sprintf("%.0f requests/s; %sthe ceiling is %.0f rows/s", g.GoodputPerSecond, offeredText(r), r.CeilingPerSecond))
	t.row("refused, late, failed", fmt.Sprintf("%d, %d, %d%s", g.Refused, g.Late, g.Failed, reasonsText(g.Reasons)))
	t.row("latency", latencyText(g.Latency))
	t.row("cold starts", strconv.FormatUint(g.ColdStarts, 10))
	t.row("weights", fmt.Sprintf("%.2f loads/s, %.2f evictions/s", r.LoadsPerSecond, r.EvictionsPerSecond))
	t.row("devices busy", percent(r.Utilisation))
	t.row("rows in a batch", fmt.Sprintf("%.2f", r.MeanBatchRows))
	for _, n := range r.Notes {
		t.row(fmt.Sprintf("at %.3f s", n.AtMS/1000), n.What)
	}
	t.flush()
	for _, groups := range []struct {
		title string
		list  []sim.Group
	}{{"WORKLOAD", r.Workloads}, {"TENANT", r.Tenants}, {"MODEL", r.Models}} {
		groupsTable(w, groups.title, groups.list)
	}
	devicesTable(w, r.Devices)
	fmt.Fprintln(w)
	realTimes(w, []simulated{s})
}

func offeredText(r *sim.Report) string {
	if r.OfferedPerSecond == 0 {
		return "" // closed loops ask as they are answered
	}
	return "offered are " + perSecond(r.OfferedPerSecond) + " rows/s, "
}

func reasonsText(reasons []sim.Count) string {
	var all []string
	for _, c := range reasons {
		all = append(all, fmt.Sprintf("%s %d", c.Reason, c.Requests))
	}
	if len(all) == 0 {
		return ""
	}
	return ": " + strings.Join(all, ", ")
}

func latencyText(l sim.Latency) string {
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, p99.9 %s, max %s ms", inMS(l.P50), inMS(l.P90), inMS(l.P99), inMS(l.P999), inMS(l.Max))
}

// groupsTable lists groups, the largest first, if there are several.
func groupsTable(w io.Writer, title string, groups []sim.Group) {
	if len(groups) < 2 {
		return
	}
	sorted := slices.Clone(groups)
	slices.SortStableFunc(sorted, func(a, b sim.Group) int { return int(min(b.Requests, 1<<40)) - int(min(a.Requests, 1<<40)) })
	if title == "WORKLOAD" {
		sorted = groups // they have an order of their own
	}
	fmt.Fprintln(w)
	t := newTable(w, title, "REQUESTS", "GOOD", "GOODPUT/S", "REFUSED", "LATE", "FAILED", "COLD", "P50 MS", "P99 MS", "MAX MS")
	for _, g := range sorted[:min(len(sorted), listedModels)] {
		count := func(n uint64) string { return strconv.FormatUint(n, 10) }
		t.row(g.Name, count(g.Requests), percent(g.Attainment), perSecond(g.GoodputPerSecond), count(g.Refused), count(g.Late), count(g.Failed), count(g.ColdStarts),
			inMS(g.Latency.P50), inMS(g.Latency.P99), inMS(g.Latency.Max))
	}
	t.flush()
	if n := len(sorted) - listedModels; n > 0 {
		fmt.Fprintf(w, "and %d more, which -o json lists\n", n)
	}
}

func devicesTable(w io.Writer, devices []sim.DeviceFigures) {
	if len(devices) < 2 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(w, "DEVICE", "BUSY", "BATCHES", "ROWS/BATCH", "LOADS", "EVICTIONS", "REFUSED")
	for _, d := range devices[:min(len(devices), listedModels)] {
		t.row(fmt.Sprintf("%s/%d", d.Worker, d.Device), percent(d.Utilisation), strconv.Itoa(d.Batches), fmt.Sprintf("%.2f", d.MeanBatchRows),
			strconv.Itoa(d.Loads), strconv.Itoa(d.Evictions), strconv.Itoa(d.Refused))
	}
	t.flush()
	if n := len(devices) - listedModels; n > 0 {
		fmt.Fprintf(w, "and %d more, which -o json lists\n", n)
	}
}

// realTimes says how long playing took, and how fast each policy decides.
func realTimes(w io.Writer, rows []simulated) {
	var names []string
	sums := map[string]*realTime{}
	for _, r := range rows {
		if sums[r.policy] == nil {
			sums[r.policy] = &realTime{}
			names = append(names, r.policy)
		}
		sum := sums[r.policy]
		sum.all, sum.policy = sum.all+r.real.all, sum.policy+r.real.policy
		sum.decisions, sum.requests = sum.decisions+r.real.decisions, sum.requests+r.real.requests
	}
	for _, name := range names {
		sum := sums[name]
		fmt.Fprintf(w, "In real time: %d requests in %s, of which %s were policy %s: %.0f requests/s, %.0f decisions/s.\n",
			sum.requests, orNothing(short(sum.all)), orNothing(short(sum.policy)), name, sum.rate(sum.requests), sum.rate(sum.decisions))
	}
}

func orNothing(text string) string {
	if text == "" {
		return "no time"
	}
	return text
}

// rate is so many per second of the policy's time.
func (t *realTime) rate(n uint64) float64 {
	if t.policy == 0 {
		return 0
	}
	return float64(n) / t.policy.Seconds()
}

// simulatedLine is a line of the plan in JSON.
type simulatedLine struct {
	Policy      string        `json:"policy"`
	SLO         string        `json:"slo,omitempty"`
	LoadPercent float64       `json:"load_percent,omitempty"`
	Attainment  spread        `json:"attainment"`
	Goodput     spread        `json:"goodput_per_s"`
	Runs        []*sim.Report `json:"runs"`
	RealTime    realTimeJSON  `json:"real_time"`
}

type realTimeJSON struct {
	Seconds            float64 `json:"seconds"`
	PolicySeconds      float64 `json:"policy_seconds"`
	DecisionsPerSecond float64 `json:"decisions_per_policy_second"`
}

// simulatedJSON prints everything; of several runs neither series nor timeline.
func simulatedJSON(w io.Writer, rows []simulated) error {
	var lines []simulatedLine
	several := len(rows) > 1 || len(rows[0].runs) > 1
	for _, r := range rows {
		line := simulatedLine{
			Policy: r.policy, SLO: r.sloText(), LoadPercent: r.load,
			Attainment: spreadOf(r.runs, func(x *sim.Report) float64 { return x.Total.Attainment }),
			Goodput:    spreadOf(r.runs, func(x *sim.Report) float64 { return x.Total.GoodputPerSecond }),
			RealTime:   realTimeJSON{r.real.all.Seconds(), r.real.policy.Seconds(), r.real.rate(r.real.decisions)},
		}
		for _, run := range r.runs {
			if several {
				brief := *run
				brief.Series, brief.Spans = nil, nil
				run = &brief
			}
			line.Runs = append(line.Runs, run)
		}
		lines = append(lines, line)
	}
	text, err := json.MarshalIndent(struct {
		Simulated bool            `json:"simulated"`
		Lines     []simulatedLine `json:"lines"`
	}{true, lines}, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", text)
	}
	return err
}
