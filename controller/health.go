package controller

import "time"

const (
	// strikesAllowed within strikeWindow put a worker into quarantine.
	strikesAllowed = 4
	strikeWindow   = time.Minute
	// The first quarantine, and the longest: each that follows on a failed trial
	// is twice as long as the one before.
	quarantineMin = 5 * time.Second
	quarantineMax = 5 * time.Minute
	// trialTime is how long a worker that was let back in has to do without a
	// strike, to be trusted again.
	trialTime = 20 * time.Second
	// strikeCommits is the least time between two log entries about a worker that
	// has had more than one strike lately. (One that was restarted for once is to
	// be back at once.)
	strikeCommits = 1100 * time.Millisecond
)

// health is how a worker has done lately. A worker that keeps failing is put
// into quarantine: it gets no work, and no log entries, for a time that grows
// with each failed trial.
//
// Strikes are sessions that were lost, results that did not come, and many
// failures in a row of what other workers can do. It is the leader's own
// knowledge: a new leader begins with trust.
type health struct {
	strikes []time.Time // of the last strikeWindow
	// until is when the present or last quarantine ends; reason is why it began.
	until  time.Time
	reason string
	// length is that of the last quarantine; 0: none since it was trusted.
	length time.Duration
	// committed is when the last log entry about the worker was made.
	committed time.Time
}

// strike notes a failure, and says whether it puts the worker into quarantine.
func (h *health) strike(now time.Time, reason string) bool {
	if h.quarantined(now) {
		return false
	}
	h.strikes = append(h.recent(now), now)
	if !h.onTrial(now) && len(h.strikes) < strikesAllowed {
		return false
	}
	h.confine(now, reason)
	return true
}

// confine begins a quarantine.
func (h *health) confine(now time.Time, reason string) {
	if h.onTrial(now) {
		h.length = min(2*h.length, quarantineMax)
	} else {
		h.length = quarantineMin
	}
	h.until, h.reason = now.Add(h.length), reason
}

// condemn begins a quarantine for one failure that is enough by itself.
func (h *health) condemn(now time.Time, reason string) {
	h.strikes = append(h.recent(now), now)
	h.confine(now, reason)
}

// forgive takes back the last strike, and a quarantine that began by it.
func (h *health) forgive(now time.Time) {
	recent := h.recent(now)
	if len(recent) == 0 {
		return
	}
	h.strikes = recent[:len(recent)-1]
	if h.quarantined(now) && len(h.strikes) < strikesAllowed {
		h.until, h.length = time.Time{}, h.length/2
		if h.length < quarantineMin {
			h.length = 0
		}
	}
}

// release ends a quarantine, and all that was held against the worker.
func (h *health) release() { *h = health{committed: h.committed} }

// recent are the strikes that still count.
func (h *health) recent(now time.Time) []time.Time {
	for i, at := range h.strikes {
		if now.Sub(at) < strikeWindow {
			return h.strikes[i:]
		}
	}
	return nil
}

func (h *health) quarantined(now time.Time) bool { return now.Before(h.until) }

// left is how long the quarantine goes on.
func (h *health) left(now time.Time) time.Duration { return max(0, h.until.Sub(now)) }

// onTrial says whether a quarantine has ended so lately that the worker is not
// trusted yet. One that was long asks for a longer trial: a worker that dies
// every minute shall not be trusted in between.
func (h *health) onTrial(now time.Time) bool {
	return h.length > 0 && !h.quarantined(now) && now.Before(h.until.Add(max(trialTime, h.length)))
}

// mayCommit says whether a log entry about the worker may be made now: one that
// keeps failing causes less than one a second.
func (h *health) mayCommit(now time.Time) bool {
	return len(h.recent(now)) <= 1 || now.Sub(h.committed) >= strikeCommits
}
