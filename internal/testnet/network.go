// Package testnet is a network in memory for tests of whole clusters. Its hosts listen, dial and gossip as on TCP and
// UDP, and a test cuts links, heals them and kills hosts.
//
// Everything that waits, waits on channels and timers and holds no lock, and no connection has a goroutine of its own:
// so a network that is made inside a testing/synctest bubble neither stops the virtual clock nor leaves anything behind.
package testnet

import (
	"net/netip"
	"sync"
	"time"
)

// Network joins hosts. Make one with New; all methods may be called from any goroutine.
type Network struct {
	mu       sync.Mutex // guards everything in the network, its hosts, listeners and connections; never held across a wait
	latency  time.Duration
	lastPort int
	hosts    map[string]*Host // the living ones
	ips      map[string]netip.Addr
	names    map[netip.Addr]string

	cuts     map[link]bool
	isolated map[string]bool

	listeners map[endpoint]*listener
	gossips   map[endpoint]*gossipTransport
	ends      map[*conn]struct{} // open ends of connections
	changed   signal             // a link was cut or healed, or a host was killed
}

// link is one direction between two hosts.
type link struct{ from, to string }

type endpoint struct {
	host string
	port int
}

// New returns a network without hosts, latency or cuts.
func New() *Network {
	return &Network{
		lastPort:  40000,
		hosts:     make(map[string]*Host),
		ips:       make(map[string]netip.Addr),
		names:     make(map[netip.Addr]string),
		cuts:      make(map[link]bool),
		isolated:  make(map[string]bool),
		listeners: make(map[endpoint]*listener),
		gossips:   make(map[endpoint]*gossipTransport),
		ends:      make(map[*conn]struct{}),
	}
}

// Host returns the living host of this name, and makes it if there is none. A name keeps its IP address when its host is
// killed and made again.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h, ok := n.hosts[name]; ok {
		return h
	}
	ip, ok := n.ips[name]
	if !ok {
		i := len(n.ips) + 1
		ip = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		n.ips[name], n.names[ip] = ip, name
	}
	h := &Host{net: n, name: name, ip: ip}
	n.hosts[name] = h
	return h
}

// SetLatency makes bytes and packets that are sent from now on arrive d later, and a dial take twice as long.
func (n *Network) SetLatency(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = d
}

// Cut drops everything between a and b from now on. Connections stay open and stall, new dials hang, packets are lost.
// What had arrived before can still be read.
func (n *Network) Cut(a, b string) {
	n.change(func() { n.cuts[link{a, b}], n.cuts[link{b, a}] = true, true })
}

// CutOneWay drops what is sent in one direction only. Dials hang in both, since a handshake needs both.
func (n *Network) CutOneWay(from, to string) {
	n.change(func() { n.cuts[link{from, to}] = true })
}

// Heal undoes Cut and CutOneWay between a and b. Bytes that were written to connections meanwhile are delivered now, as
// TCP would have sent them again. It doesn't undo Isolate.
func (n *Network) Heal(a, b string) {
	n.change(func() {
		delete(n.cuts, link{a, b})
		delete(n.cuts, link{b, a})
	})
}

// Isolate cuts a host off from all others, also from those that don't exist yet, until Rejoin or HealAll.
func (n *Network) Isolate(name string) {
	n.change(func() { n.isolated[name] = true })
}

// Rejoin undoes Isolate. Links that were cut one by one stay cut.
func (n *Network) Rejoin(name string) {
	n.change(func() { delete(n.isolated, name) })
}

// HealAll undoes every cut and every isolation.
func (n *Network) HealAll() {
	n.change(func() {
		clear(n.cuts)
		clear(n.isolated)
	})
}

// Kill ends the process on a host: its listeners, connections and gossip transports close, also in its own hands, and the
// Host value is of no use any more. Peers read EOF after what was sent before, or, behind a cut, only once that is
// healed. Host(name) then makes the machine anew, for a restarted process. Killing a host that isn't there does nothing.
func (n *Network) Kill(name string) {
	n.change(func() {
		h, ok := n.hosts[name]
		if !ok {
			return
		}
		h.dead = true
		delete(n.hosts, name)
		for _, g := range n.gossips {
			if g.host == h {
				g.close()
			}
		}
		for _, l := range n.listeners {
			if l.host == h {
				l.close()
			}
		}
		for c := range n.ends {
			if c.host == h {
				c.close()
			}
		}
	})
}

// change alters the links, releases what is no longer held back by a cut, and wakes the dials that wait.
func (n *Network) change(alter func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	alter()
	for c := range n.ends {
		c.release()
	}
	n.changed.fire()
}

// cut says whether what is sent from one host to another is lost. The lock is held.
func (n *Network) cut(from, to string) bool {
	return from != to && (n.isolated[from] || n.isolated[to] || n.cuts[link{from, to}])
}

// freePort returns a port that was never given out before in this network. The lock is held.
func (n *Network) freePort() int {
	n.lastPort++
	return n.lastPort
}

// wait gives up the lock until s fires, done closes, or the clock reaches at; a nil done and a zero at never come.
func (n *Network) wait(s *signal, done <-chan struct{}, at time.Time) {
	fired := s.channel()
	n.mu.Unlock()
	defer n.mu.Lock()

	var clock <-chan time.Time
	if !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		clock = timer.C
	}
	select {
	case <-fired:
	case <-done:
	case <-clock:
	}
}

// signal wakes all who wait for a change of what the network's lock guards. It is used with that lock held.
type signal struct{ ch chan struct{} }

func (s *signal) channel() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
