//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/e2e/failover/faultfs"
)

// row is a line of the table: a fault, and what it may cost.
type row struct {
	name, title string
	// deadline is that of each inference request.
	deadline time.Duration
	// bar is what the p50 of the time without an acknowledged write may be.
	bar time.Duration
	// share is the least share of requests that must be answered; 1: all.
	share float64
	// degraded says that answers during the fault must be marked so.
	degraded bool
	// disks says that the controllers' data is on file systems that can fail.
	disks bool
	// away is how many controllers, the leader among them, the fault takes away;
	// 0 means 1.
	away int
	// fromBegin says that the time without an acknowledged write counts from the
	// course's begin; or else from the last one before that.
	fromBegin bool
	// everywhere says that no controller survives untouched: then clients know
	// all of them.
	everywhere bool
	// patience is how long a writer waits for one acknowledgement.
	patience time.Duration
	// course makes the fault and undoes it, while the load runs.
	course func(context.Context, *trial) error
}

// writeLimit is the product's raft.leader_write_limit, its default.
const writeLimit = 2 * time.Second

func rows() []row {
	const patience = 250 * time.Millisecond
	disk := func(name, title string, break_ func(*faultfs.FS)) row {
		return row{
			name: name, title: title, deadline: 10 * time.Second, bar: writeLimit + 2*time.Second, share: 1, disks: true,
			patience: patience, course: func(ctx context.Context, t *trial) error { return diskFault(ctx, t, break_) },
		}
	}
	return []row{
		{
			name: "kill", title: "SIGKILL leader", deadline: 3 * time.Second, bar: 400 * time.Millisecond, share: 1, patience: patience,
			course: single(func(t *trial) error { return t.leader.Kill() }, func(t *trial) error { return t.leader.Start() }),
		},
		{
			name: "vanish", title: "leader's host vanishes", deadline: 5 * time.Second, bar: 1300 * time.Millisecond, share: 1, patience: patience,
			course: single(func(t *trial) error { return t.lab.Cut(t.leader.Name) }, func(t *trial) error { return t.lab.Heal(t.leader.Name) }),
		},
		{
			name: "freeze", title: "SIGSTOP leader", deadline: 5 * time.Second, bar: 1300 * time.Millisecond, share: 1, patience: patience,
			course: single(func(t *trial) error { return t.leader.Pause() }, func(t *trial) error { return t.leader.Resume() }),
		},
		{
			name: "term", title: "SIGTERM leader", deadline: time.Second, bar: 100 * time.Millisecond, share: 1, patience: patience,
			course: single(func(t *trial) error { return t.leader.Signal(syscall.SIGTERM) }, func(t *trial) error { return t.leader.Restart() }),
		},
		{
			name: "rolling", title: "rolling restart of all three", deadline: time.Second, bar: 100 * time.Millisecond, share: 1,
			everywhere: true, patience: patience, course: rolling,
		},
		{
			name: "quorum", title: "two of three killed, 10 s, then back", deadline: 3 * time.Second, bar: 1500 * time.Millisecond,
			share: 0.999, degraded: true, away: 2, fromBegin: true, patience: time.Second, course: quorum,
		},
		disk("hang", "leader's log hangs", func(f *faultfs.FS) { f.Hang() }),
		disk("eio", "leader's log fails (EIO)", func(f *faultfs.FS) { f.Fail(syscall.EIO) }),
		disk("full", "leader's disk is full (ENOSPC)", func(f *faultfs.FS) { f.Fail(syscall.ENOSPC) }),
	}
}

func rowNames() (all []string) {
	for _, r := range rows() {
		all = append(all, r.name)
	}
	return all
}

// single is a fault that takes the leadership away once.
func single(inject, heal func(*trial) error) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		end, err := t.begin("")
		if err != nil {
			return err
		}
		if err := inject(t); err != nil {
			return err
		}
		if err := t.awaitSuccession(ctx); err != nil {
			return err
		}
		end()
		if err := heal(t); err != nil {
			return err
		}
		return t.awaitWhole(ctx)
	}
}

// rolling restarts one controller after the other, in a random order, each once
// the cluster is whole again.
func rolling(ctx context.Context, t *trial) error {
	term := t.now.Term
	order := slices.Clone(t.cluster.Controllers)
	t.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, p := range order {
		name := p.Name
		if t.now.Leader == p.Name {
			name += " (leader)"
		}
		end, err := t.begin(name)
		if err != nil {
			return err
		}
		if err := p.Restart(); err != nil {
			return err
		}
		if err := t.awaitWhole(ctx); err != nil {
			return err
		}
		end()
	}
	if t.now.Term == term {
		return fmt.Errorf("%w: nobody else has led meanwhile", errNoBite)
	}
	return nil
}

const (
	// quorumAway is how long there is no quorum.
	quorumAway = 10 * time.Second
	// quorumSettled is when control calls must be refused quickly: after
	// control.no_leader_timeout, and what it takes to find out.
	quorumSettled = 3 * time.Second
)

// quorum kills the leader and one follower, and brings both back. What counts
// begins when their processes are started: they need time to come up, too.
func quorum(ctx context.Context, t *trial) error {
	follower := t.gone[1]
	lost := time.Now()
	if err := errors.Join(t.leader.Kill(), follower.Kill()); err != nil {
		return err
	}
	if err := bench.Pause(ctx, quorumAway); err != nil {
		return err
	}
	t.result.refusals(t.writers.Between(lost.Add(quorumSettled), time.Now()))
	end, err := t.begin("")
	if err != nil {
		return err
	}
	started := time.Now()
	if err := errors.Join(follower.Start(), t.leader.Start()); err != nil {
		return err
	}
	listening, err := awaitListening(ctx, follower, t.leader)
	if err != nil {
		return err
	}
	t.result.ListeningMS = bench.MS(listening.Sub(started))
	if err := t.awaitSuccession(ctx); err != nil {
		return err
	}
	end()
	return t.awaitWhole(ctx)
}

// diskFault breaks the disk of the leader, whose process then has to end by
// itself; it is started again on a disk that works.
func diskFault(ctx context.Context, t *trial, break_ func(*faultfs.FS)) error {
	disk := t.disks[t.leader.Name]
	defer disk.Heal()
	end, err := t.begin("")
	if err != nil {
		return err
	}
	break_(disk)
	if err := t.awaitSuccession(ctx); err != nil {
		return err
	}
	end()
	// With a write under way no process can end before the disk has answered.
	ended := awaitExit(ctx, t.leader.Exited(), 2*time.Second)
	disk.Heal()
	if !ended && !awaitExit(ctx, t.leader.Exited(), 5*time.Second) {
		t.note("%s did not end by itself", t.leader.Name)
	} else {
		t.result.Exit = exitOf(t.leader.Wait())
	}
	if err := t.leader.Restart(); err != nil {
		return err
	}
	return t.awaitWhole(ctx)
}

func awaitExit(ctx context.Context, exited <-chan struct{}, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-exited:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func exitOf(err error) string {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.String()
	}
	if err != nil {
		return err.Error()
	}
	return "exit status 0"
}
