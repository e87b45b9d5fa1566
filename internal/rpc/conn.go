package rpc

import (
	"net"
	"sync"

	"google.golang.org/grpc"
)

// Conn is a gRPC connection that is closed at once, also when the other side's
// machine has vanished: gRPC's own Close waits up to five seconds for a write
// that nobody acknowledges any more.
type Conn struct {
	*grpc.ClientConn

	mu     sync.Mutex
	closed bool
	open   map[*socket]struct{}
}

// Close ends all calls on the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	for s := range c.open {
		_ = s.Conn.Close() // ends the write that gRPC would wait for
	}
	c.mu.Unlock()
	return c.ClientConn.Close()
}

// adopt notes what was dialled.
func (c *Conn) adopt(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	s := &socket{conn, c}
	c.open[s] = struct{}{}
	return s, nil
}

// socket is what a Conn has dialled, until gRPC or the Conn closes it.
type socket struct {
	net.Conn
	of *Conn
}

func (s *socket) Close() error {
	s.of.mu.Lock()
	delete(s.of.open, s)
	s.of.mu.Unlock()
	return s.Conn.Close()
}
