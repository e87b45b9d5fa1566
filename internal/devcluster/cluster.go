// Package devcluster runs a throw-away cluster of real processes, on loopback or
// at addresses that are given: for trying Orrery out, for its demonstration, and
// for tests from outside.
//
// The processes die with the one that started them, and Stop leaves nothing
// behind.
package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// attempts is how often a start is tried with other ports. A port is free when
// it is chosen, and may be taken when it is used.
const attempts = 3

// Options of a cluster.
type Options struct {
	// Binary is the path of the orrery executable.
	Binary string
	// Controllers and Workers are how many of each; 0 means 3 and 2.
	Controllers, Workers int
	// PerProcess is how many workers each of the workers' processes runs; 0 means
	// 1. Above that those of w1 are called w1-1, w1-2 and so on.
	PerProcess int
	// WorkersLater leaves the workers to be started by Process.Start: Start waits
	// for the controllers alone.
	WorkersLater bool
	// ModelDir is the folder that the workers load models from.
	ModelDir string
	// Engines are those of each worker's one device. Default gomlx.
	Engines []string
	// ControllerKeys and WorkerKeys set further keys of all configurations of
	// a kind: startup.load_idle to 2s. A value is YAML.
	ControllerKeys, WorkerKeys map[string]string
	// Host, if not nil, says where the process of that name is to be: the IP
	// address of its listeners, and the words to put before its command line so
	// that it is started there. They must run the command in their own process.
	// It is asked once for each process. An address that is not a process's alone
	// will not do, since all use the same ports.
	Host func(name string) (address string, wrap []string)
	// DataDir, if not nil, says where the controller of that name keeps its
	// data. Default: in a folder below Dir.
	DataDir func(name string) string
	// Dir holds configurations, data and logs. Empty: a fresh folder, in memory
	// where the system has such, that Stop removes. A given one is left alone.
	Dir string
	// Log is told what is done. Nil: nobody.
	Log io.Writer
}

func (o Options) withDefaults() Options {
	if o.Controllers == 0 {
		o.Controllers = 3
	}
	if o.Workers == 0 {
		o.Workers = 2
	}
	if o.PerProcess == 0 {
		o.PerProcess = 1
	}
	if len(o.Engines) == 0 {
		o.Engines = []string{"gomlx"}
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	return o
}

// Cluster is a running cluster.
type Cluster struct {
	// Controllers are c1, c2, …; Workers are w1, w2, …
	Controllers, Workers []*Process
	options              Options
	// temporary is the folder to remove in the end, or empty.
	temporary string
}

// Start starts all processes and waits until the cluster is ready: every
// controller knows the leader and is a voter, and every worker has a session.
// It gives up, with the end of the log of what is at fault, when a process
// exits or ctx ends first. Stop must be called on what it returns.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{options: o.withDefaults()}
	if o.Dir == "" {
		dir, err := os.MkdirTemp(memoryDir(), "orrery-")
		if err != nil {
			return nil, fmt.Errorf("make a folder for the cluster: %w", err)
		}
		c.temporary, c.options.Dir = dir, dir
	}
	fresh := c.missingData()
	for attempt := 1; ; attempt++ {
		err := c.start(ctx)
		if err == nil {
			return c, nil
		}
		clash := c.portClash()
		stopped := c.stopProcesses()
		if !clash || attempt == attempts {
			return nil, errors.Join(err, stopped, c.removeDir())
		}
		// Controllers may have founded a cluster at the ports that are given up.
		for _, dir := range fresh {
			if err := os.RemoveAll(dir); err != nil {
				return nil, errors.Join(err, stopped, c.removeDir())
			}
		}
		fmt.Fprintf(c.options.Log, "a port was taken meanwhile; starting again with others\n")
	}
}

// missingData are the controllers' data folders that are not there yet.
func (c *Cluster) missingData() (missing []string) {
	for i := range c.options.Controllers {
		dir := dataDir(c.options, fmt.Sprintf("c%d", i+1))
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			missing = append(missing, dir)
		}
	}
	return missing
}

// memoryDir is a folder in memory, or the system's default for temporary ones.
func memoryDir() string {
	const shm = "/dev/shm"
	if info, err := os.Stat(shm); err == nil && info.IsDir() {
		return shm
	}
	return ""
}

// start makes one attempt.
func (c *Cluster) start(ctx context.Context) error {
	c.Controllers, c.Workers = nil, nil
	members, err := plan(c.options)
	if err != nil {
		return err
	}
	for _, m := range members {
		p := newProcess(c.options, m)
		if err := os.MkdirAll(filepath.Join(c.options.Dir, m.name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p.Config, []byte(m.config.String()), 0o644); err != nil {
			return err
		}
		if m.kind == Controller {
			c.Controllers = append(c.Controllers, p)
		} else {
			c.Workers = append(c.Workers, p)
		}
	}
	some := c.All()
	if c.options.WorkersLater {
		some = c.Controllers
	}
	for _, p := range some {
		if err := p.Start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// All are the controllers and the workers.
func (c *Cluster) All() []*Process {
	return append(append([]*Process{}, c.Controllers...), c.Workers...)
}

// Dir is the folder of configurations, data and logs.
func (c *Cluster) Dir() string { return c.options.Dir }

// Addresses are those of one listener of all controllers, in their order.
func (c *Cluster) Addresses(listener string) []string {
	var all []string
	for _, p := range c.Controllers {
		all = append(all, p.Addresses[listener])
	}
	return all
}

// Controller is the controller of that name, or nil.
func (c *Cluster) Controller(name string) *Process { return named(c.Controllers, name) }

// Worker is the process of that name that runs workers, or nil.
func (c *Cluster) Worker(name string) *Process { return named(c.Workers, name) }

func named(some []*Process, name string) *Process {
	for _, p := range some {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Stop ends all processes and removes the cluster's folder, unless that was
// given. It fails when a process had to be killed.
func (c *Cluster) Stop() error {
	return errors.Join(c.stopProcesses(), c.removeDir())
}

func (c *Cluster) removeDir() error {
	if c.temporary == "" {
		return nil
	}
	return os.RemoveAll(c.temporary)
}

func (c *Cluster) stopProcesses() error {
	all := c.All()
	failed := make([]error, len(all))
	var wait sync.WaitGroup
	for i, p := range all {
		wait.Go(func() { failed[i] = p.Stop() })
	}
	wait.Wait()
	return errors.Join(failed...)
}

// portClash says whether a process has exited because a port was taken.
func (c *Cluster) portClash() bool {
	for _, p := range c.All() {
		if p.hasExited() && strings.Contains(p.LogTail(20), "address already in use") {
			return true
		}
	}
	return false
}

// stopPatience is how long a process may take to end by itself.
const stopPatience = 5 * time.Second
