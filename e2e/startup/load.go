//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// loading is what it took until all workers had all models.
type loading struct {
	took    time.Duration
	entries int
	// calls is how long one load request was at most unanswered.
	calls time.Duration
	// leaderCPU and workersCPU are the processors' time that they used.
	leaderCPU, workersCPU time.Duration
}

// profiling is what it took from then on until the cluster served.
type profiling struct {
	// idle is the wait for further load requests; took the measuring.
	idle, took time.Duration
	entries    int
	leaderCPU  time.Duration
}

// sizes are bytes.
type sizes struct{ log, snapshot int64 }

// load has all models loaded by all workers.
func (s *stage) load(ctx context.Context) (l loading, err error) {
	before, err := s.entries(ctx)
	if err != nil {
		return l, err
	}
	l.leaderCPU, l.workersCPU = bench.ProcessTime(s.leader.PID()), bench.ProcessTime(s.cluster.Workers[0].PID())
	began := time.Now()
	todo := make(chan int)
	calls, failed := make([]time.Duration, s.options.models), make([]error, s.options.models)
	var wait sync.WaitGroup
	for range s.options.parallel {
		wait.Go(func() {
			for model := range todo {
				start := time.Now()
				failed[model] = s.loadOne(ctx, model)
				calls[model] = time.Since(start)
			}
		})
	}
	for model := range s.options.models {
		todo <- model
	}
	close(todo)
	wait.Wait()
	l.took, l.calls = time.Since(began), slices.Max(calls)
	if err := errors.Join(failed...); err != nil {
		return l, err
	}
	l.leaderCPU, l.workersCPU = bench.ProcessTime(s.leader.PID())-l.leaderCPU, bench.ProcessTime(s.cluster.Workers[0].PID())-l.workersCPU
	after, err := s.entries(ctx)
	l.entries = after - before
	return l, err
}

// loadOne is one load request: it is answered when all workers have loaded the
// model.
func (s *stage) loadOne(ctx context.Context, model int) error {
	answer, err := s.client.LoadModel(ctx, &logpb.LoadModel{Name: name(model), Source: source(model)})
	if err != nil {
		return fmt.Errorf("load model %s: %w", name(model), err)
	}
	loaded := 0
	for _, m := range answer {
		for _, c := range m.Copies {
			if c.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
				loaded++
			}
		}
	}
	if loaded != s.options.workers {
		return fmt.Errorf("model %s is loaded by %d of %d workers", name(model), loaded, s.options.workers)
	}
	return nil
}

// profile waits until all models are measured and the cluster serves.
func (s *stage) profile(ctx context.Context) (p profiling, err error) {
	loaded := time.Now()
	before, err := s.entries(ctx)
	if err != nil {
		return p, err
	}
	p.leaderCPU = bench.ProcessTime(s.leader.PID())
	began, err := s.awaitEvent(ctx, "startup: ", "phase=profiling")
	if err != nil {
		return p, err
	}
	ended, err := s.awaitEvent(ctx, "startup: ", "phase=serving")
	if err != nil {
		return p, err
	}
	p.leaderCPU = bench.ProcessTime(s.leader.PID()) - p.leaderCPU
	p.idle, p.took = max(0, began.Sub(loaded)), ended.Sub(began)
	after, err := s.entries(ctx)
	p.entries = after - before
	if _, whole := bench.AwaitWhole(ctx, s.cluster, wholeTimeout); whole != nil {
		return p, whole
	}
	return p, err
}

// rest leaves the cluster alone, and returns the processors' time that the leader
// used meanwhile, as a share, of 100, of one processor.
func (s *stage) rest(ctx context.Context) (float64, error) {
	began, before := time.Now(), bench.ProcessTime(s.leader.PID())
	err := bench.Pause(ctx, s.options.rest)
	return 100 * float64(bench.ProcessTime(s.leader.PID())-before) / float64(time.Since(began)), err
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// weigh looks at what the leader has on disk, and at a snapshot as an operator
// saves it.
func (s *stage) weigh(ctx context.Context) (w sizes, err error) {
	err = filepath.WalkDir(filepath.Join(s.dir, s.leader.Name, "data"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			w.log += info.Size()
		}
		return err
	})
	var snapshot counter
	err = errors.Join(err, s.client.SaveSnapshot(ctx, &controlpb.SaveSnapshotRequest{}, &snapshot))
	w.snapshot = int64(snapshot)
	return w, err
}
