package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// checkTolerance is how much slower or faster than its kind a device may be before
// it is marked; the leader warns at the same.
const checkTolerance = 1.25

// againstKind is the heading of the column of ratioText.
const againstKind = "TIME AGAINST ITS KIND"

// deviates says whether a device's times are not those of its kind.
func deviates(c *logpb.DeviceCheck) bool {
	return c.GetRatio() > checkTolerance || c.GetRatio() > 0 && c.GetRatio() < 1/checkTolerance
}

// ratioText is how long a device takes compared with the one that was measured, with
// a mark when that is too far off; empty when it was not checked.
func ratioText(c *logpb.DeviceCheck) string {
	if c == nil {
		return ""
	}
	text := strconv.FormatFloat(c.Ratio, 'f', 2, 64) + "x"
	if deviates(c) {
		text += " !"
	}
	return text
}

// checksTable shows the devices that share a profile.
func checksTable(w io.Writer, checks []*controlpb.DeviceRatio) {
	t := newTable(w, "DEVICE", againstKind, "RUNS")
	for _, c := range checks {
		t.row(fmt.Sprintf("%s/%d", c.Worker, c.Check.GetDevice()), ratioText(c.Check), strconv.Itoa(int(c.Check.GetRuns())))
	}
	t.flush()
	deviationNote(w, slices.ContainsFunc(checks, func(c *controlpb.DeviceRatio) bool { return deviates(c.Check) }))
}

// deviationNote explains the mark, if there is one.
func deviationNote(w io.Writer, marked bool) {
	if marked {
		fmt.Fprintln(w, "! off by more than 25 %: give the device a kind of its own in its worker's configuration")
	}
}
