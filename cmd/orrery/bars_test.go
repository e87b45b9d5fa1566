package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestProgressBars(t *testing.T) {
	for _, test := range []struct {
		done, failed, all uint32
		blocks, ascii     string
	}{
		{0, 0, 0, "[          ]", "[          ]"},
		{0, 0, 3, "[          ]", "[          ]"},
		{1, 0, 3, "[███▎      ]", "[###       ]"},
		{2, 0, 3, "[██████▋   ]", "[######    ]"},
		{3, 0, 3, "[██████████]", "[##########]"},
		{2, 1, 3, "[██████▒▒▒▒]", "[######xxxx]"},
		{0, 3, 3, "[▒▒▒▒▒▒▒▒▒▒]", "[xxxxxxxxxx]"},
		{0, 1, 1000, "[         ▒]", "[         x]"},   // a failure is always seen
		{999, 0, 1000, "[█████████▉]", "[######### ]"}, // it is full only when all is done
		{4, 0, 3, "[██████████]", "[##########]"},
	} {
		for g, want := range map[*glyphs]string{new(blockGlyphs()): test.blocks, new(asciiGlyphs()): test.ascii} {
			if got := g.progress(10, test.done, test.failed, test.all); got != want {
				t.Errorf("%d done, %d failed of %d: %s, want %s", test.done, test.failed, test.all, got, want)
			}
		}
	}
}

// Bars never leave their width, whatever the figures are.
func TestBarsKeepTheirWidth(t *testing.T) {
	for _, g := range []glyphs{blockGlyphs(), asciiGlyphs()} {
		for all := uint32(0); all < 40; all++ {
			for done := uint32(0); done <= all; done++ {
				for failed := uint32(0); done+failed <= all; failed++ {
					if got := len([]rune(g.progress(7, done, failed, all))); got != 9 {
						t.Fatalf("%d done, %d failed of %d: %d wide", done, failed, all, got)
					}
				}
			}
		}
		for _, share := range []float64{-1, 0, 0.001, 0.5, 0.999, 1, 7} {
			if got := len([]rune(g.length(7, share))); got > 7 {
				t.Errorf("share %v is %d wide", share, got)
			}
		}
	}
}

func TestGlyphsByLocale(t *testing.T) {
	for environ, blocks := range map[string]bool{
		"": false, "LANG=C": false, "LANG=en_US.UTF-8": true, "LANG=C.utf8": true, "LC_CTYPE=C.UTF-8 LANG=C": true,
		"LC_ALL=C LANG=en_US.UTF-8": false, "LC_ALL= LANG=de_DE.UTF-8": true,
	} {
		a := &app{environ: strings.Fields(environ)}
		if got := a.glyphs().full == "█"; got != blocks {
			t.Errorf("%q: blocks %v, want %v", environ, got, blocks)
		}
	}
}

func TestChart(t *testing.T) {
	us := int64(time.Microsecond)
	times := []*logpb.RowsTime{
		{Rows: 1, P50Ns: 100 * us, P99Ns: 110 * us},
		{Rows: 4, P50Ns: 250 * us, P99Ns: 400 * us},
		{Rows: 1024, P50Ns: 800 * us, P99Ns: 800 * us},
	}
	want := strings.TrimLeft(`
time by rows: p50 #, p99 |
rows  0                          800us
   1  ####|
   4  ##########      |
1024  ################################|`, "\n")
	if diff := cmp.Diff(want, strings.Join(chart(times, 39, asciiGlyphs()), "\n")); diff != "" {
		t.Error(diff)
	}
	// A mark that is far away must not squeeze the bars.
	times[0].P99Ns = 90_000 * us
	want = strings.TrimLeft(`
time by rows: p50 █, p99 │, p99 off the scale »
rows  0                          1.6ms
   1  ██                              »
   4  █████   │
1024  ████████████████│`, "\n")
	if diff := cmp.Diff(want, strings.Join(chart(times, 39, blockGlyphs()), "\n")); diff != "" {
		t.Error(diff)
	}
	for _, line := range chart(times, 80, blockGlyphs()) {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d wide: %s", n, line)
		}
	}
	for _, line := range chart(times, 80, asciiGlyphs()) {
		for _, r := range line {
			if r > 127 {
				t.Errorf("not ASCII: %s", line)
			}
		}
	}
	if got := chart(nil, 80, asciiGlyphs()); got != nil {
		t.Errorf("without times: %q", got)
	}
}

func TestRatioText(t *testing.T) {
	for ratio, want := range map[float64]string{1: "1.00x", 1.25: "1.25x", 1.26: "1.26x !", 0.8: "0.80x", 0.79: "0.79x !", 0: "0.00x"} {
		if got := ratioText(&logpb.DeviceCheck{Ratio: ratio}); got != want {
			t.Errorf("%v: %s, want %s", ratio, got, want)
		}
	}
	if got := ratioText(nil); got != "" {
		t.Errorf("without a check: %s", got)
	}
}

func TestAgoText(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	for d, want := range map[time.Duration]string{
		-time.Hour: "just now", 0: "just now", 59 * time.Second: "59s ago", time.Minute: "1m ago", 59 * time.Minute: "59m ago",
		47 * time.Hour: "47h ago", 48 * time.Hour: "2 days ago",
	} {
		if got := agoText(now.Add(-d).UnixNano(), now); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestCanvas(t *testing.T) {
	var out strings.Builder
	c := &canvas{w: &out, size: terminal(6, 4)}
	c.draw([]string{"one", "two"})
	c.draw([]string{"one", "two"}) // is there already
	c.draw([]string{"too long a line", "2", "3", "4"})
	c.clear()
	c.clear()
	want := "one\x1b[K\ntwo\x1b[K\n\x1b[J" + "\x1b[2A\rtoo lo\x1b[K\n2\x1b[K\n3\x1b[K\n\x1b[J" + "\x1b[3A\r\x1b[J"
	if out.String() != want {
		t.Errorf("%q\nwant\n%q", out.String(), want)
	}
}
