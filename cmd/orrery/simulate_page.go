package main

import (
	"bytes"
	_ "embed" // the page
	"fmt"
	"html/template"
	"strings"

	"github.com/orrery-project/orrery/scheduler/sim"
)

// detailedLines is how many lines of a plan a page shows in detail.
const detailedLines = 24

//go:embed simulate.html
var simulatePage string

// pageData is what the page shows.
type pageData struct {
	Title, Version string
	Tables         string
	Comparisons    []template.HTML
	Runs           []pageRun
	// Left is how many lines are not shown in detail.
	Left int
}

// pageRun is one run in detail.
type pageRun struct {
	Title, Sheet string
	Plots        []template.HTML
	Timeline     template.HTML
	// Devices are those that the timeline leaves out.
	Devices int
}

// simulatedPage is a page that needs nothing but itself.
func simulatedPage(rows []simulated) ([]byte, error) {
	parsed, err := template.New("page").Parse(simulatePage)
	if err != nil {
		return nil, err
	}
	data := pageData{Title: rows[0].runs[0].Scenario, Version: buildVersion()}
	if len(rows) > 1 || len(rows[0].runs) > 1 {
		var text strings.Builder
		simulatedTables(&text, rows)
		data.Tables = text.String()
	}
	data.Comparisons = comparisons(rows)
	for i, r := range rows {
		if i == detailedLines {
			data.Left = len(rows) - i
			break
		}
		data.Runs = append(data.Runs, detail(r))
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, data); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// detail shows the first seed of a line.
func detail(s simulated) pageRun {
	r := s.runs[0]
	title := "policy " + s.policy
	if text := s.sloText(); text != "" {
		title += ", SLO " + text
	}
	if text := s.loadText(); text != "" {
		title += ", load " + text
	}
	var sheet strings.Builder
	simulatedSheet(&sheet, simulated{policy: s.policy, slo: s.slo, load: s.load, runs: s.runs[:1], real: s.real})
	run := pageRun{Title: fmt.Sprintf("%s, seed %d", title, r.Seed), Sheet: sheet.String(), Timeline: timeline(r)}
	if run.Timeline != "" {
		run.Devices = max(0, len(r.Devices)-timelineDevices)
	}
	for _, p := range overTime(r) {
		run.Plots = append(run.Plots, p.svg())
	}
	return run
}

// overTime are the plots of a run's series. Seconds behind the clients' last
// request are left out.
func overTime(r *sim.Report) []plot {
	series := r.Series[:min(len(r.Series), int(r.DurationSeconds+0.999))]
	of := func(name string, faint bool, y func(*sim.Second) float64) curve {
		c := curve{name: name, faint: faint}
		for i := range series {
			c.x, c.y = append(c.x, float64(series[i].Second)), append(c.y, y(&series[i]))
		}
		return c
	}
	const x = "seconds (simulated)"
	return []plot{
		{"latency of what was answered", x, "ms", []curve{
			of("p50", false, func(s *sim.Second) float64 { return s.Latency.P50 }),
			of("p99", false, func(s *sim.Second) float64 { return s.Latency.P99 }),
			of("max", true, func(s *sim.Second) float64 { return s.Latency.Max }),
		}},
		{"requests and goodput", x, "requests/s", []curve{
			of("in time", false, func(s *sim.Second) float64 { return float64(s.Good) }),
			of("not in time", false, func(s *sim.Second) float64 { return float64(s.Refused + s.Late + s.Failed) }),
			of("arrived", true, func(s *sim.Second) float64 { return float64(s.Requests) }),
		}},
		{"weights", x, "a second", []curve{
			of("loads", false, func(s *sim.Second) float64 { return float64(s.Loads) }),
			of("evictions", true, func(s *sim.Second) float64 { return float64(s.Evictions) }),
		}},
	}
}

// comparisons are the plots against load, or against the SLO where that differs
// and the load does not; none for a single line.
func comparisons(rows []simulated) (all []template.HTML) {
	loads, slos := map[float64]bool{}, map[string]bool{}
	for _, r := range rows {
		loads[r.load], slos[r.sloText()] = true, true
	}
	axis, position := "load, % of the ceiling", func(r simulated) float64 { return r.load }
	switch {
	case len(loads) > 1:
	case len(slos) > 1:
		axis, position = "SLO, ms", func(r simulated) float64 { return float64(r.slo) / 1e6 }
	default:
		return nil
	}
	for _, figure := range []struct {
		title, unit string
		of          func(*sim.Report) float64
	}{
		{"answered in time", "%", func(r *sim.Report) float64 { return 100 * r.Total.Attainment }},
		{"goodput", "requests/s", func(r *sim.Report) float64 { return r.Total.GoodputPerSecond }},
		{"p99 latency of what was answered", "ms", func(r *sim.Report) float64 { return r.Total.Latency.P99 }},
	} {
		p := plot{title: figure.title + ", mean of all seeds", x: axis, y: figure.unit}
		index := map[string]int{}
		for _, r := range rows {
			name := r.policy
			if len(loads) > 1 && len(slos) > 1 {
				name += " " + r.sloText()
			}
			i, known := index[name]
			if !known {
				i = len(p.curves)
				index[name] = i
				p.curves = append(p.curves, curve{name: name})
			}
			c := &p.curves[i]
			c.x, c.y = append(c.x, position(r)), append(c.y, spreadOf(r.runs, figure.of).Mean)
		}
		all = append(all, p.svg())
	}
	return all
}
