package controller

import (
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
	gauge("held_requests", "Requests that came in here and are unanswered.", func() float64 { count, _ := c.entry.held(); return float64(count) })
	gauge("held_bytes", "Bytes of the requests that came in here and are unanswered.", func() float64 { _, bytes := c.entry.held(); return float64(bytes) })
	gauge("degraded", "1 while inference is served here without a leader.", func() float64 { return truth(c.Degraded()) })
	r.MustRegister(c.entry.answers, c.entry.latency, c.degraded.answers)
	return r
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
