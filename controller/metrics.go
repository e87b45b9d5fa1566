package controller

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/orrery-project/orrery/fsm"
)

// Metrics are this replica's figures, in a registry of their own.
func (c *Controller) Metrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "orrery", Name: name, Help: help}, value))
	}
	gauge("leader", "1 when this replica leads.", func() float64 { return truth(c.term.Load() != nil) })
	gauge("ready", "1 when requests that come in here can be served.", func() float64 { return truth(c.Ready()) })
	gauge("leaderless_seconds", "For how long this replica has known no leader.", func() float64 { return c.route.leaderless().Seconds() })
	gauge("raft_term", "The raft term.", func() float64 { term, _, _ := c.options.Consensus.Progress(); return float64(term) })
	gauge("raft_applied_index", "The last log index applied here.", func() float64 { _, _, applied := c.options.Consensus.Progress(); return float64(applied) })
	gauge("startup_phase", "0 querying, 1 waiting, 2 loading, 3 profiling, 4 serving.", func() (phase float64) {
		c.options.Replica.Read(func(s *fsm.State) { phase = float64(s.Phase()) })
		return phase
	})
	gauge("serving", "1 when serving has begun, also while the startup is reopened.", func() (serving float64) {
		c.options.Replica.Read(func(s *fsm.State) { serving = truth(s.Serving()) })
		return serving
	})
	gauge("held_requests", "Requests that came in here and are unanswered.", func() float64 { count, _ := c.entry.held(); return float64(count) })
	gauge("held_bytes", "Bytes of the requests that came in here and are unanswered.", func() float64 { _, bytes := c.entry.held(); return float64(bytes) })
	gauge("degraded", "1 while inference is served here without a leader.", func() float64 { return truth(c.Degraded()) })
	r.MustRegister(c.entry.answers, c.entry.latency, c.degraded.answers, stateCollector{c})
	c.workerMetrics.register(r)
	return r
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// workerMetrics are what leaders on this replica have seen of their workers. They
// outlive the terms.
type workerMetrics struct {
	actions     *prometheus.CounterVec // sent, by worker
	losses      *prometheus.CounterVec // of sessions, by cause
	unanswered  *prometheus.CounterVec // devices that did not answer in time, by worker
	repairs     *prometheus.CounterVec // by what
	quarantines prometheus.Counter
	blamed      prometheus.Counter
}

func newWorkerMetrics() *workerMetrics {
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "orrery", Name: name, Help: help}, []string{label})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "orrery", Name: name, Help: help})
	}
	return &workerMetrics{
		actions:     vec("worker_actions_total", "Actions of the schedule that this replica, as the leader, sent to a worker.", "worker"),
		losses:      vec("worker_losses_total", "Sessions to workers that ended: died, silent or left.", "cause"),
		unanswered:  vec("worker_unanswered_total", "Times that a device of a worker did not answer in time.", "worker"),
		repairs:     vec("worker_repairs_total", "Differences that were found between what the leader believed of a worker and what that said.", "what"),
		quarantines: counter("worker_quarantines_total", "Times that a worker was put into quarantine."),
		blamed:      counter("models_blamed_total", "Models that were stopped because workers died with them."),
	}
}

func (m *workerMetrics) register(r *prometheus.Registry) {
	r.MustRegister(m.actions, m.losses, m.unanswered, m.repairs, m.quarantines, m.blamed)
}

// stateCollector shows how many workers are in which state, as far as is known
// here: only the leader knows who is away. And how devices compare, and what the
// leader schedules by.
type stateCollector struct{ c *Controller }

var workersDesc = prometheus.NewDesc("orrery_workers", "Registered workers by state; only the leader knows who is away or quarantined.", []string{"state"}, nil)

var deviceDesc = prometheus.NewDesc("orrery_device_slowness",
	"How long a device takes over how long the one took on which the profiles of their kind were measured, by a few runs.", []string{"worker", "device"}, nil)

var policyDesc = prometheus.NewDesc("orrery_scheduler_policy", "1 for the scheduling policy with which this replica leads.", []string{"policy"}, nil)

// Describe implements prometheus.Collector.
func (stateCollector) Describe(out chan<- *prometheus.Desc) {
	out <- workersDesc
	out <- deviceDesc
	out <- policyDesc
}

// Collect implements prometheus.Collector.
func (s stateCollector) Collect(out chan<- prometheus.Metric) {
	for state, n := range s.c.workerStates() {
		out <- prometheus.MustNewConstMetric(workersDesc, prometheus.GaugeValue, n, state)
	}
	if policy := s.c.policyUsed(); policy != "" {
		out <- prometheus.MustNewConstMetric(policyDesc, prometheus.GaugeValue, 1, policy)
	}
	s.c.options.Replica.Read(func(state *fsm.State) {
		for _, w := range state.Workers() {
			for _, check := range w.Checks {
				out <- prometheus.MustNewConstMetric(deviceDesc, prometheus.GaugeValue, check.Ratio, w.Name, strconv.Itoa(int(check.Device)))
			}
		}
	})
}

// workerStates counts the registered workers by what they do.
func (c *Controller) workerStates() map[string]float64 {
	states := map[string]float64{"ready": 0, "trial": 0, "away": 0, "leaving": 0, "quarantined": 0, "cordoned": 0, "draining": 0, "evicted": 0, "lost": 0}
	var live liveWorkers
	if t := c.term.Load(); t != nil {
		live = t.coordinator.workers()
	}
	c.options.Replica.Read(func(s *fsm.State) {
		for _, w := range s.Workers() {
			states[workerState(w, live)]++
		}
	})
	return states
}
