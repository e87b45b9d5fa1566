package testnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

// backlog is how many connections may wait for Accept; further dials are refused.
const backlog = 1024

// addr is "host:port". It says that it is TCP, because libraries judge errors by that.
type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }

func (e endpoint) addr() addr {
	return addr(net.JoinHostPort(e.host, strconv.Itoa(e.port)))
}

// Host is one life of a machine, from Network.Host to Network.Kill.
type Host struct {
	net  *Network
	name string
	ip   netip.Addr
	dead bool
}

// Listen takes a port of this host. The host in address is this host's name or IP address, empty, unspecified or
// loopback, which all mean the same here; port 0 picks a free one. The listener's Addr is "name:port".
func (h *Host) Listen(address string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	l, err := h.listen(address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: addr(address), Err: err}
	}
	return l, nil
}

func (h *Host) listen(address string) (*listener, error) {
	at, err := h.endpoint(address)
	switch {
	case err != nil:
		return nil, err
	case h.dead:
		return nil, fmt.Errorf("host %s was killed: %w", h.name, net.ErrClosed)
	case at.host != h.name:
		return nil, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	case at.port == 0:
		at.port = h.net.freePort()
	case h.net.listeners[at] != nil:
		return nil, os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	l := &listener{host: h, at: at, backlog: make(chan net.Conn, backlog), done: make(chan struct{})}
	h.net.listeners[at] = l
	return l, nil
}

// Dial connects to "host:port", where host is a name or an IP address of this network. When nobody listens there it is
// refused at once; while the link is cut in either direction it waits, until ctx ends or the link is healed.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := h.dial(ctx, address, nil)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: addr(address), Err: err}
	}
	return c, nil
}

func (h *Host) dial(ctx context.Context, address string, via *listener) (*conn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	to, err := h.endpoint(address)
	if err != nil {
		return nil, err
	}
	ready := time.Now().Add(2 * n.latency)
	for {
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case h.dead:
			return nil, fmt.Errorf("host %s was killed: %w", h.name, net.ErrClosed)
		case n.cut(h.name, to.host) || n.cut(to.host, h.name):
			n.wait(&n.changed, ctx.Done(), time.Time{})
		case time.Now().Before(ready):
			n.wait(&n.changed, ctx.Done(), ready)
		default:
			return h.connect(to, via)
		}
	}
}

func (h *Host) connect(to endpoint, via *listener) (*conn, error) {
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	l := h.net.listeners[to]
	if l == nil {
		return nil, refused
	}
	local, remote := endpoint{h.name, h.net.freePort()}.addr(), to.addr()
	client := &conn{host: h, via: via, local: local, remote: remote}
	server := &conn{host: l.host, via: l, local: remote, remote: local, peer: client}
	client.peer = server
	select {
	case l.backlog <- server:
	default:
		return nil, refused
	}
	h.net.ends[client], h.net.ends[server] = struct{}{}, struct{}{}
	return client, nil
}

// LookupNetIP resolves the name of a host that exists or existed, as net.Resolver does.
func (h *Host) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	ip, ok := h.net.ips[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{ip}, nil
}

// endpoint parses an address as this host understands it. The lock is held.
func (h *Host) endpoint(address string) (endpoint, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return endpoint{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return endpoint{}, fmt.Errorf("port of %q: %w", address, err)
	}
	if host == "" || host == "localhost" {
		host = h.name
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if name, ok := h.net.names[ip]; ok {
			host = name
		} else if ip.IsUnspecified() || ip.IsLoopback() {
			host = h.name
		}
	}
	return endpoint{host, int(port)}, nil
}

// listener hands out the server ends of connections.
type listener struct {
	host    *Host
	at      endpoint
	backlog chan net.Conn
	done    chan struct{} // closed with the listener
	closed  bool
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.at.addr(), Err: net.ErrClosed}
	}
}

func (l *listener) Addr() net.Addr { return l.at.addr() }

// Close frees the port. Connections that were accepted stay, those that wait for Accept are closed.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.at.addr(), Err: net.ErrClosed}
	}
	l.close()
	return nil
}

// close is Close with the lock held; it may be called again.
func (l *listener) close() {
	if l.closed {
		return
	}
	l.closed = true
	delete(l.host.net.listeners, l.at)
	close(l.done)
	for {
		select {
		case c := <-l.backlog:
			c.(*conn).close()
		default:
			return
		}
	}
}
