package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/orrery-project/orrery/proto/logpb"
)

// chart draws measured times against rows, a bar for each number of rows: the median
// is the bar, and the 99th percentile a mark. The scale ends at the largest of both,
// unless the marks would then leave no room for the bars: at twice the longest bar.
func chart(times []*logpb.RowsTime, width int, g glyphs) []string {
	var longest, farthest int64
	label := len("rows")
	for _, t := range times {
		longest, farthest = max(longest, t.P50Ns), max(farthest, t.P99Ns)
		label = max(label, len(strconv.Itoa(int(t.Rows))))
	}
	if longest <= 0 {
		return nil
	}
	scale := max(longest, farthest)
	beyond := scale > 2*longest
	if beyond {
		scale = 2 * longest
	}
	area := max(width-label-3, 10) // two spaces before it, and a mark may be behind the longest bar
	title := fmt.Sprintf("time by rows: p50 %s, p99 %s", g.full, g.mark)
	if beyond {
		title += fmt.Sprintf(", p99 off the scale %s", g.beyond)
	}
	end := g.short(time.Duration(scale))
	lines := []string{title, padded("rows", label) + "  0" + strings.Repeat(" ", max(area-1-len([]rune(end)), 1)) + end}
	for _, t := range times {
		bar := g.length(area, float64(t.P50Ns)/float64(scale))
		at, mark := int(float64(t.P99Ns)/float64(scale)*float64(area)), g.mark
		if t.P99Ns > scale {
			at, mark = area, g.beyond
		}
		if t.P99Ns > 0 {
			bar = padded(bar, min(at, area)) + mark
		}
		lines = append(lines, fmt.Sprintf("%*d  %s", label, t.Rows, bar))
	}
	return lines
}
