package configs

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Limits that the rest of Orrery, or a library below it, sets.
const (
	maxName         = 40
	maxLabel        = 63
	maxControllers  = 7
	maxMessage      = 1 * GiB
	maxBatchRows    = 1024
	maxPinned       = 10_000
	leastPage       = 4 * KiB
	leastHostMemory = 1 * MiB
	leastRaftTime   = 5 * time.Millisecond
	leastCommitTime = time.Millisecond
	leastWriteLimit = 100 * time.Millisecond // a disk that is only busy takes as long
	mostHeartbeat   = 300 * time.Millisecond // a worker takes a second of silence for a leader that is gone
)

// Validate reports everything that is wrong, as [Problems].
func (c *Controller) Validate() error {
	var k checker
	defaults := DefaultController().Listen
	k.name("name", c.Name, "c1")
	k.directory("data_dir", c.DataDir, "/var/lib/orrery")
	k.listeners([]listener{
		{"inference", c.Listen.Inference, defaults.Inference},
		{"http", c.Listen.HTTP, defaults.HTTP},
		{"control", c.Listen.Control, defaults.Control},
		{"peer", c.Listen.Peer, defaults.Peer},
		{"raft", c.Listen.Raft, defaults.Raft},
		{"gossip", c.Listen.Gossip, defaults.Gossip},
	}, c.Expose)
	k.advertised("inference", c.Listen.Inference, c.Advertise.Inference)
	k.advertised("control", c.Listen.Control, c.Advertise.Control)
	k.advertised("peer", c.Listen.Peer, c.Advertise.Peer)
	k.advertised("raft", c.Listen.Raft, c.Advertise.Raft)
	k.advertised("gossip", c.Listen.Gossip, c.Advertise.Gossip)
	k.cluster(c)
	k.raft(c.Raft)
	k.startup(c.Startup)
	k.inference(c.Inference)
	k.workers(c.Workers)
	k.oneOf("scheduler.policy", c.Scheduler.Policy, "clockwork", "deferred", "edf", "fifo", "lottery", "orrery", "shortest_queue")
	atLeast(&k, "scheduler.schedule_ahead", c.Scheduler.ScheduleAhead, 0)
	atLeast(&k, "control.no_leader_timeout", c.Control.NoLeaderTimeout, time.Millisecond)
	k.log(c.Log)
	atLeast(&k, "shutdown_timeout", c.ShutdownTimeout, 0)
	return k.problems.err()
}

// Validate reports everything that is wrong, as [Problems].
func (w *Worker) Validate() error {
	var k checker
	defaults := DefaultWorker().Listen
	k.name("name", w.Name, "w1")
	k.listeners([]listener{
		{"session", w.Listen.Session, defaults.Session},
		{"http", w.Listen.HTTP, defaults.HTTP},
		{"gossip", w.Listen.Gossip, defaults.Gossip},
	}, w.Expose)
	k.advertised("session", w.Listen.Session, w.Advertise.Session)
	k.advertised("gossip", w.Listen.Gossip, w.Advertise.Gossip)
	if len(w.Cluster.GossipSeeds) == 0 {
		k.report("cluster.gossip_seeds", "list the gossip addresses of the controllers, for example [127.0.0.1:7946]", "is required")
	}
	k.dialable("cluster.gossip_seeds", w.Cluster.GossipSeeds, "127.0.0.1:7946")
	k.directory("model_dir", w.ModelDir, "/var/lib/orrery/models")
	atLeast(&k, "host_memory", w.HostMemory, leastHostMemory)
	if len(w.Devices) == 0 {
		k.report("devices", "list at least one, for example [{kind: cpu}]", "is required")
	}
	for i, device := range w.Devices {
		k.device(fmt.Sprintf("devices[%d]", i), device)
	}
	k.batchRows(w.Engines.GoMLX.BatchRows)
	within(&k, "engines.emulated.jitter", w.Engines.Emulated.Jitter, 0, 1)
	within(&k, "engines.emulated.slowdown", w.Engines.Emulated.Slowdown, 0.001, 1000)
	within(&k, "engines.emulated.failure_rate", w.Engines.Emulated.FailureRate, 0, 1)
	k.labels(w.Labels)
	if !(w.Speed > 0) || math.IsInf(w.Speed, 0) {
		k.report("speed", "write 1 for a worker of usual speed, 2 for one twice as fast", "%v is not a finite number above 0", w.Speed)
	}
	k.log(w.Log)
	atLeast(&k, "shutdown_timeout", w.ShutdownTimeout, 0)
	return k.problems.err()
}

// checker gathers problems.
type checker struct{ problems Problems }

func (k *checker) report(path, remedy, format string, args ...any) {
	k.problems = append(k.problems, place{}.problem(path, faultf(remedy, format, args...)))
}

func atLeast[T cmp.Ordered](k *checker, path string, value, least T) {
	// Negated, so that NaN is refused.
	if !(value >= least) {
		k.report(path, fmt.Sprintf("write %v or more", least), "%v is too low", value)
	}
}

func within[T cmp.Ordered](k *checker, path string, value, least, most T) {
	if !(value >= least && value <= most) {
		k.report(path, fmt.Sprintf("write %v to %v", least, most), "%v is out of range", value)
	}
}

func (k *checker) oneOf(path, value string, known ...string) {
	if slices.Contains(known, value) {
		return
	}
	remedy := "write " + known[0]
	if len(known) > 1 {
		remedy = "write one of " + strings.Join(known, ", ")
	}
	if near := closest(value, known); near != "" {
		remedy = "did you mean " + near + "?"
	}
	k.report(path, remedy, "%q is not known", value)
}

func (k *checker) name(path, value, example string) {
	switch {
	case value == "":
		k.report(path, "write for example "+example, "is required")
	case len(value) > maxName:
		k.report(path, "shorten it", "%q has %d characters, more than %d", value, len(value), maxName)
	case !isName(value):
		k.report(path, "use a to z, 0 to 9 and, between them, -; for example "+example, "%q is not a valid name", value)
	}
}

// isName reports whether s has only a-z, 0-9 and, inside, a hyphen.
func isName(s string) bool {
	return s != "" && s[0] != '-' && s[len(s)-1] != '-' &&
		!strings.ContainsFunc(s, func(r rune) bool { return !nameRune(r) || 'A' <= r && r <= 'Z' })
}

func (k *checker) directory(path, value, example string) {
	if value == "" {
		k.report(path, "write the path of a folder, for example "+example, "is required")
	}
}

func (k *checker) log(l Log) {
	k.oneOf("log.level", l.Level, "trace", "debug", "info", "warn", "error")
	k.oneOf("log.format", l.Format, "text", "json")
}

func (k *checker) labels(labels map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		k.name("labels."+name, name, "zone")
		value := labels[name]
		if value == "" || len(value) > maxLabel || strings.ContainsFunc(value, func(r rune) bool { return !nameRune(r) && r != '.' && r != '_' }) {
			k.report("labels."+name, fmt.Sprintf("use 1 to %d letters, digits, and . _ -", maxLabel), "%q is not a valid value of a label", value)
		}
	}
}
