//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/netlab"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// How long a cluster may take for what is not measured.
const (
	startTimeout = 90 * time.Second
	wholeTimeout = 30 * time.Second
	// trustTimeout is how long a worker may stay in quarantine, or on trial, from
	// what an earlier fault has done to it.
	trustTimeout = 90 * time.Second
	callTimeout  = 5 * time.Second
)

// The models. All workers hold the main one, sparedCopies of them the spare; the
// killer ends the process that runs it.
const (
	mainModel, spareModel, killerModel = "bench", "spare", "killer"
	spareCopies                        = 2

	modelFile = "models.csv"
	modelRows = "model,input_bytes,output_bytes,weights_MB,weights_load_ms,disk_load_ms,crash_on,b1_ms,b2_ms,b4_ms,b8_ms\n" +
		mainModel + ",64,16,1,1,0,,10,13,18,30\n" +
		spareModel + ",64,16,1,1,300,,10,13,18,30\n" +
		killerModel + ",64,16,1,1,0,run,10,13,18,30\n"
)

// What the workers can do: batches of 8 in 30 ms are 267 requests/s each, 1,067
// together. The load is 60 % of that.
const (
	workers     = 4
	ceiling     = workers * 8 / 0.030
	defaultRate = 640
)

// stage is a cluster that serves.
type stage struct {
	lab     *netlab.Lab // nil: on loopback
	cluster *devcluster.Cluster
	control *client.Client
	dir     string
	now     bench.View
	// hit are the workers that faults have hit, by the number of the last.
	hit  map[string]int
	hits int
}

// openStage starts a cluster in the empty folder dir, which it makes and
// removes.
func openStage(ctx context.Context, o options, r row, dir string) (s *stage, err error) {
	s = &stage{dir: dir, hit: map[string]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return s, err
	}
	if err := os.WriteFile(filepath.Join(dir, modelFile), []byte(modelRows), 0o644); err != nil {
		return s, err
	}
	cluster := devcluster.Options{
		Binary: o.Binary, ModelDir: dir, Engines: []string{"emulated"}, Dir: dir, Workers: workers,
		ControllerKeys: map[string]string{"startup.load_idle": "1s"},
		WorkerKeys:     map[string]string{"engines.emulated.allow_commands": "true"},
	}
	maps.Copy(cluster.ControllerKeys, o.Keys)
	if r.witnessed {
		cluster.WorkerKeys["log.level"] = "debug"
	}
	if r.crowd {
		cluster.Workers, cluster.PerProcess, cluster.WorkersLater = 2, o.perHost, true
	}
	if !o.loopback {
		if s.lab, err = netlab.New("c1", "c2", "c3", "w1", "w2", "w3", "w4"); err != nil {
			return s, err
		}
		cluster.Host = s.lab.Place
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if s.cluster, err = devcluster.Start(ctx, cluster); err != nil {
		return s, err
	}
	if s.control, err = client.New(client.Options{Name: "workers", Control: s.cluster.Addresses("control")}); err != nil {
		return s, err
	}
	if r.crowd {
		return s, nil
	}
	if err := s.load(ctx, mainModel, 0); err != nil {
		return s, err
	}
	if err := s.load(ctx, spareModel, spareCopies); err != nil {
		return s, err
	}
	return s, s.awaitWhole(ctx)
}

func (s *stage) load(ctx context.Context, model string, copies uint32) error {
	if _, err := s.control.LoadModel(ctx, &logpb.LoadModel{Name: model, Source: modelFile + "#" + model, Copies: copies}); err != nil {
		return fmt.Errorf("load model %s: %w", model, err)
	}
	return nil
}

// close ends all processes and removes all files.
func (s *stage) close() error {
	var failed []error
	if s.lab != nil {
		failed = append(failed, s.lab.HealAll())
	}
	if s.control != nil {
		failed = append(failed, s.control.Close())
	}
	if s.cluster != nil {
		failed = append(failed, s.cluster.Stop())
	}
	if s.lab != nil {
		failed = append(failed, s.lab.Close())
	}
	return errors.Join(append(failed, os.RemoveAll(s.dir))...)
}

// awaitWhole waits until the cluster is as it should be, and sets s.now if it is.
func (s *stage) awaitWhole(ctx context.Context) error {
	v, err := bench.AwaitWhole(ctx, s.cluster, wholeTimeout)
	if err == nil {
		s.now = v
	}
	return err
}

// awaitTrust waits until no worker is held to what an earlier fault has done to
// it.
func (s *stage) awaitTrust(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	for {
		why := ""
		workers, err := s.workers(ctx)
		for name, w := range workers {
			if w.Live.GetQuarantinedNs() > 0 || w.Live.GetOnTrial() || w.Worker.GetStatus() != logpb.WorkerStatus_WORKER_STATUS_READY {
				why = fmt.Sprintf("worker %s: %v, on trial %v, %v", name, w.Worker.GetStatus(), w.Live.GetOnTrial(), w.Live.GetQuarantineReason())
			}
		}
		if err == nil && why == "" {
			return nil
		}
		if bench.Pause(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("not all workers are trusted within %v: %s %w", trustTimeout, why, err)
		}
	}
}

// workers are the registered ones by name.
func (s *stage) workers(ctx context.Context) (map[string]*controlpb.WorkerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.control.ListWorkers(ctx, &controlpb.ListWorkersRequest{})
	all := map[string]*controlpb.WorkerInfo{}
	for _, w := range answer.GetWorkers() {
		all[w.Worker.GetName()] = w
	}
	return all, err
}

// model is the state of a model.
func (s *stage) model(ctx context.Context, name string) (*controlpb.ModelStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.control.ListModels(ctx, &controlpb.ListModelsRequest{Name: name})
	if err != nil {
		return nil, err
	}
	if len(answer.Models) != 1 {
		return nil, fmt.Errorf("there are %d models %s", len(answer.Models), name)
	}
	return answer.Models[0], nil
}

// holders are the workers that have loaded the spare model.
func (s *stage) holders(ctx context.Context) (names []string, err error) {
	m, err := s.model(ctx, spareModel)
	for _, c := range m.GetCopies() {
		if c.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
			names = append(names, c.Worker)
		}
	}
	return names, err
}

// next is the process, of those with some names, that no fault has hit for the
// longest time, and notes that one hits it now: a worker that fails four times
// in a minute would be put into quarantine.
func (s *stage) next(names ...string) *devcluster.Process {
	least := s.cluster.Worker(names[0])
	for _, name := range names[1:] {
		if s.hit[name] < s.hit[least.Name] {
			least = s.cluster.Worker(name)
		}
	}
	s.hits++
	s.hit[least.Name] = s.hits
	return least
}

// anyWorker is the next of all.
func (s *stage) anyWorker() *devcluster.Process {
	var names []string
	for _, w := range s.cluster.Workers {
		names = append(names, w.Name)
	}
	return s.next(names...)
}

// leader is the process that led when the cluster was last seen whole.
func (s *stage) leader() *devcluster.Process { return s.cluster.Controller(s.now.Leader) }

// progress is the last log index that the leader has applied.
func (s *stage) progress(ctx context.Context) (float64, error) {
	m, err := bench.Metrics(ctx, s.leader())
	return m["orrery_raft_applied_index"], err
}
