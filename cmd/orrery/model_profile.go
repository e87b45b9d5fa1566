package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func (a *app) modelProfileCommand() *cobra.Command {
	var version string
	var ascii bool
	c := &cobra.Command{
		Use:   "profile [NAME]",
		Short: "Show the measured times of a model, or of all",
		Long: `Shows how long a model takes on each kind of device: for each number of rows in a
batch the median and the 99th percentile of its time, how many runs were measured
and how many of them took more than three times the median, and the rows per second
that such batches make. Where and when it was measured, and how other devices of
that kind compare, is shown too. Without a name there is one line for each model and
kind of device.`,
		Example: "  orrery model profile fashion-mlp",
		Args:    arguments(cobra.MaximumNArgs(1)),
	}
	c.Flags().StringVar(&version, "model-version", "", "version (default all of them)")
	c.Flags().BoolVar(&ascii, "ascii", false, "draw with ASCII alone (default when the locale is not UTF-8)")
	stale := staleFlag(c)
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		request := &controlpb.ListModelsRequest{Version: version, Stale: *stale}
		if len(args) == 1 {
			request.Name = args[0]
		}
		answer, err := q.ListModels(ctx, request)
		if err != nil {
			return err
		}
		g := q.glyphs()
		if ascii {
			g = asciiGlyphs()
		}
		return q.show(answer, func(w io.Writer) {
			if request.Name == "" {
				profileSummary(w, answer.Models, g)
			} else {
				profileSheets(w, answer.Models, g, time.Now())
			}
			staleNote(w, answer.Freshness)
		})
	})
}

// profileSummary is one line for each model and kind of device.
func profileSummary(w io.Writer, models []*controlpb.ModelStatus, g glyphs) {
	t := newTable(w, "MODEL", "VERSION", "DEVICE", "1 ROW", "LARGEST BATCH", "ROWS/S", "WEIGHTS LOAD", "NOTE")
	defer t.flush()
	for _, m := range models {
		if len(m.Profiles) == 0 {
			t.row(m.Model.GetName(), m.Model.GetVersion(), "", "", "", "", "", notMeasured(m))
		}
		for _, p := range m.Profiles {
			var one, largest, rate string
			for _, e := range p.Execution {
				if e.Rows == 1 {
					one = g.short(time.Duration(e.P50Ns))
				}
				largest, rate = fmt.Sprintf("%s in %s", plural(int(e.Rows), "row"), g.short(time.Duration(e.P50Ns))), rowsPerSecond(e)
			}
			t.row(m.Model.GetName(), m.Model.GetVersion(), p.Key.GetDeviceKind(), one, largest, rate, g.short(time.Duration(p.WeightsLoadP50Ns)), profileNote(m, p))
		}
	}
}

// notMeasured is why a model has no profile.
func notMeasured(m *controlpb.ModelStatus) string {
	if m.Reason != "" {
		return stateText(m)
	}
	return "not measured yet"
}

// profileNote is what an operator should know of a profile at a glance.
func profileNote(m *controlpb.ModelStatus, p *logpb.Profile) string {
	var notes []string
	if lack := lackingRows(m, p); len(lack) > 0 {
		notes = append(notes, fmt.Sprintf("%s not measured yet", plural(len(lack), "batch size")))
	}
	if slices.ContainsFunc(checksOf(m, p), func(c *controlpb.DeviceRatio) bool { return deviates(c.Check) }) {
		notes = append(notes, "a device of this kind differs")
	}
	if p.DriftedUnixNs != 0 {
		notes = append(notes, "has drifted since")
	}
	return strings.Join(notes, ", ")
}

// lackingRows are the numbers of rows that are not in a profile.
func lackingRows(m *controlpb.ModelStatus, p *logpb.Profile) (lack []uint32) {
	for _, n := range m.ProfileRows {
		if !slices.ContainsFunc(p.Execution, func(e *logpb.RowsTime) bool { return e.Rows == n }) {
			lack = append(lack, n)
		}
	}
	return lack
}

// checksOf are the checks of devices that share a profile.
func checksOf(m *controlpb.ModelStatus, p *logpb.Profile) (checks []*controlpb.DeviceRatio) {
	for _, c := range m.Checks {
		if c.Check.GetProfile().GetDeviceKind() == p.Key.GetDeviceKind() {
			checks = append(checks, c)
		}
	}
	return checks
}

// profileSheets are all that is known of each profile.
func profileSheets(w io.Writer, models []*controlpb.ModelStatus, g glyphs, now time.Time) {
	first := true
	for _, m := range models {
		if len(m.Profiles) == 0 {
			separate(w, &first)
			fmt.Fprintf(w, "version %s of %s: %s\n", m.Model.GetVersion(), m.Model.GetName(), notMeasured(m))
		}
		for _, p := range m.Profiles {
			separate(w, &first)
			profileSheet(w, m, p, g, now)
		}
	}
}

func separate(w io.Writer, first *bool) {
	if !*first {
		fmt.Fprintln(w)
	}
	*first = false
}

func profileSheet(w io.Writer, m *controlpb.ModelStatus, p *logpb.Profile, g glyphs, now time.Time) {
	t := newTable(w)
	t.row("model", m.Model.GetName())
	t.row("version", m.Model.GetVersion())
	t.row("device kind", p.Key.GetDeviceKind())
	if shapes := shapesText(m.Model.GetLargest()); shapes != "" {
		t.row("largest shapes", shapes)
	}
	t.row("measured", measuredText(p, now))
	if p.DriftedUnixNs != 0 {
		t.row("drifted", "since then: the times are those of inference, "+agoText(p.DriftedUnixNs, now))
	}
	t.row("weights load", fmt.Sprintf("p50 %s, p99 %s", g.short(time.Duration(p.WeightsLoadP50Ns)), g.short(time.Duration(p.WeightsLoadP99Ns))))
	t.row("output", counted(int(p.OutputBytesPerRow), "byte", "bytes")+" per row")
	t.flush()
	fmt.Fprintln(w)
	rowsTable(w, m, p, g)
	if lines := chart(p.Execution, defaultWidth, g); len(lines) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(lines, "\n"))
	}
	if checks := checksOf(m, p); len(checks) > 0 {
		fmt.Fprintln(w)
		checksTable(w, checks)
	}
}

// measuredText is where and when a profile was measured, as far as it says.
func measuredText(p *logpb.Profile, now time.Time) string {
	if p.Worker == "" || p.MeasuredUnixNs == 0 {
		return ""
	}
	return fmt.Sprintf("on %s/%d, %s", p.Worker, p.Device, agoText(p.MeasuredUnixNs, now))
}

// agoText is how long ago a time was, in one unit. The clock of whoever noted it may
// be ahead of this one.
func agoText(unixNs int64, now time.Time) string {
	d := max(now.Sub(time.Unix(0, unixNs)), 0)
	switch {
	case d < time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// rowsTable shows each number of rows that is to be known.
func rowsTable(w io.Writer, m *controlpb.ModelStatus, p *logpb.Profile, g glyphs) {
	t := newTable(w, "ROWS", "P50", "P99", "RUNS", "OUTLIERS", "ROWS/S")
	defer t.flush()
	rows := lackingRows(m, p)
	times := map[uint32]*logpb.RowsTime{}
	for _, e := range p.Execution {
		times[e.Rows] = e
		rows = append(rows, e.Rows)
	}
	slices.Sort(rows)
	for _, n := range rows {
		e := times[n]
		if e == nil {
			t.row(strconv.Itoa(int(n)), "not measured yet", "", "", "", "")
			continue
		}
		t.row(strconv.Itoa(int(n)), g.short(time.Duration(e.P50Ns)), g.short(time.Duration(e.P99Ns)),
			strconv.Itoa(int(e.Runs)), strconv.Itoa(int(e.Outliers)), rowsPerSecond(e))
	}
}

// rowsPerSecond is what batches of that many rows make, one after the other.
func rowsPerSecond(e *logpb.RowsTime) string {
	if e.P50Ns <= 0 {
		return ""
	}
	rate := float64(e.Rows) / time.Duration(e.P50Ns).Seconds()
	if rate >= 100 {
		return strconv.FormatFloat(rate, 'f', 0, 64)
	}
	return strconv.FormatFloat(rate, 'g', 3, 64)
}
