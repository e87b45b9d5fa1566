// Package workerd is the worker daemon: it holds models in host memory, moves their weights to devices and away, and runs
// batches. It decides nothing. A leader opens a session and sends actions, each with a window of the worker's clock in
// which it may start; the worker executes exactly those, one batch at a time on a device, refuses what it can't start in
// time, and answers with timings.
//
// One lock guards all accounts, so that a report is true as a whole. It is never held while bytes move or an engine
// works.
package workerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

const (
	defaultLeaderSilence = 5 * time.Second
	defaultMaxQueued     = 1024
	// finishWithin is how long a running action may go on, and then the streams, when the worker ends.
	finishWithin = time.Second
)

// DeviceOptions describe a GPU, or the CPU.
type DeviceOptions struct {
	// Kind: devices of one kind share profiles.
	Kind string
	// PageBytes is the size of a page of the weights cache, Pages how many there are.
	PageBytes int64
	Pages     int
	// Engines that may use it; none means all.
	Engines []string
}

// Options describe a worker.
type Options struct {
	// Name is stable, Incarnation new at each start of the process.
	Name, Incarnation string
	// SessionAddress is where leaders reach RegisterService's service.
	SessionAddress string
	Labels         map[string]string
	// Speed is relative to other workers; 0 means 1.
	Speed float64
	// HostMemory bounds the models held, in bytes; 0: no bound.
	HostMemory int64
	Devices    []DeviceOptions
	Engines    []engine.Engine
	// ModelDir is the only directory that models are read from.
	ModelDir string
	// ClockOffset is added to the worker's clock, which otherwise starts at 0.
	ClockOffset time.Duration
	// ClockDrift is by what share the worker's clock is fast, or slow if negative: 0.0002 gains 200 µs a second.
	ClockDrift float64
	// LeaderSilence ends the newest leader's session when it says nothing for so long; 0 means 5 s.
	LeaderSilence time.Duration
	// MaxQueued bounds the actions that wait in each queue of a device, and for host memory; 0 means 1024.
	MaxQueued int
	Logger    hclog.Logger
}

// Worker is a worker daemon without its listener. It implements sessionpb.SessionServer.
type Worker struct {
	sessionpb.UnimplementedSessionServer

	options Options
	log     hclog.Logger
	info    *logpb.Worker // not changed after New
	start   time.Time
	root    *os.Root
	host    *hostMemory
	devices []*device

	stopping chan struct{} // closed when streams are to end
	left     chan struct{} // closed when the leader has let this worker go
	streams  sync.WaitGroup
	exchange *link.Server // of controllers without a leader

	mu         sync.Mutex // guards what follows, and all that executors, devices, hostMemory and sessions say it guards
	fence      fence
	registered bool // this incarnation is; never taken back
	leaving    bool // left is closed
	closing    bool
	sessions   map[string]*session
	current    *session   // of the newest leader; nil: none is open
	superseded []*session // those of sessions that were current, oldest first
	refused    string     // why the leader doesn't want this worker; empty: it does, or hasn't said
	refusals   map[string]bool
	results    map[sessionpb.ResultCode]uint64
	direct     direct
}

// New makes a worker. It takes sessions once its service is registered, and executes once Run is called; Run also
// closes what New opens.
func New(options Options) (*Worker, error) {
	options.LeaderSilence = cmp.Or(options.LeaderSilence, defaultLeaderSilence)
	options.MaxQueued = cmp.Or(options.MaxQueued, defaultMaxQueued)
	options.Speed = cmp.Or(options.Speed, 1)
	if options.Logger == nil {
		options.Logger = hclog.NewNullLogger()
	}
	if err := options.check(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(options.ModelDir)
	if err != nil {
		return nil, fmt.Errorf("open model directory: %w", err)
	}
	w := &Worker{
		options:  options,
		log:      options.Logger,
		info:     describe(options),
		start:    time.Now(),
		root:     root,
		stopping: make(chan struct{}),
		left:     make(chan struct{}),
		sessions: make(map[string]*session),
		results:  make(map[sessionpb.ResultCode]uint64),
	}
	w.host = &hostMemory{
		mu: &w.mu, clock: w.clock, log: w.log, root: root, engines: options.Engines, budget: options.HostMemory,
		executor: w.newExecutor(hostSlots), models: make(map[uint64]*model),
	}
	for i, o := range options.Devices {
		w.devices = append(w.devices, &device{
			mu: &w.mu, clock: w.clock, log: w.log, index: i, kind: o.Kind, models: w.host,
			allows:    func(name string) bool { return len(o.Engines) == 0 || slices.Contains(o.Engines, name) },
			inference: w.newExecutor(1), transfer: w.newExecutor(1),
			cache: newPageCache(o.PageBytes, o.Pages), weights: make(map[uint64]engine.Weights),
			pace: make(map[paceKey]pace), measuring: make(map[*measurement]bool), moves: 1,
		})
	}
	w.host.devices = w.devices
	w.direct.results = make(map[sessionpb.ResultCode]uint64)
	w.exchange = link.NewServer(directHandler{w}, link.Options{Name: options.Name}, directLinkRequests, directLinkBytes)
	return w, nil
}

// check finds what no worker can run with.
func (o *Options) check() error {
	switch {
	case o.Name == "" || o.Incarnation == "":
		return fmt.Errorf("worker name %q and incarnation %q must not be empty", o.Name, o.Incarnation)
	case len(o.Devices) == 0:
		return errors.New("a worker needs at least one device")
	case len(o.Engines) == 0:
		return errors.New("a worker needs at least one engine")
	case o.ModelDir == "":
		return errors.New("a worker needs a model directory")
	case !(math.Abs(o.ClockDrift) <= maxDrift): // NaN, too
		return fmt.Errorf("the clock drift is %v; give a share from %v to %v", o.ClockDrift, -maxDrift, maxDrift)
	}
	known := make(map[string]bool)
	for _, e := range o.Engines {
		if known[e.Name()] {
			return fmt.Errorf("engine %q is there twice", e.Name())
		}
		known[e.Name()] = true
	}
	for i, d := range o.Devices {
		if d.PageBytes <= 0 || d.Pages <= 0 {
			return fmt.Errorf("device %d has %d pages of %d bytes; both must be above 0", i, d.Pages, d.PageBytes)
		}
		for _, name := range d.Engines {
			if !known[name] {
				return fmt.Errorf("device %d names the engine %q, which this worker doesn't have", i, name)
			}
		}
	}
	return nil
}

// describe is what the worker says of itself in every report.
func describe(o Options) *logpb.Worker {
	info := &logpb.Worker{
		Name:            o.Name,
		Incarnation:     o.Incarnation,
		Kind:            logpb.WorkerKind_WORKER_KIND_SESSION,
		SessionAddress:  o.SessionAddress,
		Speed:           o.Speed,
		HostMemoryBytes: uint64(o.HostMemory),
	}
	var all []string
	for _, e := range o.Engines {
		all = append(all, e.Name())
		info.Engines = append(info.Engines, &logpb.Engine{Name: e.Name(), Version: e.Version()})
	}
	for i, d := range o.Devices {
		names := d.Engines
		if len(names) == 0 {
			names = all
		}
		info.Devices = append(info.Devices, &logpb.Device{
			Index: uint32(i), Kind: d.Kind, PageBytes: uint64(d.PageBytes), Pages: uint32(d.Pages), Engines: names,
		})
	}
	for _, key := range slices.Sorted(maps.Keys(o.Labels)) {
		info.Labels = append(info.Labels, &logpb.Label{Key: key, Value: o.Labels[key]})
	}
	return info
}

func (w *Worker) newExecutor(slots int) *executor {
	return &executor{
		mu: &w.mu, clock: w.clock, real: w.real, answer: w.answer, began: w.began,
		slots: slots, limit: w.options.MaxQueued, wake: make(chan struct{}, 1),
	}
}

// RegisterService offers the worker's sessions on a gRPC server, and links for controllers that have no leader.
func (w *Worker) RegisterService(r grpc.ServiceRegistrar) {
	sessionpb.RegisterSessionServer(r, w)
	exchangepb.RegisterExchangeServer(r, w.exchange)
}

// Run executes actions until ctx is done or the leader lets this worker go. Then leaders are told that it is leaving; all
// that waits is refused; what runs may go on for a second; and when all streams have ended and all models are closed, Run
// returns. Its error says what could not be closed.
func (w *Worker) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := make(chan struct{})
	var executors sync.WaitGroup
	for e := range w.executors() {
		executors.Go(func() { e.run(work, stop) })
	}
	select {
	case <-ctx.Done():
	case <-w.left:
	}

	w.exchange.Refuse()
	w.refuseAll()
	close(stop)
	patience := time.AfterFunc(finishWithin, cancel)
	executors.Wait()
	patience.Stop()
	w.hangUp()

	var errs []error
	for _, d := range w.devices {
		errs = append(errs, d.clear()...)
	}
	errs = append(errs, w.host.clear()...)
	return errors.Join(append(errs, w.root.Close())...)
}

// refuseAll says goodbye, answers everything that waits, and from now on all that comes. The goodbye is first, so that a leader
// reads the refusals after it in its light.
func (w *Worker) refuseAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
	for _, s := range w.sessions {
		if s.hasControl {
			s.send(&sessionpb.WorkerMessage{Leaving: true})
		}
	}
	for e := range w.executors() {
		e.close()
	}
}

// hangUp ends all streams once they have sent what waits, or at the latest after finishWithin.
func (w *Worker) hangUp() {
	close(w.stopping)
	w.exchange.Close()
	w.mu.Lock()
	open := slices.Collect(maps.Values(w.sessions))
	w.mu.Unlock()
	for _, s := range open {
		s.finish()
	}
	force := time.AfterFunc(finishWithin, func() {
		for _, s := range open {
			s.close(errGoodbye)
		}
	})
	w.streams.Wait()
	force.Stop()
}

// executors are all of the worker's.
func (w *Worker) executors() iter.Seq[*executor] {
	return func(yield func(*executor) bool) {
		if !yield(w.host.executor) {
			return
		}
		for _, d := range w.devices {
			if !yield(d.transfer) || !yield(d.inference) {
				return
			}
		}
	}
}
