package sim

import "time"

// CeilingAt is the ceiling at a time of the run: with the slowdowns until then,
// and without workers that are gone.
func (s *Scenario) CeilingAt(at time.Duration) float64 {
	now := *s
	now.Workers = nil
	for _, w := range s.Workers {
		if s.isGone(w.Name, at) {
			continue
		}
		devices := make([]Device, len(w.Devices))
		for i, d := range w.Devices {
			latest := time.Duration(-1)
			for _, f := range s.Slowdowns {
				if f.Worker == w.Name && (f.Device < 0 || f.Device == i) && f.At <= at && f.At >= latest {
					d.Slowdown, latest = f.Factor, f.At
				}
			}
			devices[i] = d
		}
		w.Devices = devices
		now.Workers = append(now.Workers, w)
	}
	return now.Ceiling()
}

func (s *Scenario) isGone(worker string, at time.Duration) bool {
	for _, f := range s.Failures {
		if f.Worker == worker && f.At <= at && (f.For == 0 || at < f.At+f.For) {
			return true
		}
	}
	return false
}

// RecoveredAfter is how long after a time of the run, in whole seconds, it
// takes until each second has a share of the good answers that it could have:
// as many as requests came in it, but at most the ceiling. It says false when
// even the last whole second has not. Rows of requests are not considered.
func (r *Report) RecoveredAfter(at time.Duration, share, ceiling float64) (seconds int, ok bool) {
	first, end := int(at/time.Second), min(len(r.Series), int(r.DurationSeconds))
	n := end
	for n > first && float64(r.Series[n-1].Good) >= share*min(float64(r.Series[n-1].Requests), ceiling) {
		n--
	}
	return n - first, n < end
}

// Achieved is the share of the good answers that there could be, as RecoveredAfter
// counts them, in the seconds of a part of the run.
func (r *Report) Achieved(from, to time.Duration, ceiling float64) float64 {
	good, possible := 0.0, 0.0
	for n := int(from / time.Second); n < min(len(r.Series), int(to/time.Second)); n++ {
		good += float64(r.Series[n].Good)
		possible += min(float64(r.Series[n].Requests), ceiling)
	}
	return share(good, possible)
}
