package main

import (
	"cmp"
	"strings"
	"time"
)

// glyphs are what bars are drawn with; each is one character wide.
type glyphs struct {
	full string
	// parts are shares of full, ascending in equal steps; none: only whole ones.
	parts  []string
	failed string
	// mark is a single value, and beyond one that is off the scale.
	mark, beyond string
	// ellipsis stands for the rest of a name, and micro for a millionth.
	ellipsis, micro string
}

func blockGlyphs() glyphs {
	return glyphs{full: "█", parts: []string{"▏", "▎", "▍", "▌", "▋", "▊", "▉"}, failed: "▒", mark: "│", beyond: "»", ellipsis: "…", micro: "µ"}
}

func asciiGlyphs() glyphs {
	return glyphs{full: "#", failed: "x", mark: "|", beyond: ">", ellipsis: "~", micro: "u"}
}

// glyphs are those that the locale can show.
func (a *app) glyphs() glyphs {
	locale := strings.ToLower(cmp.Or(a.variable("LC_ALL"), a.variable("LC_CTYPE"), a.variable("LANG")))
	if strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8") {
		return blockGlyphs()
	}
	return asciiGlyphs()
}

// length is a bar of a share of width, from 0 to 1, without spaces behind it. What
// is more than nothing is seen, where there are parts.
func (g glyphs) length(width int, share float64) string {
	steps := len(g.parts) + 1
	n := int(min(max(share, 0), 1)*float64(width*steps) + 0.5)
	if share > 0 && len(g.parts) > 0 {
		n = max(n, 1)
	}
	bar := strings.Repeat(g.full, n/steps)
	if part := n % steps; part > 0 {
		bar += g.parts[part-1]
	}
	return bar
}

// progress is a bar in brackets, width characters between them. It is full only when
// all is done; what has failed is at its end.
func (g glyphs) progress(width int, done, failed, all uint32) string {
	if all == 0 {
		return "[" + strings.Repeat(" ", width) + "]"
	}
	steps := len(g.parts) + 1
	bad := min((int(failed)*width+int(all)-1)/int(all), width)
	n := min(int(done)*width*steps/int(all), (width-bad)*steps)
	bar := strings.Repeat(g.full, n/steps)
	if part := n % steps; part > 0 {
		bar += g.parts[part-1]
	}
	return "[" + bar + strings.Repeat(" ", width-bad-(n+steps-1)/steps) + strings.Repeat(g.failed, bad) + "]"
}

// short is the duration in few digits; empty for 0.
func (g glyphs) short(d time.Duration) string { return strings.ReplaceAll(short(d), "µ", g.micro) }

// name fits a name into a column.
func (g glyphs) name(name string, width int) string {
	if len([]rune(name)) > width {
		name = cut(name, width-1) + g.ellipsis
	}
	return padded(name, width)
}

// padded has spaces behind a text up to a width.
func padded(text string, width int) string {
	return text + strings.Repeat(" ", max(width-len([]rune(text)), 0))
}
