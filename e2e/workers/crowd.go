//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
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
	if err := errors.Join(t.awaitWhole(ctx), t.startLoad(ctx)); err != nil {
		return err
	}
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
	if err := errors.Join(spent.end(ctx, "kill"), t.awaitTaken(ctx, noticed, dying.Members...)); err != nil {
		return err
	}
	t.tell("unscheduled_ms", t.sends.lastAfter(t.fault, time.Now(), dying.Members...))
	told, _ := t.taken(dying.Members...)
	t.tell("told_ms", told)
	t.measured = true
	return nil
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
