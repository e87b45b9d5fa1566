//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	// noticed is how long the leader may take to notice anything at all.
	noticed = 4 * time.Second
	// copiesTimeout is how long copies may take to be replaced.
	copiesTimeout = 20 * time.Second
	// killedFor is how long a killed worker stays away at least.
	killedFor = 2 * time.Second
)

// kill kills a worker that holds a copy of the spare model while it has work in
// hand, and waits until that copy is replaced.
func kill(ctx context.Context, t *trial) error {
	holders, err := t.holders(ctx)
	if err != nil || len(holders) < spareCopies {
		return fmt.Errorf("%v hold the spare model: %w", holders, err)
	}
	victim := t.next(holders...)
	if err := awaitBusy(ctx, victim); err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	if err := victim.Kill(); err != nil {
		return err
	}
	replaced, err := t.awaitCopies(ctx, victim.Name)
	if err != nil {
		return err
	}
	if err := t.until(ctx, killedFor); err != nil {
		return err
	}
	if err := t.awaitTaken(ctx, noticed, victim.Name); err != nil {
		return err
	}
	t.tell("unscheduled_ms", t.sends.lastAfter(t.fault, time.Now(), victim.Name))
	told, _ := t.taken(victim.Name)
	t.tell("told_ms", told)
	t.tell("load_ms", replaced.load)
	t.tell("copies_beyond_ms", max(0, replaced.after-replaced.load))
	t.measured = true
	if err := victim.Start(); err != nil {
		return err
	}
	return t.awaitWhole(ctx)
}

// awaitBusy returns as soon as a worker has something in hand.
func awaitBusy(ctx context.Context, w *devcluster.Process) error {
	for began := time.Now(); time.Since(began) < noticed; {
		m, err := bench.Metrics(ctx, w)
		if err != nil {
			return err
		}
		for name, n := range m {
			if n > 0 && strings.HasPrefix(name, "orrery_worker_queued_actions") {
				return nil
			}
		}
		if err := bench.Pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s never has work in hand", w.Name)
}

// replacement is a new copy: how long after the fault, and how long its load
// took.
type replacement struct{ after, load time.Duration }

// awaitCopies waits until the spare model has all its copies without those of a
// worker.
func (t *trial) awaitCopies(ctx context.Context, without string) (r replacement, err error) {
	before, err := t.holders(ctx)
	if err != nil {
		return r, err
	}
	for time.Since(t.fault) < copiesTimeout {
		m, err := t.model(ctx, spareModel)
		if err != nil {
			return r, err
		}
		n := 0
		for _, c := range m.Copies {
			if c.Worker != without && c.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
				n++
				if !slices.Contains(before, c.Worker) {
					r.load = time.Duration(c.LoadNs)
				}
			}
		}
		if n >= spareCopies {
			r.after = time.Since(t.fault)
			return r, nil
		}
		if err := bench.Pause(ctx, 20*time.Millisecond); err != nil {
			return r, err
		}
	}
	t.note("the copy on %s was not replaced within %v", without, copiesTimeout)
	return replacement{after: copiesTimeout}, nil
}

// freeze stops a worker in its tracks for a while.
func freeze(ctx context.Context, t *trial) error {
	w := t.anyWorker()
	return t.absence(ctx, w.Name, w.Pause, w.Resume)
}

// cut cuts a worker off from the leader, and from nobody else.
func cut(ctx context.Context, t *trial) error {
	w, leader := t.anyWorker().Name, t.now.Leader
	return t.absence(ctx, w,
		func() error { return t.lab.CutBetween(w, leader) }, func() error { return t.lab.HealBetween(w, leader) })
}

// absence takes a worker away for a while and brings it back.
func (t *trial) absence(ctx context.Context, worker string, away, back func() error) error {
	before, err := t.workers(ctx)
	if err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	if err := away(); err != nil {
		return err
	}
	err = t.watchAbsence(ctx, worker)
	returned := time.Now()
	if err := errors.Join(err, back()); err != nil {
		return err
	}
	t.tell("unscheduled_ms", t.sends.lastAfter(t.fault, returned, worker))
	told, _ := t.taken(worker)
	t.tell("told_ms", told)
	t.result.Figures["reconnects"] = float64(t.connected(worker, returned))

	patient, cancel := context.WithTimeout(ctx, backTimeout)
	defer cancel()
	after, err := t.sends.awaitFirst(patient, worker, returned)
	if err != nil {
		after = backTimeout
		t.note("%s got no work within %v of its return", worker, backTimeout)
	}
	t.tell("back_ms", after)
	now, err := t.workers(ctx)
	if err != nil {
		return err
	}
	if now[worker].GetWorker().GetIncarnation() != before[worker].GetWorker().GetIncarnation() {
		t.result.Figures["unregistered"] = 1
	}
	t.measured = true
	return t.awaitWhole(ctx)
}

// watchAbsence looks, while a worker is away, whether the leader notices, and
// whether the registry still knows it in the end.
func (t *trial) watchAbsence(ctx context.Context, worker string) error {
	if err := t.awaitTaken(ctx, noticed, worker); err != nil {
		return err
	}
	if err := t.until(ctx, t.row.away-500*time.Millisecond); err != nil {
		return err
	}
	registered, err := t.workers(ctx)
	if err != nil {
		return err
	}
	t.result.Figures["unregistered"] = 0
	if registered[worker] == nil {
		t.result.Figures["unregistered"] = 1
	}
	return t.until(ctx, t.row.away)
}

// connected is how often the leader says that it has connected to a worker
// between the fault and a moment.
func (t *trial) connected(worker string, before time.Time) (n int) {
	for e := range t.log.Since() {
		if e.Says(bench.WorkerFound) && e.Value("worker") == worker && e.At.Before(before) {
			n++
		}
	}
	return n
}
