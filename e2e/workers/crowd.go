//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

const (
	joinTimeout = 60 * time.Second
	// mournedFor is how long the cluster is watched after a kill.
	mournedFor = 3 * time.Second
)

// registered is what the leader says when it has registered a worker.
const registered = "worker registered"

// crowd has many workers join at once, leaves them alone for a span, and then
// kills half of them under load.
func crowd(ctx context.Context, t *trial) error {
	if err := t.joinCrowd(ctx); err != nil {
		return err
	}
	rest, err := t.spend(ctx)
	if err != nil {
		return err
	}
	if err := bench.Pause(ctx, t.options.span); err != nil {
		return err
	}
	if err := rest.end(ctx, "idle"); err != nil {
		return err
	}
	t.result.Figures["idle_entries"] /= t.options.span.Seconds()

	if err := t.stage.load(ctx, mainModel, 0); err != nil {
		return err
	}
	if err := t.awaitServing(ctx); err != nil {
		return err
	}
	if err := t.startLoad(ctx); err != nil {
		return err
	}
	// A crowd on a machine that is too small loses workers without a fault, and
	// that is a finding.
	t.result.Figures["lost"] = t.sessionsLost(nil)
	return t.killHalf(ctx)
}

func (t *trial) joinCrowd(ctx context.Context) (err error) {
	if t.now, err = t.leading(ctx); err != nil {
		return err
	}
	join, err := t.spend(ctx)
	if err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	for _, p := range t.cluster.Workers {
		if err := p.Start(); err != nil {
			return err
		}
	}
	all := map[string]bool{}
	for len(all) < len(t.members()) {
		if time.Since(t.fault) > joinTimeout {
			return fmt.Errorf("%d of %d workers are registered after %v", len(all), len(t.members()), joinTimeout)
		}
		if err := bench.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		clear(all)
		for e := range t.log.Since() {
			if e.Says(registered) {
				all[e.Value("worker")] = true
				t.tell("joined_ms", e.At.Sub(t.fault))
			}
		}
	}
	return join.end(ctx, "join")
}

// awaitServing waits until all controllers serve, whether or not all workers are
// connected.
func (t *trial) awaitServing(ctx context.Context) error {
	for began := time.Now(); ; {
		ready := 0.0
		for _, p := range t.cluster.Controllers {
			if m, err := bench.Metrics(ctx, p); err == nil {
				ready += m["orrery_ready"]
			}
		}
		if int(ready) == len(t.cluster.Controllers) {
			return nil
		}
		if time.Since(began) > joinTimeout {
			return fmt.Errorf("%.0f of %d controllers serve after %v", ready, len(t.cluster.Controllers), joinTimeout)
		}
		if err := bench.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// leading waits until somebody leads.
func (t *trial) leading(ctx context.Context) (v bench.View, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		for _, p := range t.cluster.Controllers {
			if m, err := bench.Metrics(ctx, p); err == nil && m["orrery_leader"] == 1 {
				return bench.View{Leader: p.Name, Term: m["orrery_raft_term"]}, nil
			}
		}
		if err := bench.Pause(ctx, 100*time.Millisecond); err != nil {
			return v, fmt.Errorf("nobody leads: %w", err)
		}
	}
}

func (t *trial) killHalf(ctx context.Context) error {
	dying := t.cluster.Workers[1]
	before, err := t.workers(ctx)
	if err != nil {
		return err
	}
	connected := slices.DeleteFunc(slices.Clone(dying.Members), func(name string) bool { return !before[name].GetLive().GetConnected() })
	if len(connected) == 0 {
		return errors.New("none of those that are to die is connected")
	}
	spent, err := t.spend(ctx)
	if err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	if err := dying.Kill(); err != nil {
		return err
	}
	if err := t.until(ctx, mournedFor); err != nil {
		return err
	}
	if err := errors.Join(spent.end(ctx, "kill"), t.awaitTaken(ctx, noticed, connected...)); err != nil {
		return err
	}
	t.tell("unscheduled_ms", t.sends.lastAfter(t.fault, time.Now(), dying.Members...))
	t.result.Figures["survivors"] = t.sessionsLost(dying.Members)
	told, _ := t.taken(connected...)
	t.tell("told_ms", told)
	t.measured = true
	return nil
}

// sessionsLost is how many sessions the leader has lost since the fault, but
// those to some workers.
func (t *trial) sessionsLost(but []string) (n float64) {
	for e := range t.log.Since() {
		if e.Says(bench.WorkerLost) && !slices.Contains(but, e.Value("worker")) {
			n++
		}
	}
	return n
}

// spending is what the leader spends since it was begun.
type spending struct {
	t       *trial
	began   time.Time
	cpu     time.Duration
	entries float64
}

func (t *trial) spend(ctx context.Context) (s spending, err error) {
	s = spending{t: t, began: time.Now(), cpu: bench.ProcessTime(t.leader().PID())}
	s.entries, err = t.progress(ctx)
	return s, err
}

// end tells the share of a processor, and the log entries.
func (s spending) end(ctx context.Context, name string) error {
	cpu := bench.ProcessTime(s.t.leader().PID()) - s.cpu
	entries, err := s.t.progress(ctx)
	s.t.result.Figures[name+"_cpu"] = 100 * cpu.Seconds() / time.Since(s.began).Seconds()
	s.t.result.Figures[name+"_entries"] = entries - s.entries
	return err
}
