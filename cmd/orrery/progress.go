package main

import (
	"fmt"
	"io"
	"time"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

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
		fmt.Fprintf(p.w, "%6.1fs  %s\n", time.Since(p.since).Seconds(), line)
	}
	return nil
}

// progressLine leaves out what changes with every tick of the clock.
func progressLine(s *controlpb.StartupStatus) string {
	line := word(s.Phase, "PHASE_")
	switch {
	case s.WaitingFor == "":
	case s.Phase == logpb.Phase_PHASE_WAITING:
		line += " for " + s.WaitingFor
	default:
		line += ", waiting for " + s.WaitingFor
	}
	for _, m := range s.Models {
		done, wanted, what := m.Loaded, m.Copies, "loaded"
		if m.ProfilesWanted > 0 && m.Pending == 0 {
			done, wanted, what = m.ProfilesDone, m.ProfilesWanted, "profiled"
		}
		line += fmt.Sprintf(" [%s %d/%d %s", m.Name, done, wanted, what)
		if m.Failed > 0 {
			line += fmt.Sprintf(", %d failed", m.Failed)
		}
		line += "]"
	}
	return line
}
