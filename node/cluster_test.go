package node

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// Names of the hosts of a test cluster.
var controllerNames = []string{"c1", "c2", "c3"}

// cluster is a whole cluster in one bubble: real raft, gossip, gRPC and
// workers on an in-memory network, in virtual time.
type cluster struct {
	t     *testing.T
	net   *testnet.Network
	dirs  map[string]string
	mu    sync.Mutex
	stops map[string]func()
	// ends are closed when the latest start of a node has ended.
	ends  map[string]chan struct{}
	conns []*rpc.Conn
	// offsets are how far workers' clocks are off.
	offsets map[string]time.Duration
	// drifts are by what share they are fast.
	drifts map[string]float64
	// crashes are the workers that the emulated engine has crashed, in order.
	crashes []string
	// restarted is how many of them have been started again.
	restarted int
	tune      func(*configs.Controller)
	// tuneWorker changes the configuration of workers that start from now on.
	tuneWorker func(*configs.Worker)
	// controllers and workers are the latest start of each node.
	controllers map[string]*Controller
	workers     map[string]*Worker
	journal     *journal
}

// inBubble runs a test on a cluster of three controllers and so many workers.
func inBubble(t *testing.T, workers int, test func(t *testing.T, c *cluster)) {
	t.Helper()
	inTunedBubble(t, workers, func(*configs.Controller) {}, test)
}

func inTunedBubble(t *testing.T, workers int, tune func(*configs.Controller), test func(t *testing.T, c *cluster)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{
			t: t, net: testnet.New(), dirs: map[string]string{}, stops: map[string]func(){}, ends: map[string]chan struct{}{}, tune: tune,
			offsets:     map[string]time.Duration{"w1": 90 * time.Minute, "w2": -time.Hour},
			tuneWorker:  func(*configs.Worker) {},
			controllers: map[string]*Controller{}, workers: map[string]*Worker{}, journal: &journal{},
		}
		for _, name := range controllerNames {
			c.dirs[name] = t.TempDir()
			c.startController(name)
		}
		for i := range workers {
			c.startWorker(fmt.Sprintf("w%d", i+1))
		}
		defer c.stopAll()
		test(t, c)
	})
}

// crashed is what the emulated engine's crash does to a worker: its host goes, as a
// process that dies takes its connections along.
func (c *cluster) crashed(name string) {
	c.net.Kill(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashes = append(c.crashes, name)
}

// crashCount is how many workers have crashed so far.
func (c *cluster) crashCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.crashes)
}

// restartCrashed starts workers again that have crashed since the last call, as
// their machines' supervisors would.
func (c *cluster) restartCrashed() {
	c.t.Helper()
	c.mu.Lock()
	fresh := c.crashes[c.restarted:]
	c.restarted = len(c.crashes)
	c.mu.Unlock()
	for _, name := range fresh {
		c.stop(name)
		c.startWorker(name)
	}
}

// logger writes to the journal, and to stderr what ORRERY_TEST_LOG asks for.
func (c *cluster) logger(name string) hclog.Logger {
	level := hclog.LevelFromString(os.Getenv("ORRERY_TEST_LOG"))
	if level == hclog.NoLevel {
		level = hclog.Off
	}
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: name, Level: level, Output: os.Stderr})
	l.RegisterSink(c.journal)
	return l
}

func (c *cluster) controllerConfig(name string) *configs.Controller {
	config := configs.DefaultController()
	config.Name, config.DataDir = name, c.dirs[name]
	at := func(port int) configs.Address { return configs.Address(fmt.Sprintf("%s:%d", name, port)) }
	config.Listen = configs.ControllerListen{
		Inference: at(8001), HTTP: at(8000), Control: at(8010), Peer: at(8011), Raft: at(8012), Gossip: at(7946),
	}
	for _, other := range controllerNames {
		config.Cluster.Controllers = append(config.Cluster.Controllers, configs.Address(other+":8011"))
	}
	c.tune(&config)
	return &config
}

func (c *cluster) startController(name string) {
	c.t.Helper()
	node, err := NewController(c.controllerConfig(name), Options{Network: c.net.Host(name), Logger: c.logger(name), Version: "test"})
	if err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	c.controllers[name] = node
	c.start(name, node.Run)
}

func (c *cluster) workerConfig(name string) *configs.Worker {
	config := configs.DefaultWorker()
	config.Name, config.ModelDir = name, "../models"
	config.Expose = []string{"session", "http", "gossip"}
	config.Listen = configs.WorkerListen{
		Session: configs.Address(name + ":8020"), HTTP: configs.Address(name + ":8021"), Gossip: configs.Address(name + ":7946"),
	}
	for _, other := range controllerNames {
		config.Cluster.GossipSeeds = append(config.Cluster.GossipSeeds, configs.Address(other+":7946"))
	}
	device := configs.DefaultDevice()
	device.Kind, device.Engines = "v100", []string{"emulated"}
	config.Devices = []configs.Device{device}
	c.tuneWorker(&config)
	return &config
}

func (c *cluster) startWorker(name string) {
	c.t.Helper()
	node, err := NewWorker(c.workerConfig(name), Options{
		Network: c.net.Host(name), Logger: c.logger(name), Version: "test", ClockOffset: c.offsets[name], ClockDrift: c.drifts[name],
		Crash: func() { c.crashed(name) },
	})
	if err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	c.workers[name] = node
	c.start(name, node.Run)
}

// start runs a node until stop or kill.
func (c *cluster) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			c.t.Logf("%s ended: %v", name, err)
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stops[name], c.ends[name] = func() { cancel(); <-done }, done
}

// ended is closed when the latest start of a node has ended.
func (c *cluster) ended(name string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends[name]
}

// stop ends a node gracefully.
func (c *cluster) stop(name string) {
	c.mu.Lock()
	stop := c.stops[name]
	delete(c.stops, name)
	c.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// kill ends a node without a word: its host goes first.
func (c *cluster) kill(name string) {
	c.net.Kill(name)
	c.stop(name)
}

func (c *cluster) stopAll() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.net.HealAll()
	var wait sync.WaitGroup
	c.mu.Lock()
	for _, stop := range c.stops {
		wait.Go(stop)
	}
	c.mu.Unlock()
	wait.Wait()
	time.Sleep(10 * time.Second) // memberlist's probes end by themselves
}

// conn dials a controller from a client's host.
func (c *cluster) conn(address string) *rpc.Conn {
	conn, err := rpc.Connect(address, c.net.Host("client").Dial, 64<<20)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
	return conn
}

func (c *cluster) control(name string) controlpb.ControlClient {
	return controlpb.NewControlClient(c.conn(name + ":8010"))
}

func (c *cluster) inference(name string) inferencepb.GRPCInferenceServiceClient {
	return inferencepb.NewGRPCInferenceServiceClient(c.conn(name + ":8001"))
}

// eventually polls until check returns nil, in virtual time.
func (c *cluster) eventually(within time.Duration, what string, check func() error) {
	c.t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// status asks one controller.
func (c *cluster) status(name string) (*controlpb.ClusterStatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	conn := c.conn(name + ":8010")
	defer conn.Close()
	return controlpb.NewControlClient(conn).ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
}

// leader waits until the named controllers agree on a leader among them.
func (c *cluster) leader(among ...string) (leader string) {
	c.t.Helper()
	c.eventually(30*time.Second, "a leader", func() error {
		leader = ""
		for _, name := range among {
			s, err := c.status(name)
			switch {
			case err != nil:
				return err
			case s.Leader == "" || leader != "" && s.Leader != leader:
				return fmt.Errorf("%s says %q, before %q", name, s.Leader, leader)
			}
			leader = s.Leader
		}
		return nil
	})
	return leader
}

// follower is any of the named controllers but the leader.
func follower(leader string, among ...string) string {
	for _, name := range among {
		if name != leader {
			return name
		}
	}
	return ""
}

// serve waits for workers, loads ResNet18 through a follower and waits until
// the cluster serves.
func (c *cluster) serve(workers int) (leader string) {
	c.t.Helper()
	leader = c.leader(controllerNames...)
	through := follower(leader, controllerNames...)
	c.registered(through, workers)
	c.mustLoad(through, "resnet18", resnet18)
	c.untilPhase(through, logpb.Phase_PHASE_SERVING, time.Minute)
	return leader
}

// digestsEqual waits until all replicas are reachable and have equal digests.
func (c *cluster) digestsEqual() {
	c.t.Helper()
	c.eventually(30*time.Second, "equal digests on three replicas", func() error {
		s, err := c.status("c1")
		if err != nil {
			return err
		}
		for _, r := range s.Replicas {
			if r.Digest == "" || r.Digest != s.Replicas[0].Digest || !r.Voter {
				return fmt.Errorf("replicas %v", s.Replicas)
			}
		}
		if len(s.Replicas) != 3 {
			return fmt.Errorf("%d replicas", len(s.Replicas))
		}
		return nil
	})
}

func TestInferThroughAFollower(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		for i, name := range controllerNames {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			r, err := c.inference(name).ModelInfer(ctx, image("resnet18", i))
			cancel()
			if err != nil {
				t.Fatalf("through %s (leader %s): %v", name, leader, err)
			}
			if r.Id != fmt.Sprint(i) || !r.Parameters["emulated"].GetBoolParam() || len(r.RawOutputContents) != 1 {
				t.Errorf("through %s: %v", name, r)
			}
		}
		c.digestsEqual()
	})
}
