package controller

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	// degradedTick is how often a leaderless controller looks whether it may
	// serve: the settings and the state may change meanwhile.
	degradedTick = 250 * time.Millisecond
	// degradedDrain bounds the wait for requests at workers once there is a
	// leader again.
	degradedDrain = time.Second
)

// degraded is inference without a leader: once there has been none for a while
// this replica sends requests to workers itself, over the last committed state
// that it has. It changes nothing, and stops as soon as there is a leader. It
// is the workers who see to it that this is safe; see docs/degraded.md.
type degraded struct {
	c *Controller
	// answers counts those that were given without a leader.
	answers prometheus.Counter

	mu     sync.Mutex
	outage *outage // nil: there is a leader, or the time for this is not or no longer
	// serving says that some worker would serve, and none has a leader.
	serving bool
	changed chan struct{}
}

func newDegraded(c *Controller) *degraded {
	return &degraded{c: c, changed: make(chan struct{}), answers: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "orrery", Name: "degraded_answers_total", Help: "Successful answers that were given without a leader.",
	})}
}

// Degraded says whether this replica serves inference without a leader now.
func (c *Controller) Degraded() bool {
	o, _ := c.degraded.current()
	return o != nil
}

// current is the outage during which requests can be sent to workers now, or
// nil, and a channel that is closed when something about that has changed.
func (d *degraded) current() (*outage, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.serving {
		return nil, d.changed
	}
	return d.outage, d.changed
}

// change alters what is known, and tells those who wait.
func (d *degraded) change(alter func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	alter()
	was := d.serving
	d.serving = d.outage != nil && d.outage.serves()
	switch {
	case d.serving && !was:
		d.c.log.Warn("serving without a leader begins", "leaderless", d.c.route.leaderless(), "workers", d.outage.willing())
	case was && !d.serving:
		d.c.log.Warn("serving without a leader ends")
	}
	close(d.changed)
	d.changed = make(chan struct{})
}

// run begins and ends outages until ctx ends.
func (d *degraded) run(ctx context.Context) {
	var ending sync.WaitGroup
	defer ending.Wait()
	for ctx.Err() == nil {
		cluster, next := d.due()
		if cluster == nil {
			d.wait(ctx, next)
			continue
		}
		o := newOutage(d, cluster)
		d.change(func() { d.outage = o })
		o.start()
		for ctx.Err() == nil && cluster != nil {
			d.wait(ctx, next)
			cluster, next = d.due()
		}
		d.change(func() { d.outage = nil })
		ending.Go(o.end)
	}
}

// wait returns after a time, or when the way to the leader has changed. A time
// of 0 has no end.
func (d *degraded) wait(ctx context.Context, after time.Duration) {
	w, changed := d.c.route.current()
	var timeout <-chan time.Time
	if !w.known() {
		timer := time.NewTimer(min(max(after, time.Millisecond), degradedTick))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timeout:
	}
}

// due returns the cluster if requests may be sent to workers now, and how long
// that stays so.
func (d *degraded) due() (cluster *logpb.Cluster, next time.Duration) {
	w, _ := d.c.route.current()
	t, leaderless := d.c.tunables.Load(), d.c.route.leaderless()
	end := t.DegradedAfter + t.DegradedFor
	switch {
	case w.known() || leaderless == 0 || t.DegradedFor <= 0 || leaderless >= end:
		return nil, degradedTick
	case leaderless < t.DegradedAfter:
		return nil, t.DegradedAfter - leaderless
	}
	// Until it has heard of a leader, a replica knows no more than its last
	// snapshot, which may be old.
	if _, ever := d.c.options.Consensus.LeaderHeard(); !ever {
		return nil, degradedTick
	}
	d.c.options.Replica.Read(func(s *fsm.State) {
		if s.Serving() {
			cluster = s.Cluster()
		}
	})
	return cluster, end - leaderless
}
