package main

import (
	"fmt"
	"io"
	"time"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// fewModels are each named in a line of progress; of more of them there are sums.
const fewModels = 8

// progress prints how the startup goes on, a line for each change.
type progress struct {
	w     io.Writer
	since time.Time
	last  string
}

func newProgress(w io.Writer) *progress { return &progress{w: w, since: time.Now()} }

// see never fails; its result suits WatchStartup.
func (p *progress) see(s *controlpb.StartupStatus) error {
	if line := progressLine(s); line != p.last {
		p.last = line
		p.print(line)
	}
	return nil
}

func (p *progress) print(line string) {
	fmt.Fprintf(p.w, "%6.1fs  %s\n", time.Since(p.since).Seconds(), line)
}

// progressLine leaves out what changes with every tick of the clock.
func progressLine(s *controlpb.StartupStatus) string {
	line := phaseText(s)
	many := len(s.Models) > fewModels
	counts := s.WaitingFor != "" && s.WaitingFor[0] >= '0' && s.WaitingFor[0] <= '9'
	switch {
	case s.WaitingFor == "" || many && counts: // of many models the sums say how many
	case s.Phase == logpb.Phase_PHASE_WAITING:
		line += " for " + s.WaitingFor
	default:
		line += ", waiting for " + s.WaitingFor
	}
	if many {
		return line + crowdText(s.Models)
	}
	for _, m := range s.Models {
		done, wanted, what, failed := m.Loaded, m.Copies, "loaded", m.Failed
		if m.ProfilesWanted > 0 && m.Pending == 0 {
			done, wanted, what, failed = m.ProfilesDone, m.ProfilesWanted, "profiled", m.Failed+m.ProfilesFailed
		}
		line += withFailed(fmt.Sprintf(" [%s %d/%d %s", modelName(m), done, wanted, what), failed) + "]"
	}
	return line
}

// modelName has the version where that says something.
func modelName(m *controlpb.ModelProgress) string {
	if m.Version == "" || m.Version == "1" {
		return m.Name
	}
	return m.Name + " version " + m.Version
}

// phaseText tells a reopened startup from the first one.
func phaseText(s *controlpb.StartupStatus) string {
	phase := word(s.Phase, "PHASE_")
	if reopened(s) {
		phase = "reopened: " + phase
	}
	return phase
}

// crowdText sums up many models in steps of a hundredth, since it is printed again
// when it changes.
func crowdText(models []*controlpb.ModelProgress) string {
	all := sums(models)
	percent := func(done, of uint32) int { return int(done) * 100 / int(max(of, 1)) }
	text := withFailed(fmt.Sprintf(" [%d models, %d %% loaded", len(models), percent(all.Loaded, all.Copies)), all.Failed)
	if all.ProfilesDone+all.ProfilesFailed > 0 {
		text += withFailed(fmt.Sprintf(", %d %% profiled", percent(all.ProfilesDone, all.ProfilesWanted)), all.ProfilesFailed)
	}
	return text + "]"
}

// headLine is the phase and what comes next, for a line above bars.
func headLine(s *controlpb.StartupStatus) string {
	if s.Phase == logpb.Phase_PHASE_SERVING {
		return phaseText(s)
	}
	return phaseText(s) + ": " + nextText(s)
}
