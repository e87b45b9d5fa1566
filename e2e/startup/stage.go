//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

const (
	startTimeout = 60 * time.Second
	wholeTimeout = 2 * time.Minute

	// The times of each model are those that were published for resnet18_v2 on a
	// V100 (models/profiles.csv), and its weights weigh what that model's do.
	titles = "model,input_bytes,output_bytes,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms,b8_ms,b16_ms\n"
	cells  = ",64,16,46.8,3.848,1.632,2.508,3.617,6.628,11.855\n"
	// hostMemory holds a thousand of them, and none of it is really used.
	hostMemory = "64GiB"
)

// stage is a cluster on loopback, with its data in memory.
type stage struct {
	cluster *devcluster.Cluster
	client  *client.Client
	options options
	dir     string
	// leader is who led when that was last looked at.
	leader *devcluster.Process
	// log is the leader's, from the first load request on.
	log bench.Mark
}

func openStage(ctx context.Context, o options) (s *stage, err error) {
	s = &stage{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(o.logs))
			s = nil
		}
	}()
	if s.dir, err = bench.MemoryDir("startup"); err != nil {
		return s, err
	}
	tables := filepath.Join(s.dir, "models")
	if err := os.Mkdir(tables, 0o755); err != nil {
		return s, err
	}
	// A table each: reading a table of all models for each load of each model
	// would be most of the work. The names make the rows, and so the digests,
	// different.
	for i := range o.models {
		if err := os.WriteFile(filepath.Join(tables, name(i)+".csv"), []byte(titles+name(i)+cells), 0o644); err != nil {
			return s, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.cluster, err = devcluster.Start(ctx, devcluster.Options{
		Binary: o.binary, ModelDir: tables, Engines: []string{"emulated"}, Dir: s.dir, Workers: 1, PerProcess: o.workers,
		ControllerKeys: map[string]string{"startup.load_idle": o.loadIdle.String()},
		WorkerKeys:     map[string]string{"host_memory": hostMemory},
	})
	if err != nil {
		return s, err
	}
	s.client, err = client.New(client.Options{Name: "startup", Control: s.cluster.Addresses("control")})
	if err != nil {
		return s, err
	}
	return s, s.findLeader(ctx)
}

func name(model int) string   { return fmt.Sprintf("m%04d", model) }
func source(model int) string { return name(model) + ".csv#" + name(model) }

// findLeader waits until somebody leads, and marks the end of its log.
func (s *stage) findLeader(ctx context.Context) error {
	for {
		for _, p := range s.cluster.Controllers {
			m, err := bench.Metrics(ctx, p)
			if err != nil || m["orrery_leader"] != 1 {
				continue
			}
			marks, err := bench.MarkLogs([]*devcluster.Process{p})
			if err != nil {
				return err
			}
			s.leader, s.log = p, marks[0]
			return nil
		}
		if err := bench.Pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("nobody leads: %w", err)
		}
	}
}

// entries is the last index of the log that the leader has applied.
func (s *stage) entries(ctx context.Context) (int, error) {
	m, err := bench.Metrics(ctx, s.leader)
	return int(m["orrery_raft_applied_index"]), err
}

// awaitEvent waits until the leader's log tells something, and returns when that
// was.
func (s *stage) awaitEvent(ctx context.Context, words ...string) (time.Time, error) {
	for {
		for e := range s.log.Since() {
			if says(e, words) {
				return e.At, nil
			}
		}
		if err := bench.Pause(ctx, 100*time.Millisecond); err != nil {
			return time.Time{}, fmt.Errorf("%s does not say %q: %w; the end of its log:\n%s", s.leader.Name, words, err, s.leader.LogTail(10))
		}
	}
}

func says(e bench.Event, words []string) bool {
	for _, w := range words {
		if !strings.Contains(string(e.Text), w) {
			return false
		}
	}
	return true
}

// close ends all processes and removes all files, but for copies of the logs if
// a folder is given.
func (s *stage) close(logs string) error {
	var failed []error
	if s.client != nil {
		failed = append(failed, s.client.Close())
	}
	if s.cluster != nil {
		failed = append(failed, s.cluster.Stop())
		if logs != "" {
			failed = append(failed, bench.KeepLogs(s.cluster, logs, "startup"))
		}
	}
	if s.dir != "" {
		failed = append(failed, os.RemoveAll(s.dir))
	}
	return errors.Join(failed...)
}
