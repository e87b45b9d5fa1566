package controller

import (
	"testing"
	"time"
)

func TestAWorkerThatKeepsFailingIsQuarantinedForLongerEachTime(t *testing.T) {
	var h health
	now := time.Now()
	for i := range strikesAllowed - 1 {
		if h.strike(now, "died") {
			t.Fatalf("quarantined at strike %d", i+1)
		}
		now = now.Add(time.Second)
	}
	want := quarantineMin
	for range 12 {
		if !h.strike(now, "died") || h.left(now) != want || h.reason != "died" {
			t.Fatalf("left %v, want %v, reason %q", h.left(now), want, h.reason)
		}
		if h.strike(now.Add(time.Second), "again") || h.reason != "died" {
			t.Fatal("a strike in quarantine counts")
		}
		now = now.Add(want)
		if h.quarantined(now) || !h.onTrial(now) {
			t.Fatal("it is not let in on trial")
		}
		want = min(2*want, quarantineMax)
	}
	if want != quarantineMax {
		t.Errorf("it never came to the longest quarantine")
	}
}

func TestAWorkerThatPassesItsTrialIsTrusted(t *testing.T) {
	var h health
	now := time.Now()
	for range strikesAllowed {
		h.strike(now, "died")
	}
	now = h.until.Add(trialTime)
	if h.onTrial(now) {
		t.Fatal("the trial goes on")
	}
	now = now.Add(strikeWindow)
	for i := range strikesAllowed - 1 {
		if h.strike(now, "died") {
			t.Fatalf("strike %d counts as on trial", i+1)
		}
	}
	if !h.strike(now, "died") || h.left(now) != quarantineMin {
		t.Errorf("left %v", h.left(now))
	}
}

func TestStrikesAreForgotten(t *testing.T) {
	var h health
	now := time.Now()
	for range 10 * strikesAllowed {
		if h.strike(now, "died") {
			t.Fatal("quarantined for rare failures")
		}
		now = now.Add(strikeWindow / (strikesAllowed - 1))
	}
}

func TestReleaseForgets(t *testing.T) {
	var h health
	now := time.Now()
	for range strikesAllowed {
		h.strike(now, "died")
	}
	h.release()
	if h.quarantined(now) || h.onTrial(now) || h.strike(now, "died") {
		t.Error("something is still held against it")
	}
}

func TestFailingWorkersCauseFewLogEntries(t *testing.T) {
	var h health
	now := time.Now()
	h.committed = now
	if !h.mayCommit(now) {
		t.Error("a worker without a strike has to wait")
	}
	h.strike(now, "died")
	if !h.mayCommit(now) {
		t.Error("a worker that was restarted once has to wait")
	}
	h.strike(now, "died")
	if h.mayCommit(now.Add(time.Second)) || !h.mayCommit(now.Add(strikeCommits)) || !h.mayCommit(now.Add(strikeWindow)) {
		t.Error("wrong times")
	}
}

func TestAStrikeThatWasNotItsFaultIsTakenBack(t *testing.T) {
	var h health
	now := time.Now()
	for range strikesAllowed {
		h.strike(now, "died")
	}
	h.forgive(now)
	if h.quarantined(now) || h.onTrial(now) || len(h.strikes) != strikesAllowed-1 {
		t.Errorf("quarantined %v, on trial %v, %d strikes", h.quarantined(now), h.onTrial(now), len(h.strikes))
	}
	if !h.strike(now, "died again") || h.left(now) != quarantineMin {
		t.Error("the next one does not count")
	}
	var clean health
	clean.forgive(now)
}
