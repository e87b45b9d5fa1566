package raftnode

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// memNet is a network in memory. Hosts that are in different parts can't reach
// each other, and their connections break at the moment they are parted.
type memNet struct {
	mu    sync.Mutex
	hosts map[string]*memHost
	parts map[string]int // by address; zero unless parted
	mute  map[string]bool
	ice   map[string]chan struct{} // by address; closed when the host thaws
	links map[*memLink]struct{}
}

type memLink struct {
	a, b       string
	aEnd, bEnd net.Conn
}

func newMemNet() *memNet {
	return &memNet{hosts: map[string]*memHost{}, parts: map[string]int{}, mute: map[string]bool{},
		ice: map[string]chan struct{}{}, links: map[*memLink]struct{}{}}
}

// listen puts a host at address.
func (n *memNet) listen(address string) *memHost {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &memHost{network: n, address: address, incoming: make(chan net.Conn, 16), closed: make(chan struct{})}
	n.hosts[address] = h
	return h
}

// part separates addresses from all others.
func (n *memNet) part(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		n.parts[a] = 1
	}
	for link := range n.links {
		if n.parts[link.a] != n.parts[link.b] {
			_ = link.aEnd.Close()
			_ = link.bEnd.Close()
			delete(n.links, link)
		}
	}
}

// freeze stops a host's process: its connections stay, and others can still be
// made, but it no longer reads, nor writes.
func (n *memNet) freeze(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ice[address] = make(chan struct{})
}

// thaw lets a host's process go on.
func (n *memNet) thaw(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ice := n.ice[address]; ice != nil {
		close(ice)
		delete(n.ice, address)
	}
}

// thawed returns once the host at address is not frozen.
func (n *memNet) thawed(address string) {
	n.mu.Lock()
	ice := n.ice[address]
	n.mu.Unlock()
	if ice != nil {
		<-ice
	}
}

// memConn is a host's end of a connection.
type memConn struct {
	net.Conn
	network *memNet
	address string // of the host
}

func (c *memConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.network.thawed(c.address)
	return n, err
}

func (c *memConn) Write(p []byte) (int, error) {
	c.network.thawed(c.address)
	return c.Conn.Write(p)
}

// silence breaks a host's connections. It can still be reached, but no longer
// reads or answers.
func (n *memNet) silence(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mute[address] = true
	for link := range n.links {
		if link.a == address || link.b == address {
			_ = link.aEnd.Close()
			_ = link.bEnd.Close()
			delete(n.links, link)
		}
	}
}

// wake ends the silence of a host.
func (n *memNet) wake(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mute, address)
}

// heal lets everybody reach everybody again.
func (n *memNet) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.parts)
}

func (n *memNet) dial(from, to string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	host := n.hosts[to]
	if host == nil || n.parts[from] != n.parts[to] {
		return nil, fmt.Errorf("dial %s from %s: unreachable", to, from)
	}
	here, there := net.Pipe()
	if n.mute[to] || n.mute[from] {
		return here, nil
	}
	select {
	case host.incoming <- there:
	case <-host.closed:
		return nil, fmt.Errorf("dial %s from %s: refused", to, from)
	}
	n.links[&memLink{a: from, b: to, aEnd: here, bEnd: there}] = struct{}{}
	return here, nil
}

// gate holds up what its host reads on connections that it dialled, while shut.
type gate struct {
	raft.StreamLayer
	shut atomic.Bool
	pass chan struct{} // lets one read pass
}

func (g *gate) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	conn, err := g.StreamLayer.Dial(address, timeout)
	return &gatedConn{conn, g}, err
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.gate.shut.Load() {
		<-c.gate.pass
	}
	return n, err
}

// memHost is a raft.StreamLayer at one address.
type memHost struct {
	network  *memNet
	address  string
	incoming chan net.Conn
	once     sync.Once
	closed   chan struct{}
}

func (h *memHost) Accept() (net.Conn, error) {
	select {
	case conn := <-h.incoming:
		return &memConn{conn, h.network, h.address}, nil
	case <-h.closed:
		return nil, errors.New("host is down")
	}
}

func (h *memHost) Dial(address raft.ServerAddress, _ time.Duration) (net.Conn, error) {
	conn, err := h.network.dial(h.address, string(address))
	if err != nil {
		return nil, err
	}
	return &memConn{conn, h.network, h.address}, nil
}

func (h *memHost) Close() error {
	h.once.Do(func() {
		close(h.closed)
		h.network.mu.Lock()
		defer h.network.mu.Unlock()
		if h.network.hosts[h.address] == h {
			delete(h.network.hosts, h.address)
		}
		for {
			select {
			case conn := <-h.incoming:
				_ = conn.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (h *memHost) Addr() net.Addr { return tcpAddress(h.address) }
