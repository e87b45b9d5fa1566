//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	startTimeout = 60 * time.Second
	wholeTimeout = 30 * time.Second

	// slowModel is an ordinary one; fastModel takes batches so large that two
	// workers could do some 60,000 requests/s.
	slowModel = "slow"
	fastModel = "fast"
	modelFile = "models.csv"
	modelRows = "model,input_bytes,output_bytes,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms,b8_ms,b16_ms,b32_ms,b64_ms,b128_ms\n" +
		slowModel + ",64,16,1,1,1,1.2,1.5,2,3,,,\n" +
		fastModel + ",64,16,1,1,2,2,2,2,2,2,3,4\n"
)

// stage is a cluster on loopback, with its data in memory.
type stage struct {
	cluster *devcluster.Cluster
	dir     string
	now     bench.View
}

func openStage(ctx context.Context, o options) (s *stage, err error) {
	s = &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(""))
			s = nil
		}
	}()
	if s.dir, err = bench.MemoryDir("steady"); err != nil {
		return s, err
	}
	if err := os.WriteFile(filepath.Join(s.dir, modelFile), []byte(modelRows), 0o644); err != nil {
		return s, err
	}
	keys := map[string]string{"startup.load_idle": "2s"} // not for ten seconds
	maps.Copy(keys, o.keys)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.cluster, err = devcluster.Start(ctx, devcluster.Options{
		Binary: o.binary, ModelDir: s.dir, Engines: []string{"emulated"}, Dir: s.dir, ControllerKeys: keys,
	})
	if err != nil {
		return s, err
	}
	c, err := client.New(client.Options{Name: "steady", Control: s.cluster.Addresses("control")})
	if err != nil {
		return s, err
	}
	defer c.Close()
	for _, name := range []string{slowModel, fastModel} {
		if _, err := c.LoadModel(ctx, &logpb.LoadModel{Name: name, Source: modelFile + "#" + name}); err != nil {
			return s, fmt.Errorf("load the model %s: %w", name, err)
		}
	}
	s.now, err = bench.AwaitWhole(ctx, s.cluster, wholeTimeout)
	return s, err
}

// close ends all processes and removes all files, but for copies of the logs if
// a folder is given.
func (s *stage) close(logs string) error {
	var failed []error
	if s.cluster != nil {
		failed = append(failed, s.cluster.Stop())
		for _, p := range s.cluster.All() {
			if logs != "" {
				text, err := os.ReadFile(p.Log)
				failed = append(failed, err, os.WriteFile(filepath.Join(logs, p.Name+".log"), text, 0o644))
			}
		}
	}
	if s.dir != "" {
		failed = append(failed, os.RemoveAll(s.dir))
	}
	return errors.Join(failed...)
}

// entries are our client's, one that begins at each controller.
func (s *stage) entries() (all []bench.Entry, err error) {
	for i := range s.cluster.Controllers {
		e, err := bench.Streamed(append(slices.Clone(s.cluster.Controllers[i:]), s.cluster.Controllers[:i]...)...)
		if err != nil {
			for _, e := range all {
				_ = e.Close()
			}
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// usage is the time that processors have spent on each part.
type usage struct{ leader, followers, workers, self time.Duration }

func (s *stage) usage() (u usage) {
	for _, p := range s.cluster.Controllers {
		if spent := bench.ProcessTime(p.PID()); p.Name == s.now.Leader {
			u.leader += spent
		} else {
			u.followers += spent
		}
	}
	for _, p := range s.cluster.Workers {
		u.workers += bench.ProcessTime(p.PID())
	}
	u.self = bench.ProcessTime(os.Getpid())
	return u
}

// over is how many processors each part has kept busy in an interval, of which
// a share, of 100, was left to this machine and not idle.
func (u usage) over(d time.Duration, before usage, used float64) cores {
	share := func(now, then time.Duration) float64 { return float64(now-then) / float64(d) }
	c := cores{
		leader: share(u.leader, before.leader), followers: share(u.followers, before.followers),
		workers: share(u.workers, before.workers), self: share(u.self, before.self),
	}
	all := used / 100 * float64(runtime.NumCPU())
	c.others = max(0, all-c.leader-c.followers-c.workers-c.self)
	return c
}

// cores are processors kept busy; others by all that is not ours, among it the
// system's own threads.
type cores struct{ leader, followers, workers, self, others float64 }

// coresTitle names what String shows.
const coresTitle = "CPUs: leader / followers / workers / this program / all else"

func (c cores) String() string {
	return fmt.Sprintf("%.2f / %.2f / %.2f / %.2f / %.2f", c.leader, c.followers, c.workers, c.self, c.others)
}
