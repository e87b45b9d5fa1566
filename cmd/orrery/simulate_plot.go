package main

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// plotPoints is the most points of a curve; more would not be seen.
const plotPoints = 600

// curve is one line of a plot.
type curve struct {
	name string
	x, y []float64
	// faint ones are drawn thinner and dashed: what is only for comparison.
	faint bool
}

// plot is curves over an axis from 0.
type plot struct {
	title, x, y string
	curves      []curve
}

// The plot's sizes in pixels.
const (
	plotWidth, plotHeight = 720, 240
	plotLeft, plotBottom  = 64, 36
	plotTop, plotRight    = 28, 16
)

// colours are told apart by most people who see few colours.
func colours() []string {
	return []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#8b5cf6"}
}

// thinned has at most plotPoints points, each the largest of its neighbours: a
// peak is not lost.
func (c curve) thinned() curve {
	step := (len(c.x) + plotPoints - 1) / plotPoints
	if step <= 1 {
		return c
	}
	out := curve{name: c.name, faint: c.faint}
	for i := 0; i < len(c.x); i += step {
		most := c.y[i]
		for _, y := range c.y[i:min(i+step, len(c.y))] {
			most = max(most, y)
		}
		out.x, out.y = append(out.x, c.x[i]), append(out.y, most)
	}
	return out
}

// niceCeiling is the least of 1, 2 or 5 times a power of ten, times up to five,
// that is not below x, and the distance of its ticks.
func niceCeiling(x float64) (top, tick float64) {
	if !(x > 0) || math.IsInf(x, 0) {
		return 1, 0.5
	}
	power := math.Pow(10, math.Floor(math.Log10(x/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if tick = m * power; tick*5 >= x {
			break
		}
	}
	return math.Ceil(x/tick-1e-9) * tick, tick
}

func tickText(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

// svg draws the plot.
func (p plot) svg() template.HTML {
	var xMost, yMost float64
	for i := range p.curves {
		p.curves[i] = p.curves[i].thinned()
		for j, x := range p.curves[i].x {
			xMost, yMost = max(xMost, x), max(yMost, p.curves[i].y[j])
		}
	}
	xTop, xTick := niceCeiling(xMost)
	yTop, yTick := niceCeiling(yMost)
	width, height := float64(plotWidth-plotLeft-plotRight), float64(plotHeight-plotTop-plotBottom)
	atX := func(x float64) float64 { return plotLeft + x/xTop*width }
	atY := func(y float64) float64 { return plotTop + height - y/yTop*height }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img"><title>%s</title>`, plotWidth, plotHeight, plotWidth, plotHeight, html.EscapeString(p.title))
	fmt.Fprintf(&b, `<text x="%d" y="14" class="title">%s</text>`, plotLeft, html.EscapeString(p.title))
	for y := 0.0; y <= yTop*1.0001; y += yTick {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/><text x="%d" y="%.1f" class="tick end">%s</text>`,
			plotLeft, plotWidth-plotRight, atY(y), atY(y), plotLeft-6, atY(y)+4, tickText(y))
	}
	for x := 0.0; x <= xTop*1.0001; x += xTick {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" class="tick middle">%s</text>`, atX(x), plotHeight-plotBottom+16, tickText(x))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" class="tick middle">%s</text>`, plotLeft+int(width)/2, plotHeight-4, html.EscapeString(p.x))
	fmt.Fprintf(&b, `<text x="14" y="%d" class="tick middle" transform="rotate(-90 14 %d)">%s</text>`,
		plotTop+int(height)/2, plotTop+int(height)/2, html.EscapeString(p.y))
	for i, c := range p.curves {
		style := `stroke-width="1.6"`
		if c.faint {
			style = `stroke-width="1" stroke-dasharray="4 3"`
		}
		colour := colours()[i%len(colours())]
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" %s points="`, colour, style)
		for j, x := range c.x {
			fmt.Fprintf(&b, "%.1f,%.1f ", atX(x), atY(c.y[j]))
		}
		b.WriteString(`"/>`)
		if len(c.x) <= 30 && !c.faint {
			for j, x := range c.x {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`, atX(x), atY(c.y[j]), colour)
			}
		}
	}
	b.WriteString(legend(p.curves))
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// legend names the curves in the upper right.
func legend(curves []curve) string {
	var b strings.Builder
	x := plotWidth - plotRight
	for i := len(curves) - 1; i >= 0; i-- {
		x -= 7*len([]rune(curves[i].name)) + 24
		fmt.Fprintf(&b, `<rect x="%d" y="6" width="10" height="10" fill="%s"/><text x="%d" y="15" class="tick">%s</text>`,
			x, colours()[i%len(colours())], x+14, html.EscapeString(curves[i].name))
	}
	return b.String()
}
