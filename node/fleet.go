package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/orrery-project/orrery/configs"
)

// Fleet is many workers in one process, for rehearsals. Each is a whole worker
// with an incarnation, listeners and a gossip of its own; they share the
// process and one HTTP listener.
type Fleet struct {
	options Options
	names   []string
	workers []*Worker
	servers *servers
}

// NewFleet makes count workers of one configuration. They are called by its
// name and a number, from 1. The system chooses the ports of their sessions and
// gossip; of the configured addresses only the hosts count.
func NewFleet(config *configs.Worker, count int, options Options) (_ *Fleet, err error) {
	f := &Fleet{options: options.withDefaults()}
	f.servers = newServers(f.options)
	if err := member(config, count).Validate(); err != nil { // it has the longest name
		return nil, fmt.Errorf("the last of %d workers: %w", count, err)
	}
	defer func() {
		if err != nil {
			f.discard()
		}
	}()
	if err := f.servers.open("http", string(config.Listen.HTTP)); err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	for i := range count {
		one := member(config, i+1)
		own := f.options
		own.Logger = own.Logger.Named(one.Name)
		gossip := own
		if i > 0 {
			gossip.Logger = hclog.NewNullLogger() // they see what the first sees, and each would log every member
		}
		w, err := newWorker(one, anyPorts(config), own, gossip)
		if err != nil {
			return nil, fmt.Errorf("worker %s: %w", one.Name, err)
		}
		f.names, f.workers = append(f.names, one.Name), append(f.workers, w)
		registerWorkerMetrics(prometheus.WrapRegistererWith(prometheus.Labels{"worker": one.Name}, metrics), w.worker)
	}
	f.servers.addHTTP("http", workerHTTP(metrics))
	return f, nil
}

// member is the configuration of the worker with a number.
func member(config *configs.Worker, number int) *configs.Worker {
	one := *config
	one.Name = fmt.Sprintf("%s-%d", config.Name, number)
	return &one
}

// anyPorts are a configuration's hosts, with ports that the system chooses.
func anyPorts(config *configs.Worker) places {
	at, any := config.Advertised(), func(a configs.Address) configs.Address {
		return configs.Address(net.JoinHostPort(a.Host(), "0"))
	}
	return places{session: any(config.Listen.Session), sessionAt: any(at.Session), gossip: any(config.Listen.Gossip), gossipAt: any(at.Gossip)}
}

// discard gives back what was bound.
func (f *Fleet) discard() {
	f.servers.close()
	var all sync.WaitGroup
	for _, w := range f.workers {
		all.Go(w.discard)
	}
	all.Wait()
}

// Reload applies to every worker what may change at run time, and returns the
// keys that it applied.
func (f *Fleet) Reload(next *configs.Worker) (applied []string, err error) {
	for i, w := range f.workers {
		if applied, err = w.Reload(member(next, i+1)); err != nil {
			return applied, err
		}
	}
	return applied, nil
}

// Addresses are what the listeners are bound to: http, and those of each worker
// behind its name and a dot.
func (f *Fleet) Addresses() map[string]string {
	out := f.servers.addresses()
	for i, w := range f.workers {
		for name, address := range w.Addresses() {
			out[f.names[i]+"."+name] = address
		}
	}
	return out
}

// Run works until ctx ends, or a worker fails: then it ends all others and
// returns that error. A worker that the leader lets go ends alone.
func (f *Fleet) Run(ctx context.Context) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(f.workers)+1)
	f.servers.start(func(err error) {
		errs <- fmt.Errorf("%w: %w", ErrFault, err)
		cancel()
	})
	f.options.Logger.Info("workers started", "count", len(f.workers), "http", f.servers.addresses()["http"])
	var all sync.WaitGroup
	for i, w := range f.workers {
		all.Go(func() {
			if err := w.Run(running); err != nil {
				errs <- fmt.Errorf("worker %s: %w", f.names[i], err)
				cancel()
			}
		})
	}
	all.Wait()
	f.servers.stop(0)
	f.options.Logger.Info("workers stopped", "count", len(f.workers))
	close(errs)
	var failed []error
	for err := range errs {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
