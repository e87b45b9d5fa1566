//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/e2e/failover/faultfs"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/netlab"
	"github.com/orrery-project/orrery/proto/logpb"
)

// How long a cluster may take for what is not measured.
const (
	startTimeout = 60 * time.Second
	wholeTimeout = 30 * time.Second
	callTimeout  = 3 * time.Second
)

// stage is a cluster that serves, on hosts of its own.
type stage struct {
	lab     *netlab.Lab
	cluster *devcluster.Cluster
	dir     string
	// disks are the data file systems of the controllers by name, if they can
	// fail.
	disks map[string]*faultfs.FS
	now   bench.View
}

// openStage starts a cluster in the empty folder dir, which it makes and
// removes.
func openStage(ctx context.Context, o options, r row, v variant, dir string) (s *stage, err error) {
	s = &stage{dir: dir, disks: map[string]*faultfs.FS{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return s, err
	}
	if err := os.WriteFile(filepath.Join(dir, "models.csv"), []byte(modelTable), 0o644); err != nil {
		return s, err
	}
	if s.lab, err = netlab.New("c1", "c2", "c3", "w1", "w2"); err != nil {
		return s, err
	}
	keys := map[string]string{"startup.load_idle": "500ms"}
	for k, value := range v.keys {
		keys[k] = value
	}
	options := devcluster.Options{
		Binary: o.Binary, ModelDir: dir, Engines: []string{"emulated"}, Dir: dir, Host: s.lab.Place, ControllerKeys: keys,
	}
	if r.disks {
		for _, name := range []string{"c1", "c2", "c3"} {
			if err := s.addDisk(name); err != nil {
				return s, err
			}
		}
		options.DataDir = s.disk
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if s.cluster, err = devcluster.Start(ctx, options); err != nil {
		return s, err
	}
	if err := s.loadModel(ctx); err != nil {
		return s, err
	}
	return s, s.awaitWhole(ctx)
}

// disk is where a controller's disk is mounted.
func (s *stage) disk(name string) string { return filepath.Join(s.dir, "disks", name) }

func (s *stage) addDisk(name string) error {
	behind := filepath.Join(s.dir, "behind", name)
	if err := errors.Join(os.MkdirAll(behind, 0o755), os.MkdirAll(s.disk(name), 0o755)); err != nil {
		return err
	}
	f, err := faultfs.Mount(behind, s.disk(name))
	if err == nil {
		s.disks[name] = f
	}
	return err
}

func (s *stage) loadModel(ctx context.Context) error {
	c, err := client.New(client.Options{Name: "failover", Control: s.cluster.Addresses("control")})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.LoadModel(ctx, &logpb.LoadModel{Name: modelName, Source: "models.csv#" + modelName}); err != nil {
		return fmt.Errorf("load the model: %w", err)
	}
	return nil
}

// close ends all processes and removes all files.
func (s *stage) close() error {
	var failed []error
	if s.lab != nil {
		failed = append(failed, s.lab.HealAll())
	}
	for _, d := range s.disks {
		d.Heal()
	}
	if s.cluster != nil {
		failed = append(failed, s.cluster.Stop())
	}
	for _, d := range s.disks {
		failed = append(failed, d.Unmount())
	}
	if s.lab != nil {
		failed = append(failed, s.lab.Close())
	}
	return errors.Join(append(failed, os.RemoveAll(s.dir))...)
}
