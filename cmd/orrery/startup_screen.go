package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	// defaultModelLines are shown where there is no terminal whose height could decide.
	defaultModelLines = 20
	// defaultWidth is used there too.
	defaultWidth = 80
	// longestName of a model is shown in full.
	longestName = 24
	// widestBar is enough; narrow terminals get shorter ones.
	widestBar = 20
)

// look is how a startup's status is drawn.
type look struct {
	glyphs
	width int
	// models is how many of them are shown at most.
	models int
}

// startupScreen draws a startup's status: the phases, what comes next, sums, and
// the models, those first that are not finished.
func startupScreen(s *controlpb.StartupStatus, l look) []string {
	lines := []string{
		"phase    " + phaseLine(s),
		"next     " + nextText(s),
		"loads    " + loadsText(s),
		"workers  " + workersText(s),
	}
	if len(s.Models) == 0 {
		return lines
	}
	return append(append(append(lines, ""), sumLines(s, l)...), append([]string{""}, modelLines(s.Models, l)...)...)
}

// phaseLine are all phases, the present one marked.
func phaseLine(s *controlpb.StartupStatus) string {
	var names []string
	for p := logpb.Phase_PHASE_QUERYING; p <= logpb.Phase_PHASE_SERVING; p++ {
		name := word(p, "PHASE_")
		if p == s.Phase {
			name = "[" + name + "]"
		}
		names = append(names, name)
	}
	return strings.Join(names, " > ")
}

// reopened says whether a cluster that serves goes through the phases once more.
func reopened(s *controlpb.StartupStatus) bool {
	return s.Serving && s.Phase != logpb.Phase_PHASE_SERVING
}

// nextText is what happens next, and what it waits for.
func nextText(s *controlpb.StartupStatus) string {
	idle := time.Duration(s.LoadIdleNs)
	switch {
	case s.Phase == logpb.Phase_PHASE_SERVING && s.WaitingFor == "":
		return "nothing: the cluster serves"
	case s.CountdownNs == 0:
		return "profiling begins now"
	case s.CountdownNs > 0:
		return fmt.Sprintf("profiling begins in %v unless another load comes", time.Duration(s.CountdownNs))
	case s.WaitingFor == "":
		return "the next phase, any moment"
	case s.Phase == logpb.Phase_PHASE_LOADING && idle > 0:
		return fmt.Sprintf("waits for %s, then %v for more", s.WaitingFor, idle)
	}
	return "waits for " + s.WaitingFor
}

// loadsText is what becomes of a load that comes now.
func loadsText(s *controlpb.StartupStatus) string {
	switch {
	case !s.AdmitsLoads:
		return "refused while it serves; `orrery startup reopen` has it accept them"
	case s.Phase == logpb.Phase_PHASE_SERVING:
		return "accepted at any time (late_loads=admit)"
	case reopened(s):
		return "accepted: the startup was reopened, and serving goes on"
	case s.Phase == logpb.Phase_PHASE_PROFILING:
		return "accepted; one that comes now is loaded before profiling goes on"
	}
	return "accepted"
}

func workersText(s *controlpb.StartupStatus) string {
	if s.Workers == 0 {
		return "none takes work"
	}
	return fmt.Sprintf("%d ready", s.Workers)
}

// sums are those of several models.
func sums(models []*controlpb.ModelProgress) *controlpb.ModelProgress {
	all := &controlpb.ModelProgress{}
	for _, m := range models {
		all.Copies += m.Copies
		all.Pending += m.Pending
		all.Loaded += m.Loaded
		all.Failed += m.Failed
		all.ProfilesWanted += m.ProfilesWanted
		all.ProfilesDone += m.ProfilesDone
		all.ProfilesFailed += m.ProfilesFailed
	}
	return all
}

// sumLines are bars over all models.
func sumLines(s *controlpb.StartupStatus, l look) []string {
	all := sums(s.Models)
	bar := max(l.width-50, 8)
	return []string{
		"loaded    " + l.progress(bar, all.Loaded, all.Failed, all.Copies) + "  " +
			withFailed(fmt.Sprintf("%d of %s", all.Loaded, counted(int(all.Copies), "copy", "copies")), all.Failed),
		"profiled  " + l.progress(bar, all.ProfilesDone, all.ProfilesFailed, all.ProfilesWanted) + "  " +
			withFailed(fmt.Sprintf("%d of %s", all.ProfilesDone, plural(int(all.ProfilesWanted), "profile")), all.ProfilesFailed),
	}
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func withFailed(text string, failed uint32) string {
	if failed > 0 {
		text += fmt.Sprintf(", %d failed", failed)
	}
	return text
}

// stage is how far a model is, in the order in which people want to see them.
type stage int

const (
	stageActive stage = iota
	stageFailed
	stageLoading
	stageProfiling
	stageFinished
)

func stageOf(m *controlpb.ModelProgress) stage {
	switch {
	case m.Profiling || m.Pending > 0 && m.Loaded+m.Failed > 0:
		return stageActive
	case m.Failed > 0 || m.ProfilesFailed > 0:
		return stageFailed
	case m.Pending > 0 || m.Copies == 0:
		return stageLoading
	case m.ProfilesDone < m.ProfilesWanted || m.ProfilesWanted == 0:
		return stageProfiling
	}
	return stageFinished
}

// modelLines are a bar for each model, as many as are wanted, and one line that sums
// up the rest.
func modelLines(models []*controlpb.ModelProgress, l look) []string {
	ordered := slices.Clone(models)
	slices.SortStableFunc(ordered, func(a, b *controlpb.ModelProgress) int { return cmp.Compare(stageOf(a), stageOf(b)) })
	shown := ordered[:min(len(ordered), max(l.models, 1))]
	name, version := len("MODEL"), len("VERSION")
	for _, m := range shown {
		name, version = max(name, len(m.Name)), max(version, len(m.Version))
	}
	name = min(name, longestName, max(l.width/3, len("MODEL")))
	const text = 39 // the longest but for failures, and the spaces between
	bar := min(widestBar, max(l.width-name-version-text, 5))
	lines := []string{padded("MODEL", name) + "  " + padded("VERSION", version) + "  PROGRESS"}
	for _, m := range shown {
		lines = append(lines, l.name(m.Name, name)+"  "+padded(m.Version, version)+"  "+modelBar(m, bar, l.glyphs))
	}
	if rest := ordered[len(shown):]; len(rest) > 0 {
		lines = append(lines, restText(rest))
	}
	return lines
}

// modelBar is a model's bar: of its copies, and once they are settled of its
// profiles.
func modelBar(m *controlpb.ModelProgress, width int, g glyphs) string {
	bar := g.progress(width, m.Loaded, m.Failed, m.Copies)
	if m.Pending == 0 && m.ProfilesWanted > 0 {
		bar = g.progress(width, m.ProfilesDone, m.ProfilesFailed, m.ProfilesWanted)
	}
	return bar + "  " + modelText(m)
}

func modelText(m *controlpb.ModelProgress) string {
	if m.Copies == 0 {
		return "waits for a worker"
	}
	text := withFailed(fmt.Sprintf("%d/%d loaded", m.Loaded, m.Copies), m.Failed)
	if m.Pending > 0 || m.ProfilesWanted == 0 {
		return text
	}
	profiled := withFailed(fmt.Sprintf("%d/%d profiled", m.ProfilesDone, m.ProfilesWanted), m.ProfilesFailed)
	if m.Profiling {
		profiled += ", measuring"
	}
	if m.Failed > 0 {
		return profiled + ", " + text
	}
	return profiled
}

// restText sums up the models that are not shown.
func restText(rest []*controlpb.ModelProgress) string {
	number := map[stage]int{}
	for _, m := range rest {
		number[stageOf(m)]++
	}
	var parts []string
	for _, of := range []struct {
		stage stage
		text  string
	}{
		{stageActive, "under way"},
		{stageFailed, "with failures"},
		{stageLoading, "to load"},
		{stageProfiling, "to profile"},
		{stageFinished, "finished"},
	} {
		if n := number[of.stage]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, of.text))
		}
	}
	return fmt.Sprintf("and %d more: %s", len(rest), strings.Join(parts, ", "))
}
