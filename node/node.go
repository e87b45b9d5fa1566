// Package node is the factory: it turns a configuration into a running
// controller or worker, and does nothing else. All set-up logic is here.
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"google.golang.org/grpc"
)

// Network is what a node stands on. *testnet.Host is one; nil means TCP and
// UDP.
type Network interface {
	Listen(address string) (net.Listener, error)
	Dial(ctx context.Context, address string) (net.Conn, error)
	// GossipTransport is memberlist's transport on a port.
	GossipTransport(port int) (memberlist.NodeAwareTransport, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options are what a node needs beside its configuration.
type Options struct {
	// Version is what the binary calls itself.
	Version string
	// Logger is where the node logs to; by default nowhere.
	Logger hclog.Logger
	// Network is for tests; nil is the real one.
	Network Network
	// Die ends the process at once. It is called when this replica must do
	// nothing more: its disk has failed or hangs, or its state has come apart
	// from the cluster's. By default Run ends instead, in order, and returns
	// ErrFault: enough for tests, but a write that hangs would hold it up.
	Die func(error)
	// ClockOffset is for tests: how far a worker's clock is off.
	ClockOffset time.Duration
	// ClockDrift is for tests: by what share a worker's clock is fast.
	ClockDrift float64
	// Crash is for tests: what the emulated engine does to crash its worker, which
	// by default is to end the process.
	Crash func()
	// Schema is for tests: a controller applies commands up to this one only,
	// as an older release does. 0: all that it knows.
	Schema uint32
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

func (o Options) listen(address string) (net.Listener, error) {
	if o.Network != nil {
		return o.Network.Listen(address)
	}
	return net.Listen("tcp", address)
}

func (o Options) dial(ctx context.Context, address string) (net.Conn, error) {
	if o.Network != nil {
		return o.Network.Dial(ctx, address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// newIncarnation makes the id of this start of the process.
func newIncarnation() string { return rand.Text()[:13] }

// servers are the listeners of a node and what is served on them, each apart.
type servers struct {
	options   Options
	listeners map[string]net.Listener
	grpc      []served
	http      []*http.Server
	wait      sync.WaitGroup
}

type served struct {
	name   string
	server *grpc.Server
}

func newServers(o Options) *servers {
	return &servers{options: o, listeners: map[string]net.Listener{}}
}

// open binds a listener.
func (s *servers) open(name, address string) error {
	l, err := s.options.listen(address)
	if err != nil {
		return fmt.Errorf("listen.%s: %w; choose another address or end the process that has it", name, err)
	}
	s.listeners[name] = l
	return nil
}

// addresses are what the listeners are bound to.
func (s *servers) addresses() map[string]string {
	out := map[string]string{}
	for name, l := range s.listeners {
		out[name] = l.Addr().String()
	}
	return out
}

// add has a gRPC server serve a listener from start on.
func (s *servers) add(name string, server *grpc.Server) {
	s.grpc = append(s.grpc, served{name, server})
}

// addHTTP has a handler served on a listener from start on.
func (s *servers) addHTTP(name string, handler http.Handler) {
	s.http = append(s.http, &http.Server{
		Addr: name, Handler: handler,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	})
}

// start serves. A listener that fails reports to fault.
func (s *servers) start(fault func(error)) {
	for _, g := range s.grpc {
		s.wait.Go(func() {
			if err := g.server.Serve(s.listeners[g.name]); err != nil {
				fault(fmt.Errorf("listener %s: %w", g.name, err))
			}
		})
	}
	for _, h := range s.http {
		s.wait.Go(func() {
			if err := h.Serve(s.listeners[h.Addr]); !errors.Is(err, http.ErrServerClosed) {
				fault(fmt.Errorf("listener %s: %w", h.Addr, err))
			}
		})
	}
}

// refuse ends the taking in of calls on a listener; those in hand go on. stop
// has to be called after it.
func (s *servers) refuse(name string) {
	for _, g := range s.grpc {
		if g.name == name {
			s.wait.Go(g.server.GracefulStop)
		}
	}
}

// stop lets what is in hand finish for as long as patience, then cuts off.
func (s *servers) stop(patience time.Duration) {
	var graceful sync.WaitGroup
	for _, g := range s.grpc {
		cut := time.AfterFunc(patience, g.server.Stop)
		graceful.Go(func() {
			defer cut.Stop()
			g.server.GracefulStop()
		})
	}
	for _, h := range s.http {
		_ = h.Close()
	}
	graceful.Wait()
	s.close()
	s.wait.Wait()
}

// close closes listeners that nobody serves (any more).
func (s *servers) close() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}
