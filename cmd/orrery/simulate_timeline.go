package main

import (
	"fmt"
	"hash/fnv"
	"html"
	"html/template"
	"strings"

	"github.com/orrery-project/orrery/scheduler/sim"
)

// timelineDevices is how many devices a timeline shows.
const timelineDevices = 24

// The timeline's sizes in pixels: of a device, batches above and loads below.
const (
	timelineWidth, timelineLeft = 1100, 80
	laneHeight, loadHeight      = 22, 7
	laneGap                     = 8
)

// timeline draws what each device did. The colour is the model's, the number in
// a batch its rows; loads of weights are the thin bars below.
func timeline(r *sim.Report) template.HTML {
	if len(r.Spans) == 0 {
		return ""
	}
	from, to := r.Spans[0].FromMS, r.Spans[0].ToMS
	for _, s := range r.Spans {
		from, to = min(from, s.FromMS), max(to, s.ToMS)
	}
	lanes := map[string]int{}
	var names []string
	for _, d := range r.Devices[:min(len(r.Devices), timelineDevices)] {
		name := fmt.Sprintf("%s/%d", d.Worker, d.Device)
		lanes[name] = len(names)
		names = append(names, name)
	}
	step := laneHeight + loadHeight + laneGap
	height := len(names)*step + 30
	scale := float64(timelineWidth-timelineLeft-10) / max(to-from, 1e-6)
	at := func(ms float64) float64 { return timelineLeft + (ms-from)*scale }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img"><title>what each device did</title>`, timelineWidth, height, timelineWidth, height)
	for i, name := range names {
		fmt.Fprintf(&b, `<text x="4" y="%d" class="tick">%s</text>`, i*step+16, html.EscapeString(name))
	}
	for _, s := range r.Spans {
		lane, shown := lanes[fmt.Sprintf("%s/%d", s.Worker, s.Device)]
		if !shown {
			continue
		}
		y, tall, what := lane*step, laneHeight, fmt.Sprintf("%s, %s", s.Model, plural(s.Rows, "row"))
		if s.Load {
			y, tall, what = y+laneHeight+1, loadHeight, "load of "+s.Model
		}
		wide := max((s.ToMS-s.FromMS)*scale, 0.5)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" class="span"><title>%s, %.3f to %.3f ms</title></rect>`,
			at(s.FromMS), y, wide, tall, modelColour(s.Model), html.EscapeString(what), s.FromMS, s.ToMS)
		if !s.Load && wide > 12 {
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" class="rows">%d</text>`, at(s.FromMS)+2, y+15, s.Rows)
		}
	}
	_, tick := niceCeiling((to - from) * 0.8)
	for ms := 0.0; ms <= to-from; ms += tick {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" class="tick middle">%s</text>`, at(from+ms), height-8, tickText(from+ms)+" ms")
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// modelColour is a light colour that follows from the name.
func modelColour(name string) string {
	h := fnv.New32a()
	h.Write([]byte(name))
	return fmt.Sprintf("hsl(%d 60%% 72%%)", h.Sum32()*2654435761>>16%360)
}
