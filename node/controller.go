package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/controller"
	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/membership"
	"github.com/orrery-project/orrery/raftnode"
)

// ErrFault says that the node stopped itself because it could not go on
// safely, such as after an error of its disk. A supervisor should start it
// again.
var ErrFault = errors.New("the node stopped itself")

// Controller is a running controller replica.
type Controller struct {
	options    Options
	config     *configs.Controller
	mu         sync.Mutex // guards config
	servers    *servers
	raft       *raftnode.Node
	replica    *fsm.Replica
	gossip     *membership.Cluster
	controller *controller.Controller
	faults     chan error
}

// NewController opens the data directory, binds all listeners and joins the
// gossip. Run must be called on what it returns.
func NewController(config *configs.Controller, options Options) (_ *Controller, err error) {
	c := &Controller{options: options.withDefaults(), config: config, faults: make(chan error, 1)}
	c.servers = newServers(c.options)
	defer func() {
		if err != nil {
			c.abandon()
		}
	}()
	for _, l := range []struct {
		name    string
		address configs.Address
	}{
		{"inference", config.Listen.Inference}, {"http", config.Listen.HTTP},
		{"control", config.Listen.Control}, {"peer", config.Listen.Peer},
	} {
		if err := c.servers.open(l.name, string(l.address)); err != nil {
			return nil, err
		}
	}
	c.replica = fsm.NewReplica(fsm.Options{OnFault: c.fatal, Version: c.options.Schema})
	if err := c.openRaft(); err != nil {
		return nil, err
	}
	if err := c.openGossip(); err != nil {
		return nil, err
	}
	c.build()
	return c, nil
}

// fault notes why the node has to stop. The first one counts.
func (c *Controller) fault(err error) {
	select {
	case c.faults <- err:
	default:
	}
}

// fatal ends the process, or has Run end, after what leaves no way to go on. A
// state that has come apart from the cluster's is not to be used again: at the
// next start it is treated as damaged.
func (c *Controller) fatal(err error) {
	if errors.Is(err, fsm.ErrDiverged) {
		err = errors.Join(err, raftnode.Condemn(c.config.DataDir, err.Error()))
	}
	if c.options.Die != nil {
		c.options.Die(fmt.Errorf("%w: %w", ErrFault, err))
	}
	c.fault(err)
}

// abandon gives back what was opened before something failed.
func (c *Controller) abandon() {
	c.servers.close()
	if c.gossip != nil {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.gossip.Run(ended)
	}
	if c.raft != nil {
		_ = c.raft.Close()
	}
}

func (c *Controller) openRaft() error {
	config := c.config
	stream, err := openStream(c.options, string(config.Listen.Raft), string(config.Advertised().Raft))
	if err != nil {
		return fmt.Errorf("listen.raft: %w", err)
	}
	c.raft, err = raftnode.Open(raftnode.Options{
		Name: config.Name, Dir: config.DataDir, Stream: stream, FSM: c.replica,
		Timing: raftnode.Timing{
			Heartbeat: config.Raft.HeartbeatTimeout, Election: config.Raft.ElectionTimeout,
			LeaderLease: config.Raft.LeaderLease, Commit: config.Raft.CommitTimeout,
		},
		Snapshots: raftnode.Snapshots{
			Interval: config.Raft.SnapshotInterval, Threshold: config.Raft.SnapshotThreshold, Trailing: config.Raft.TrailingLogs,
		},
		Logger: c.options.Logger.Named("raft"), OnFault: c.fatal, OnHang: c.fatal,
		WriteLimits: raftnode.WriteLimits{Leader: config.Raft.LeaderWriteLimit, Follower: config.Raft.FollowerWriteLimit},
	})
	return err
}

func (c *Controller) openGossip() (err error) {
	config, at := c.config, c.config.Advertised()
	c.gossip, err = openGossip(c.options, membership.Options{
		Name: config.Name, Incarnation: newIncarnation(), Role: membership.Controller,
		Addresses: membership.Addresses{
			Inference: string(at.Inference), Control: string(at.Control), Peer: string(at.Peer), Raft: string(at.Raft),
		},
	}, string(config.Listen.Gossip), string(config.Advertise.Gossip), config.Cluster.GossipKeyFile, config.Cluster.GossipSeeds)
	return err
}

// build makes the controller and puts its services on the listeners.
func (c *Controller) build() {
	config := c.config
	c.controller = controller.New(controller.Options{
		Name: config.Name, Version: c.options.Version, PeerAddress: string(config.Advertised().Peer), GossipAddress: string(config.Advertised().Gossip),
		Peers: texts(config.Cluster.Controllers), Bootstrap: config.Cluster.Bootstrap, Consensus: consensus{c.raft}, Replica: c.replica, Gossip: gossip{c.gossip},
		Dial: c.options.dial, Logger: c.options.Logger,
		MaxMessage: int(config.Inference.MaxMessage), LinkRequests: config.Inference.LinkRequests, LinkBytes: int64(config.Inference.LinkBytes),
		Tunables: tunables(config),
	})
	live := func() bool { return true }
	for _, l := range []struct {
		name     string
		register func(grpc.ServiceRegistrar)
		ready    func() bool
	}{
		{"inference", c.controller.RegisterInference, c.controller.Ready},
		{"control", c.controller.RegisterControl, live},
		{"peer", c.controller.RegisterPeer, live},
	} {
		server := rpc.NewServer(int(config.Inference.MaxMessage))
		l.register(server)
		reflection.Register(server)
		healthpb.RegisterHealthServer(server, health{ready: l.ready})
		c.servers.add(l.name, server)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.controller.Metrics(), promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "live") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !c.controller.Ready() {
			http.Error(w, "not serving: the cluster is starting, or there is no leader", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	c.servers.addHTTP("http", mux)
}

// tunables are the settings that may change while the controller runs.
func tunables(c *configs.Controller) controller.Tunables {
	return controller.Tunables{
		LoadIdle: c.Startup.LoadIdle, InferBuffer: c.Startup.InferBuffer, LoadsPerWorker: c.Startup.LoadsPerWorker,
		ProfileShare: c.Startup.ProfileShare, ProfileRefresh: c.Startup.ProfileRefresh,
		DefaultTimeout: c.Inference.DefaultTimeout, HeldRequests: c.Inference.HeldRequests, HeldBytes: int64(c.Inference.HeldBytes),
		Heartbeat: c.Workers.HeartbeatInterval, HeartbeatMisses: c.Workers.HeartbeatMisses,
		ConnectTimeout: c.Workers.ConnectTimeout, LostAfter: c.Workers.LostAfter, ForgetAfter: c.Workers.ForgetAfter,
		DeadAfter: c.Workers.DeadAfter, ResultGrace: c.Workers.ResultGrace, CompareInterval: c.Workers.CompareInterval,
		NoLeaderTimeout: c.Control.NoLeaderTimeout, Policy: c.Scheduler.Policy, ScheduleAhead: c.Scheduler.ScheduleAhead,
		DigestInterval: c.Raft.DigestInterval, DegradedAfter: c.Inference.DegradedAfter, DegradedFor: c.Inference.DegradedFor,
	}
}

func texts(addresses []configs.Address) []string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = string(a)
	}
	return out
}

// Addresses are what the listeners are bound to, by name.
func (c *Controller) Addresses() map[string]string {
	out := c.servers.addresses()
	out["raft"], out["gossip"] = c.raft.Address(), c.gossip.LocalAddress()
	return out
}

// Reload applies what may change at run time, and returns the keys that it
// applied. The error names those that need a restart.
func (c *Controller) Reload(next *configs.Controller) (applied []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	merged, changes, err := c.config.Reload(next)
	if err != nil {
		return nil, err
	}
	c.config = merged
	c.controller.Tune(tunables(merged))
	c.options.Logger.SetLevel(hclog.LevelFromString(merged.Log.Level))
	return changes.Live, changes.Err()
}

// Run serves until ctx ends, or until the node has to stop itself (ErrFault).
// It returns when all is closed: leadership handed over, requests in hand
// answered, within the configured time.
func (c *Controller) Run(ctx context.Context) error {
	c.mu.Lock()
	name, patience := c.config.Name, c.config.ShutdownTimeout/4
	c.mu.Unlock()
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	// The gossip goes on while the controller drains.
	gossiping, stopGossip := context.WithCancel(context.WithoutCancel(ctx))
	wait.Go(func() { _ = c.gossip.Run(gossiping) })
	wait.Go(func() {
		select {
		case err := <-c.faults:
			cancel(fmt.Errorf("%w: %w", ErrFault, err))
		case <-running.Done():
		}
	})
	c.servers.start(c.fault)
	// Clients go elsewhere while this replica still answers what is in hand.
	refusing := context.AfterFunc(running, func() { c.servers.refuse("inference") })
	defer refusing()
	c.options.Logger.Info("controller started", "name", name, "version", c.options.Version, "id", c.raft.ID(), "addresses", c.Addresses())
	err := c.controller.Run(running)
	fault := context.Cause(running)
	stopGossip()
	c.servers.stop(patience)
	err = errors.Join(err, c.raft.Close())
	wait.Wait()
	c.options.Logger.Info("controller stopped", "name", name)
	if errors.Is(fault, ErrFault) {
		return fault
	}
	return err
}
