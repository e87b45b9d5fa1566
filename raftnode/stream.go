package raftnode

import (
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream wraps a StreamLayer and owns its connections: raft's transport leaves
// them open when it is closed, together with the goroutines that read from them.
//
// It sets no read deadline on connections that it accepted. Those of elections
// are idle for days, and the next election would lose a round to each that was
// cut. Dead peers are the business of TCP's own keep-alive.
type stream struct {
	raft.StreamLayer

	mu       sync.Mutex
	closed   bool
	conns    map[*streamConn]struct{}
	handlers sync.WaitGroup // one for each accepted connection that is in use
}

func newStream(layer raft.StreamLayer) *stream {
	return &stream{StreamLayer: layer, conns: map[*streamConn]struct{}{}}
}

// Accept returns the next connection from a peer. Its user must close it.
func (s *stream) Accept() (net.Conn, error) {
	conn, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return s.adopt(conn, true)
}

// Dial connects to a peer, unless the stream is closed.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	conn, err := s.StreamLayer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	return s.adopt(conn, false)
}

// Close stops accepting and dialling, and cuts all connections.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for conn := range s.conns {
		_ = conn.Conn.Close()
	}
	return s.StreamLayer.Close()
}

// wait returns when every accepted connection was closed by its user, who then
// no longer handles a message from it. Call it after Close.
func (s *stream) wait() { s.handlers.Wait() }

func (s *stream) adopt(conn net.Conn, accepted bool) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	owned := &streamConn{Conn: conn, stream: s, accepted: accepted}
	s.conns[owned] = struct{}{}
	if accepted {
		s.handlers.Add(1)
	}
	return owned, nil
}

// streamConn is a connection that its stream knows of until its user closes it.
type streamConn struct {
	net.Conn
	stream   *stream
	accepted bool
	once     sync.Once
}

func (c *streamConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.stream.mu.Lock()
		delete(c.stream.conns, c)
		c.stream.mu.Unlock()
		if c.accepted {
			c.stream.handlers.Done()
		}
	})
	return err
}
