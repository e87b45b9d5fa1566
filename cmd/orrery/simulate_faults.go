package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/orrery-project/orrery/scheduler/sim"
)

// leaderGap is how long there is no leader when one is succeeded, if nothing else
// is said: what docs/benchmarks.md has for the death of a leader.
const leaderGap = 400 * time.Millisecond

// addFaults adds what the flags say of faults.
func (f *simulateFlags) addFaults(s *sim.Scenario) error {
	for _, text := range f.fail {
		failure, err := parseFailure("--fail", text)
		if err != nil {
			return err
		}
		s.Failures = append(s.Failures, failure)
	}
	for _, text := range f.freeze {
		failure, err := parseFailure("--freeze", text)
		if err != nil {
			return err
		}
		failure.Freeze = true
		s.Failures = append(s.Failures, failure)
	}
	for _, text := range f.slow {
		slowdown, err := parseSlowdown(text)
		if err != nil {
			return err
		}
		s.Slowdowns = append(s.Slowdowns, slowdown)
	}
	for _, text := range f.leaders {
		at, gap, err := parseSpan(text, leaderGap)
		if err != nil {
			return fmt.Errorf("--new-leader is %q: write it as 30s or 30s+400ms", text)
		}
		s.LeaderChanges = append(s.LeaderChanges, sim.LeaderChange{At: at, Gap: gap})
	}
	return nil
}

// parseSpan reads TIME or TIME+TIME; missing is the second one when it lacks.
func parseSpan(text string, missing time.Duration) (at, span time.Duration, err error) {
	first, second, given := strings.Cut(text, "+")
	if at, err = time.ParseDuration(first); err != nil || !given {
		return at, missing, err
	}
	span, err = time.ParseDuration(second)
	return at, span, err
}

func parseFailure(flag, text string) (sim.Failure, error) {
	worker, when, ok := strings.Cut(text, "@")
	at, span, err := parseSpan(when, 0)
	if !ok || err != nil {
		return sim.Failure{}, fmt.Errorf("%s is %q: write it as w1@10s or w1@10s+5s", flag, text)
	}
	return sim.Failure{Worker: worker, At: at, For: span}, nil
}

func parseSlowdown(text string) (sim.Slowdown, error) {
	bad := fmt.Errorf("--slow is %q: write it as w1@10s*3, or w1/0@10s*3 for one device", text)
	who, what, ok1 := strings.Cut(text, "@")
	when, factor, ok2 := strings.Cut(what, "*")
	s := sim.Slowdown{Device: -1}
	worker, device, one := strings.Cut(who, "/")
	s.Worker = worker
	var err1, err2, err3 error
	if one {
		s.Device, err1 = strconv.Atoi(device)
	}
	s.At, err2 = time.ParseDuration(when)
	s.Factor, err3 = strconv.ParseFloat(factor, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || err3 != nil {
		return s, bad
	}
	return s, nil
}
