package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/membership"
	"github.com/orrery-project/orrery/workerd"
	"github.com/orrery-project/orrery/workerd/engine"
	"github.com/orrery-project/orrery/workerd/engine/emulated"
	"github.com/orrery-project/orrery/workerd/engine/gomlx"
)

// errDrained is why a worker ends that the leader has let go: in order.
var errDrained = errors.New("drained")

// How often the gossip of a worker that is one of many in its process probes
// another member, and exchanges all that is known. They are hardly ever lost
// one by one, and busy together: quick probes would only suspect the slow.
const (
	crowdedProbe    = 5 * time.Second
	crowdedExchange = time.Minute
)

// crashStatus is the exit status of a worker that was told to crash.
const crashStatus = 70

// Worker is a running worker daemon.
type Worker struct {
	options Options
	mu      sync.Mutex // guards config
	config  *configs.Worker
	servers *servers
	gossip  *membership.Cluster
	worker  *workerd.Worker
	faults  chan error
}

// NewWorker opens the model directory, binds all listeners and joins the
// gossip. Run must be called on what it returns.
func NewWorker(config *configs.Worker, options Options) (*Worker, error) {
	w, err := newWorker(config, places{
		session: config.Listen.Session, sessionAt: config.Advertised().Session,
		gossip: config.Listen.Gossip, gossipAt: config.Advertise.Gossip,
	}, options, options)
	if err != nil {
		return nil, err
	}
	if err := w.servers.open("http", string(config.Listen.HTTP)); err != nil {
		w.discard()
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	registerWorkerMetrics(metrics, w.worker)
	w.servers.addHTTP("http", workerHTTP(metrics))
	return w, nil
}

// places are where a worker's listeners bind, and where they are advertised:
// gossip at what it is bound to if that is empty, and each at the port that it
// is bound to if the port is 0.
type places struct {
	session, sessionAt, gossip, gossipAt configs.Address
	// crowded: many others are in this process, so that the gossip shall take
	// less of it.
	crowded bool
}

// newWorker makes a worker without its HTTP listener. The gossip has options of
// its own.
func newWorker(config *configs.Worker, at places, options, gossip Options) (_ *Worker, err error) {
	w := &Worker{options: options.withDefaults(), config: config, faults: make(chan error, 1)}
	w.servers = newServers(w.options)
	defer func() {
		if err != nil {
			w.servers.close()
		}
	}()
	engines, err := newEngines(config, w.options.Crash)
	if err != nil {
		return nil, err
	}
	if err := w.servers.open("session", string(at.session)); err != nil {
		return nil, err
	}
	incarnation, session := newIncarnation(), w.sessionAddress(at.sessionAt)
	w.worker, err = workerd.New(workerd.Options{
		Name: config.Name, Incarnation: incarnation, SessionAddress: session,
		Labels: config.Labels, Speed: config.Speed, HostMemory: int64(config.HostMemory),
		Devices: devices(config), Engines: engines, ModelDir: config.ModelDir,
		ClockOffset: w.options.ClockOffset, ClockDrift: w.options.ClockDrift, Logger: w.options.Logger.Named("worker"),
	})
	if err != nil {
		return nil, err
	}
	member := membership.Options{
		Name: config.Name, Incarnation: incarnation, Role: membership.Worker,
		Addresses: membership.Addresses{Session: session},
	}
	if at.crowded {
		member.ProbeInterval, member.ProbeTimeout, member.PushPullInterval = crowdedProbe, crowdedProbe/2, crowdedExchange
	}
	w.gossip, err = openGossip(gossip.withDefaults(), member, string(at.gossip), string(at.gossipAt), config.Cluster.GossipKeyFile, config.Cluster.GossipSeeds)
	if err != nil {
		return nil, err
	}
	// The limit's ten seconds would end the connection of a leader that is
	// frozen: when it thaws, it shall be told that it was succeeded.
	server := rpc.NewServer(rpc.MaxMessageLimit,
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: workerd.SupersededSilence}))
	w.worker.RegisterService(server)
	w.servers.add("session", server)
	return w, nil
}

// sessionAddress is where leaders dial: as advertised, but for a port that the
// system has chosen.
func (w *Worker) sessionAddress(advertised configs.Address) string {
	if advertised.Port() != 0 {
		return string(advertised)
	}
	_, port, err := net.SplitHostPort(w.servers.addresses()["session"])
	if err != nil {
		return string(advertised)
	}
	return net.JoinHostPort(advertised.Host(), port)
}

// discard gives back what a worker has bound that will never run.
func (w *Worker) discard() {
	w.servers.close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.gossip.Run(ended)
}

func workerHTTP(metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(out http.ResponseWriter, _ *http.Request) { fmt.Fprintln(out, "live") })
	return mux
}

// newEngines makes the engines that some device may use.
func newEngines(config *configs.Worker, crash func()) ([]engine.Engine, error) {
	if crash == nil {
		crash = func() { os.Exit(crashStatus) }
	}
	makers := map[string]func() (engine.Engine, error){
		"gomlx": func() (engine.Engine, error) {
			return gomlx.New(gomlx.Options{BatchRows: config.Engines.GoMLX.BatchRows})
		},
		"emulated": func() (engine.Engine, error) {
			e := config.Engines.Emulated
			return emulated.New(emulated.Options{
				Jitter: e.Jitter, Slowdown: e.Slowdown, FailureRate: e.FailureRate, AllowCommands: e.AllowCommands, Seed: e.Seed,
				Crash: crash,
			})
		},
	}
	var names []string
	for _, d := range config.Devices {
		names = append(names, d.Engines...)
	}
	slices.Sort(names)
	var engines []engine.Engine
	for _, name := range slices.Compact(names) {
		e, err := makers[name]()
		if err != nil {
			return nil, fmt.Errorf("engine %s: %w", name, err)
		}
		engines = append(engines, e)
	}
	return engines, nil
}

func devices(config *configs.Worker) []workerd.DeviceOptions {
	var out []workerd.DeviceOptions
	for _, d := range config.Devices {
		out = append(out, workerd.DeviceOptions{
			Kind: d.Kind, PageBytes: int64(d.PageSize), Pages: int(d.WeightsCache / d.PageSize), Engines: d.Engines,
		})
	}
	return out
}

// Addresses are what the listeners are bound to, by name.
func (w *Worker) Addresses() map[string]string {
	out := w.servers.addresses()
	out["gossip"] = w.gossip.LocalAddress()
	return out
}

// Reload applies what may change at run time, and returns the keys that it
// applied. The error names those that need a restart.
func (w *Worker) Reload(next *configs.Worker) (applied []string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	merged, changes, err := w.config.Reload(next)
	if err != nil {
		return nil, err
	}
	w.config = merged
	w.options.Logger.SetLevel(hclog.LevelFromString(merged.Log.Level))
	return changes.Live, changes.Err()
}

// Run works until ctx ends or the leader lets the worker go: it leaves the
// gossip, lets what runs finish, and returns when all is closed.
func (w *Worker) Run(ctx context.Context) error {
	w.mu.Lock()
	name, patience := w.config.Name, w.config.ShutdownTimeout/4
	w.mu.Unlock()
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	wait.Go(func() { _ = w.gossip.Run(running) })
	wait.Go(func() {
		select {
		case err := <-w.faults:
			cancel(fmt.Errorf("%w: %w", ErrFault, err))
		case <-w.worker.Left():
			cancel(errDrained)
		case <-running.Done():
		}
	})
	w.servers.start(func(err error) {
		select {
		case w.faults <- err:
		default:
		}
	})
	w.options.Logger.Info("worker started", "name", name, "version", w.options.Version, "addresses", w.Addresses())
	ended := make(chan error, 1)
	go func() { ended <- w.worker.Run(running) }() // outlived only by a worker that is cut off
	var err error
	select {
	case err = <-ended:
	case <-w.overdue(running):
		w.options.Logger.Warn("the drained worker was cut off: what runs does not end", "name", name)
		return nil
	}
	w.servers.stop(patience)
	wait.Wait()
	w.options.Logger.Info("worker stopped", "name", name)
	if cause := context.Cause(running); cause != nil && cause != errDrained && ctx.Err() == nil {
		return cause
	}
	return err
}

// overdue tells when a worker that was drained has taken longer than
// shutdown_timeout to end: an engine may hang, and nobody signals this process.
func (w *Worker) overdue(running context.Context) <-chan struct{} {
	w.mu.Lock()
	timeout := w.config.ShutdownTimeout
	w.mu.Unlock()
	over := make(chan struct{})
	context.AfterFunc(running, func() {
		if context.Cause(running) == errDrained {
			time.AfterFunc(timeout, func() { close(over) })
		}
	})
	return over
}
