package raftnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// cluster is a set of replicas on a network in memory, with real files.
type cluster struct {
	t        *testing.T
	net      *memNet
	replicas map[string]*replica
	adjust   func(*Options) // applied to the options of every start
}

type replica struct {
	*Node
	name   string
	dir    string
	fsm    *journal
	disk   *flakyDisk
	faults chan error
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, net: newMemNet(), replicas: map[string]*replica{}, adjust: func(*Options) {}}
	t.Cleanup(func() {
		for _, r := range c.replicas {
			if err := r.Close(); err != nil {
				t.Errorf("close %s: %v", r.name, err)
			}
		}
	})
	return c
}

// formed returns a cluster of voters, bootstrapped by the first of them.
func formed(t *testing.T, names ...string) *cluster {
	t.Helper()
	c := newCluster(t)
	c.form(names...)
	return c
}

func (c *cluster) form(names ...string) {
	c.t.Helper()
	var servers []Server
	for _, name := range names {
		r := c.start(name)
		servers = append(servers, Server{ID: r.ID(), Address: r.Address(), Voter: true})
	}
	if err := c.replicas[names[0]].Bootstrap(servers); err != nil {
		c.t.Fatal(err)
	}
}

// start starts a replica; one that ran before keeps its directory.
func (c *cluster) start(name string) *replica {
	c.t.Helper()
	r := &replica{name: name, fsm: &journal{}, disk: &flakyDisk{}, faults: make(chan error, 10)}
	if former := c.replicas[name]; former != nil {
		r.dir = former.dir
	} else {
		r.dir = c.t.TempDir()
	}
	node, err := Open(c.options(r))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Node = node
	c.replicas[name] = r
	return r
}

func (c *cluster) options(r *replica) Options {
	opts := Options{
		Name:    r.name,
		Dir:     r.dir,
		Stream:  c.net.listen(r.name + ":8012"),
		FSM:     r.fsm,
		Logger:  hclog.New(&hclog.LoggerOptions{Name: r.name, Output: c.t.Output(), Level: hclog.Info}),
		OnFault: func(err error) { r.faults <- err },
		wrapDisk: func(d disk) disk {
			r.disk.disk = d
			return r.disk
		},
	}
	c.adjust(&opts)
	return opts
}

// leader returns the replica that leads, once it has committed in its term.
func (c *cluster) leader() *replica {
	c.t.Helper()
	var leader *replica
	eventually(c.t, "a leader", func() bool {
		for _, r := range c.replicas {
			if _, ok := r.leading(); ok && r.Barrier(within(c.t, time.Second)) == nil {
				leader = r
				return true
			}
		}
		return false
	})
	return leader
}

// others returns all replicas but one, in the order of their names.
func (c *cluster) others(than *replica) []*replica {
	var others []*replica
	for _, r := range c.replicas {
		if r != than {
			others = append(others, r)
		}
	}
	slices.SortFunc(others, func(a, b *replica) int { return strings.Compare(a.name, b.name) })
	return others
}

func (c *cluster) part(replicas ...*replica) {
	for _, r := range replicas {
		c.net.part(r.Address())
	}
}

// apply applies commands on the leader of the moment.
func (c *cluster) apply(commands ...string) {
	c.t.Helper()
	leader := c.leader()
	for _, command := range commands {
		if _, _, err := leader.Apply(within(c.t, time.Second), []byte(command)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// within returns a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until cond holds, for 20 s at most.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for range 2000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no %s after 20 s", what)
}

// journal is an FSM that remembers its commands.
type journal struct {
	mu       sync.Mutex
	commands []string
	restored int // snapshots
	delay    time.Duration
}

func (j *journal) Apply(log *raft.Log) any {
	time.Sleep(j.delay)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commands = append(j.commands, string(log.Data))
	return fmt.Sprintf("%s is number %d", log.Data, len(j.commands))
}

func (j *journal) Snapshot() (raft.FSMSnapshot, error) {
	return journalSnapshot(j.content()), nil
}

func (j *journal) Restore(snapshot io.ReadCloser) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commands = nil
	j.restored++
	return json.NewDecoder(snapshot).Decode(&j.commands)
}

func (j *journal) content() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.commands)
}

func (j *journal) holds(commands ...string) bool { return slices.Equal(j.content(), commands) }

type journalSnapshot []string

func (s journalSnapshot) Persist(sink raft.SnapshotSink) error {
	return json.NewEncoder(sink).Encode([]string(s))
}

func (journalSnapshot) Release() {}

var errDisk = errors.New("input/output error")

// flakyDisk fails to write log entries while it is broken.
type flakyDisk struct {
	disk
	broken atomic.Bool
}

func (d *flakyDisk) StoreLogs(logs []*raft.Log) error {
	if d.broken.Load() {
		return errDisk
	}
	return d.disk.StoreLogs(logs)
}
