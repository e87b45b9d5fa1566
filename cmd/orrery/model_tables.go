package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func modelsTable(w io.Writer, models []*controlpb.ModelStatus) {
	t := newTable(w, "NAME", "VERSION", "SOURCE", "ENGINE", "SLO", "LOADED", "STATE")
	defer t.flush()
	for _, m := range models {
		loaded := 0
		for _, c := range m.Copies {
			if c.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED && c.Error == "" {
				loaded++
			}
		}
		engine := m.Model.GetEngine()
		if info := m.Model.GetInfo(); info != nil {
			engine = info.Engine
		}
		t.row(m.Model.GetName(), m.Model.GetVersion(), m.Model.GetSource(), engine, short(time.Duration(m.Model.GetSloNs())),
			fmt.Sprintf("%d/%d", loaded, len(m.Copies)), stateText(m))
	}
}

// stateText says whether a model can be served, what becomes of a replacement, and
// whether it is pinned.
func stateText(m *controlpb.ModelStatus) string {
	state := "ready"
	switch {
	case m.Model.GetRetiring():
		return "retiring: another version has taken its place; it ends what it has, and is then unloaded"
	case m.Reason != "":
		state = obstacleText(m)
	case m.Replacement != "":
		state = "measured"
	}
	if m.Replacement != "" {
		state += "; " + m.Replacement
	}
	if m.Model.GetPinned() > 0 {
		state += "; " + pinText(m)
	}
	return state
}

// pinText says to how many devices a model is pinned, and on how many its weights are
// when those are fewer.
func pinText(m *controlpb.ModelStatus) string {
	text := "pinned to " + plural(int(m.Model.GetPinned()), "device")
	if m.PinnedNow != nil && m.GetPinnedNow() < m.Model.GetPinned() {
		text += fmt.Sprintf(", its weights are on %d", m.GetPinnedNow())
	}
	return text
}

// obstacleText is why a model can't be served, and what would help.
func obstacleText(m *controlpb.ModelStatus) string {
	return strings.TrimSuffix(m.Code+": "+m.Reason+"; "+m.Advice, "; ")
}

// digestText is as much of a source's digest as tells sources apart.
func digestText(m *logpb.Model) string {
	digest := m.GetInfo().GetDigest()
	return digest[:min(12, len(digest))]
}

// shapesText writes shapes as --largest takes them.
func shapesText(shapes []*logpb.TensorShape) string {
	var all []string
	for _, s := range shapes {
		var sizes []string
		for _, n := range s.Shape {
			sizes = append(sizes, strconv.FormatInt(n, 10))
		}
		all = append(all, s.Name+"="+strings.Join(sizes, ","))
	}
	return strings.Join(all, " ")
}

// largestTable is empty when no model has declared shapes.
func largestTable(w io.Writer, models []*controlpb.ModelStatus) {
	if !slices.ContainsFunc(models, func(m *controlpb.ModelStatus) bool { return len(m.Model.GetLargest()) > 0 }) {
		return
	}
	t := newTable(w, "MODEL", "VERSION", "LARGEST SHAPES")
	for _, m := range models {
		t.row(m.Model.GetName(), m.Model.GetVersion(), shapesText(m.Model.GetLargest()))
	}
	t.flush()
	fmt.Fprintln(w)
}

func copiesTable(w io.Writer, models []*controlpb.ModelStatus) {
	t := newTable(w, "MODEL", "VERSION", "DIGEST", "WORKER", "STATUS", "TIME", "PROBLEM")
	defer t.flush()
	for _, m := range models {
		for _, c := range m.Copies {
			digest := "" // of what it holds: one that has failed may have found another source
			if c.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
				digest = digestText(m.Model)
			}
			t.row(m.Model.GetName(), m.Model.GetVersion(), digest, c.Worker, word(c.Status, "HOLDING_STATUS_"), short(time.Duration(c.LoadNs)), c.Error)
		}
	}
}

func profilesTable(w io.Writer, models []*controlpb.ModelStatus) {
	t := newTable(w, "MODEL", "VERSION", "DEVICE", "ROWS", "P50", "P99", "RUNS")
	defer t.flush()
	for _, m := range models {
		for _, p := range m.Profiles {
			for _, r := range p.Execution {
				t.row(m.Model.GetName(), m.Model.GetVersion(), p.Key.GetDeviceKind(), strconv.Itoa(int(r.Rows)),
					short(time.Duration(r.P50Ns)), short(time.Duration(r.P99Ns)), strconv.Itoa(int(r.Runs)))
			}
		}
	}
}
