//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// row is a fault, and what it may cost.
type row struct {
	name, title string
	// deadline is that of each inference request.
	deadline time.Duration
	// strict says that no request may fail.
	strict   bool
	measures []measure
	// hosts says that it needs a network to cut.
	hosts bool
	// away is how long somebody is away.
	away time.Duration
	// crowd says that the workers are many in two processes, which are not
	// started before the trial.
	crowd bool
	// witnessed says that workers log every action.
	witnessed bool
	// fresh says that each trial needs a cluster of its own.
	fresh bool
	// course makes the fault and undoes it, while the load runs; but in a crowd
	// it starts the load itself.
	course func(context.Context, *trial) error
}

// unit is what a figure counts.
type unit int

const (
	milliseconds unit = iota
	count
	perSecond
	times
	percent
)

func (u unit) text(x float64) string {
	switch {
	case u == count:
		return fmt.Sprintf("%.0f", x)
	case u == perSecond:
		return fmt.Sprintf("%.2f/s", x)
	case u == times:
		return fmt.Sprintf("%.2f ×", x)
	case u == percent:
		return fmt.Sprintf("%.0f %%", x)
	case x < 1000:
		return fmt.Sprintf("%.0f ms", x)
	}
	return fmt.Sprintf("%.2f s", x/1000)
}

// measure is one figure of a row.
type measure struct {
	name, title string
	unit        unit
	// most is what it may be, if bounded.
	most    float64
	bounded bool
	// least, if above 0, is what it must be, over all trials together.
	least float64
	// must says that more than the most is a mistake, and not slowness.
	must bool
}

// The kinds of measures: just told, with a target, and with one that no machine
// is too slow for.
func told(name, title string, u unit) measure { return measure{name: name, title: title, unit: u} }

func within(name, title string, most time.Duration) measure {
	return measure{name: name, title: title, most: float64(most.Milliseconds()), bounded: true}
}

func atMost(name, title string, u unit, most float64) measure {
	return measure{name: name, title: title, unit: u, most: most, bounded: true, must: true}
}

func rows() []row {
	lost := []measure{
		within("unscheduled_ms", "no new work after", 500*time.Millisecond),
		told("told_ms", "taken out of the schedule after", milliseconds),
		within("back_ms", "work again after", 500*time.Millisecond),
		atMost("unregistered", "gone from the registry", count, 0),
	}
	poisoned := []measure{
		told("verdict_ms", "blamed after", milliseconds),
		atMost("deaths", "workers lost", count, deathsAllowed),
	}
	return []row{
		{
			name: "kill", title: "SIGKILL of a worker", deadline: time.Second, strict: true, course: kill,
			measures: []measure{
				within("unscheduled_ms", "no new work after", 200*time.Millisecond),
				told("told_ms", "taken out of the schedule after", milliseconds),
				within("copies_beyond_ms", "copies replaced, beyond their load time, after", 2*time.Second),
				told("load_ms", "load time of the new copy", milliseconds),
			},
		},
		{name: "freeze", title: "SIGSTOP of a worker for 5 s", away: 5 * time.Second, deadline: 2 * time.Second, strict: true, measures: lost, course: freeze},
		{
			name: "cut", title: "a worker cut off from the leader for 10 s", away: 10 * time.Second, deadline: 2 * time.Second, strict: true, hosts: true, course: cut,
			measures: append(append([]measure{}, lost...), atMost("reconnects", "connected while cut off", count, 0)),
		},
		{
			name: "thaw", title: "SIGSTOP of the leader for 5 s", away: 5 * time.Second, deadline: 10 * time.Second, witnessed: true, course: thaw,
			measures: []measure{
				atMost("late", "actions of a succeeded leader executed", count, 0),
				{name: "stale", title: "answered STALE", unit: count, least: 100},
				told("sent", "actions that the old leader sent in and after its freeze", count),
				told("refused", "sessions refused", count),
				told("executed", "actions of the successor witnessed", count),
				told("late_sessions", "sessions of a succeeded leader opened later", count),
			},
		},
		{
			name: "crashloop", title: "a worker dies whenever it is registered", deadline: 2 * time.Second, strict: true, fresh: true, course: crashLoop,
			measures: []measure{
				atMost("entries", "log entries beyond those without the fault", perSecond, 1),
				told("entries_before", "log entries without it", perSecond),
				told("lives", "lives of the worker", count),
				told("latency_before_ms", "median latency without it", milliseconds),
				told("latency_ratio", "with it", times),
			},
		},
		{
			name: "crowd", title: "many workers join, and half of them die at once", deadline: 2 * time.Second, strict: true, hosts: true,
			crowd: true, fresh: true, course: crowd,
			measures: []measure{
				within("joined_ms", "all registered after", 10*time.Second),
				told("join_cpu", "leader's CPU meanwhile", percent),
				told("join_entries", "log entries", count),
				{name: "lost", title: "sessions lost without a fault", unit: count, bounded: true},
				told("idle_cpu", "leader's CPU at rest", percent),
				told("idle_entries", "log entries at rest", perSecond),
				within("unscheduled_ms", "no new work for the dead after", 500*time.Millisecond),
				told("told_ms", "all taken out of the schedule after", milliseconds),
				{name: "survivors", title: "survivors' sessions lost with them", unit: count, bounded: true},
				told("kill_cpu", "leader's CPU in the 3 s after the kill", percent),
				told("kill_entries", "log entries in these", count),
			},
		},
		{
			name: "poison-model", title: "a model whose runs kill is loaded", deadline: 2 * time.Second, strict: true, course: poisonModel,
			measures: append(append([]measure{}, poisoned...), atMost("unexplained", "without MODEL_BLAMED and advice", count, 0)),
		},
		{
			name: "poison-request", title: "a request that kills", deadline: 2 * time.Second, strict: true, course: poisonRequest,
			measures: append(append([]measure{}, poisoned...), atMost("unexplained", "without REQUEST_BLAMED", count, 0)),
		},
	}
}

func rowNames() (all []string) {
	for _, r := range rows() {
		all = append(all, r.name)
	}
	return all
}
