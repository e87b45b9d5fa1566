// Package raftnode runs one replica of a replicated log: hashicorp/raft over a
// bolt store, with the library's traps closed off.
//
// The package knows nothing of what it replicates. A command is bytes; what it
// means is the business of the raft.FSM that Options names.
//
// Four things differ from the bare library. Outcomes are honest: an Apply that
// was interrupted says that nobody knows whether it was applied. Leadership is a
// level and not an edge: Lead calls a function once a term and joins it before
// the next. Storage fails loudly: the first error of the log, the stable store or
// a snapshot is reported, and so is a write that hangs, so that the process can
// stop. And storage is verified: Open reads all of it, and takes a damaged store
// for a lost one; the replica starts anew then, under a new id.
package raftnode

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// rpcTimeout bounds a dial and one exchange with a peer. It has to cover the
	// peer's slowest write to disk, so it is far above every timeout of Timing.
	rpcTimeout = 5 * time.Second

	// idleConnsPerPeer is how many connections to one peer are kept for reuse:
	// heartbeats, replication and elections use one each.
	idleConnsPerPeer = 3
)

// Timing holds the timeouts of consensus. A field that is zero takes its default.
type Timing struct {
	Heartbeat   time.Duration // a follower that heard nothing for 1 to 2 times this long campaigns; default 500 ms
	Election    time.Duration // a campaign that is undecided after 1 to 2 times this long starts again; default 500 ms
	LeaderLease time.Duration // a leader without a quorum for this long steps down; default 200 ms, at most Heartbeat
	Commit      time.Duration // idle followers learn the commit index within 1 to 2 times this; default 20 ms
}

// Snapshots says when the log is replaced by a snapshot of the FSM. A field that
// is zero takes its default.
type Snapshots struct {
	Interval  time.Duration // the threshold is looked at every 1 to 2 intervals; default 30 s
	Threshold uint64        // entries since the last snapshot that make a new one due; default 8192
	Trailing  uint64        // entries kept behind a snapshot for followers that lag a little; default 10240
	Retain    int           // snapshots kept on disk; default 2
}

// Options describes a replica.
type Options struct {
	Name string // stable name of the replica, such as "c1"
	Dir  string // data directory, made if missing; it belongs to this replica alone

	// Stream accepts and dials connections; its Addr is the address that peers
	// are told. The node owns it from the call of Open on, also if Open fails.
	Stream raft.StreamLayer

	FSM       raft.FSM
	Timing    Timing
	Snapshots Snapshots
	Logger    hclog.Logger // default: no log

	// OnFault is told, once, of the first error of the storage after Open, which
	// may be that an entry is not as it was written. The process has to stop: a
	// replica whose disk has failed may not vote or lead. It is called on a
	// goroutine of raft, so it must not wait for Close. It need not return, and
	// had better end the process with a status of its own: raft panics once it
	// returns, if the error concerned its term or its vote. Default: panic.
	OnFault func(error)

	WriteLimits WriteLimits

	// OnHang is told, once, of a call of the storage that exceeds its limit. It
	// must end the process, and need not return: the call can't be taken back, so
	// nothing can be done safely while it may still go on, and Close would wait
	// for it. It is called on a goroutine that Close joins. Default: panic.
	OnHang func(error)

	wrapDisk func(disk) disk // lets a test put a failing disk in between
}

// Node is one running replica. Its methods may be used concurrently.
type Node struct {
	id        string
	raft      *raft.Raft
	transport *raft.NetworkTransport
	stream    *stream
	store     *store
	requests  requests

	observer *raft.Observer
	observed chan raft.Observation
	changed  signal
	watcher  sync.WaitGroup

	lease     time.Duration
	suspicion suspicion

	closing sync.Once
	closed  chan struct{} // closed when Close begins
	down    chan struct{} // closed when raft has stopped
	failure error         // what Close returned
}

// Open starts the replica that lives in opts.Dir, and makes it there if the
// directory is empty. A new replica belongs to no cluster until it bootstraps
// one, or until the leader of one adds it.
//
// If the store is damaged, or was condemned, Open moves it to a directory
// damaged-<time> beside it, logs what was found, and makes a new replica that may
// join a cluster but not bootstrap one. Errors of the disk are returned.
func Open(opts Options) (_ *Node, err error) {
	if opts.Stream == nil {
		return nil, errors.New("open replica: no stream layer given")
	}
	stream := newStream(opts.Stream)
	defer func() {
		if err != nil {
			err = fmt.Errorf("open replica %s: %w", opts.Name, err)
			_ = stream.Close()
		}
	}()

	opts, err = opts.withDefaults()
	if err != nil {
		return nil, err
	}
	store, err := openStore(opts)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = store.Close()
		}
	}()
	id, err := identify(opts.Dir, opts.Name, store)
	if err != nil {
		return nil, err
	}

	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  stream,
		Timeout: rpcTimeout,
		MaxPool: idleConnsPerPeer,
		Logger:  opts.Logger,
		// No pipelining: a follower whose store fails in a pipeline can wedge,
		// and it catches up faster without.
		MaxRPCsInFlight: 1,
	})
	r, err := startRaft(opts.raftConfig(id), opts, store, transport)
	if err != nil {
		_ = transport.Close()
		stream.wait()
		return nil, err
	}
	store.faults.live.Store(true)

	n := &Node{
		id:        id,
		raft:      r,
		transport: transport,
		stream:    stream,
		store:     store,
		lease:     opts.Timing.LeaderLease,
		closed:    make(chan struct{}),
		down:      make(chan struct{}),
	}
	n.observe()
	n.watcher.Go(func() {
		leading := func() bool { return r.State() == raft.Leader }
		store.watchdog.run(n.down, opts.WriteLimits, leading, func(err error) {
			opts.OnHang(fmt.Errorf("raft storage in %s hangs: %w", opts.Dir, err))
		})
	})
	return n, nil
}

// withDefaults returns o with its zero values filled in, or what is missing.
func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Name == "":
		return o, errors.New("no name given")
	case o.Dir == "":
		return o, errors.New("no data directory given")
	case o.FSM == nil:
		return o, errors.New("no FSM given")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return o, fmt.Errorf("make the data directory: %w", err)
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.OnFault == nil {
		o.OnFault = func(err error) { panic(err) }
	}
	if o.OnHang == nil {
		o.OnHang = func(err error) { panic(err) }
	}
	o.WriteLimits.Leader = cmp.Or(o.WriteLimits.Leader, 2*time.Second)
	o.WriteLimits.Follower = cmp.Or(o.WriteLimits.Follower, 10*time.Second)
	o.Timing.Heartbeat = cmp.Or(o.Timing.Heartbeat, 500*time.Millisecond)
	o.Timing.Election = cmp.Or(o.Timing.Election, 500*time.Millisecond)
	o.Timing.LeaderLease = cmp.Or(o.Timing.LeaderLease, 200*time.Millisecond)
	o.Timing.Commit = cmp.Or(o.Timing.Commit, 20*time.Millisecond)
	o.Snapshots.Interval = cmp.Or(o.Snapshots.Interval, 30*time.Second)
	o.Snapshots.Threshold = cmp.Or(o.Snapshots.Threshold, 8192)
	o.Snapshots.Trailing = cmp.Or(o.Snapshots.Trailing, 10240)
	o.Snapshots.Retain = cmp.Or(o.Snapshots.Retain, 2)
	return o, nil
}

func (o Options) raftConfig(id string) *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(id)
	config.HeartbeatTimeout = o.Timing.Heartbeat
	config.ElectionTimeout = o.Timing.Election
	config.LeaderLeaseTimeout = o.Timing.LeaderLease
	config.CommitTimeout = o.Timing.Commit
	config.SnapshotInterval = o.Snapshots.Interval
	config.SnapshotThreshold = o.Snapshots.Threshold
	config.TrailingLogs = o.Snapshots.Trailing
	// A removed leader steps down and stays, idle, until its owner closes it:
	// a raft that stops by itself leaves callers without an answer.
	config.ShutdownOnRemove = false
	config.NoLegacyTelemetry = true
	config.Logger = o.Logger
	return config
}

// startRaft starts raft, which panics where it can't read its own log: an error
// that names the directory serves the operator better than a stack trace.
func startRaft(config *raft.Config, opts Options, store *store, transport raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the log in %s can't be used (%v): "+
				"move the directory away, and the replica rejoins as a new one", opts.Dir, p)
		}
	}()
	return raft.NewRaft(config, opts.FSM, store, store, store.snapshots, transport)
}

// ID returns "<name>-<random hex>". It is made with the data directory and kept
// in it, so a replica whose disk was wiped is a new replica.
func (n *Node) ID() string { return n.id }

// Address returns the address at which peers reach this replica.
func (n *Node) Address() string { return string(n.transport.LocalAddr()) }

// Stats is what a replica knows of itself at one moment. The fields are read one
// after another, so they may straddle a change.
type Stats struct {
	State        string // Follower, Candidate, Leader or Shutdown
	Term         uint64
	LastIndex    uint64    // newest entry on this replica's disk
	CommitIndex  uint64    // newest entry that is known to be committed
	AppliedIndex uint64    // newest entry handed to the FSM, which may still be busy with it
	LastContact  time.Time // when a leader was last heard of; zero if never
}

// Stats returns the state of this replica, for people and metrics.
func (n *Node) Stats() Stats {
	return Stats{
		State:        n.raft.State().String(),
		Term:         n.raft.CurrentTerm(),
		LastIndex:    n.raft.LastIndex(),
		CommitIndex:  n.raft.CommitIndex(),
		AppliedIndex: n.raft.AppliedIndex(),
		LastContact:  n.raft.LastContact(),
	}
}

// Term returns the newest term that this replica has seen.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// Close stops the replica and returns when nothing of it runs any more. Requests
// that wait are answered first, which takes up to the leader's lease when there
// are any; a leader should Transfer before. Close may be called again.
func (n *Node) Close() error {
	n.closing.Do(func() {
		close(n.closed)
		n.requests.refuse()
		// Heartbeats are handled on the connections' goroutines and write to the
		// store, so all of these have to be gone before raft and the store.
		_ = n.transport.Close()
		n.stream.wait()
		// Raft forgets requests when it is shut down. With its connections cut a
		// leader soon loses its lease, and with it answers everybody.
		n.requests.wait()
		err := n.raft.Shutdown().Error()
		n.suspicion.mu.Lock() // no watcher starts after this
		close(n.down)
		n.suspicion.mu.Unlock()
		n.watcher.Wait()
		n.failure = errors.Join(err, n.store.Close())
	})
	return n.failure
}
