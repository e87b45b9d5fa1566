package testnet

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// packetQueue is how many packets may wait to be read; further ones are lost, as in a socket's buffer.
const packetQueue = 1024

// gossipTransport carries memberlist's packets and streams. The address in it is the host's IP address, because
// memberlist knows no names.
type gossipTransport struct {
	host    *Host
	streams *listener
	packets chan *memberlist.Packet
	ctx     context.Context // ends with the transport, and ends its dials
	cancel  context.CancelFunc
}

var _ memberlist.NodeAwareTransport = (*gossipTransport)(nil)

// GossipTransport takes a port of this host, 0 for a free one, for a memberlist. Its Shutdown closes the streams too, so
// that all of the memberlist's goroutines end at once, except a probe under way: that takes up to the probe interval
// times Config.AwarenessMaxMultiplier, and a bubble has to let this time pass before it ends.
func (h *Host) GossipTransport(port int) (memberlist.NodeAwareTransport, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	address := net.JoinHostPort(h.name, strconv.Itoa(port))
	l, err := h.listen(address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: addr(address), Err: err}
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &gossipTransport{
		host:    h,
		streams: l,
		packets: make(chan *memberlist.Packet, packetQueue),
		ctx:     ctx,
		cancel:  cancel,
	}
	h.net.gossips[l.at] = t
	return t, nil
}

// FinalAdvertiseAddr returns the host's IP address and the transport's port, whatever is configured.
func (t *gossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.host.ip.AsSlice(), t.streams.at.port, nil
}

func (t *gossipTransport) WriteTo(b []byte, address string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: address})
}

// WriteToAddress sends a packet. It is lost without an error behind a cut, or if nobody is there.
func (t *gossipTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	now := time.Now()
	n := t.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	to, err := t.host.endpoint(a.Addr)
	if err != nil {
		return now, err
	}
	if t.streams.closed {
		return now, &net.OpError{Op: "write", Net: "udp", Addr: to.addr(), Err: net.ErrClosed}
	}
	if n.cut(t.host.name, to.host) {
		return now, nil
	}
	from := netip.AddrPortFrom(t.host.ip, uint16(t.streams.at.port))
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(from)}
	if n.latency == 0 {
		n.deliver(to, packet)
		return now, nil
	}
	time.AfterFunc(n.latency, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.deliver(to, packet)
	})
	return now, nil
}

// deliver hands a packet to whoever has the port by now. The lock is held.
func (n *Network) deliver(to endpoint, p *memberlist.Packet) {
	t := n.gossips[to]
	if t == nil {
		return
	}
	p.Timestamp = time.Now()
	select {
	case t.packets <- p:
	default:
	}
}

func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.streams.backlog }

func (t *gossipTransport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

func (t *gossipTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	c, err := t.host.dial(ctx, a.Addr, t.streams)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: addr(a.Addr), Err: err}
	}
	return c, nil
}

// Shutdown frees the port and closes all streams. It may be called again.
func (t *gossipTransport) Shutdown() error {
	t.host.net.mu.Lock()
	defer t.host.net.mu.Unlock()
	t.close()
	return nil
}

// close is Shutdown with the lock held.
func (t *gossipTransport) close() {
	if t.streams.closed {
		return
	}
	t.cancel()
	t.streams.close()
	delete(t.host.net.gossips, t.streams.at)
	for c := range t.host.net.ends {
		if c.via == t.streams {
			c.close()
		}
	}
}
