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

const (
	// dialTimeout bounds one attempt to reach a peer, with the greeting: a peer
	// that comes back while an attempt is on its way to nowhere is found after it.
	dialTimeout = 500 * time.Millisecond

	// minDialPause is the pause between two attempts to reach a peer that has just
	// gone. It grows with the time that the peer is away, to maxDialPause: a name
	// server should not notice that a peer is away for days.
	minDialPause = 25 * time.Millisecond
	maxDialPause = 200 * time.Millisecond
	dialPausePer = 100 // of the time away

	// strangerPause is the pause after another replica has answered. It will go on
	// to do so until somebody changes the members.
	strangerPause = time.Second
)

// stream wraps a StreamLayer and owns its connections: raft's transport leaves
// them open when it is closed, together with the goroutines that read from them.
// A connection begins with a greeting, so that a message reaches the replica that
// it is meant for, or nobody.
//
// It sets no read deadline on connections that it accepted. Those of elections
// are idle for days, and the next election would lose a round to each that was
// cut. Dead peers are the business of TCP's own keep-alive.
type stream struct {
	raft.StreamLayer
	done  chan struct{} // closed by Close
	ready chan struct{} // closed when host is there
	host  host

	impatient atomic.Int32 // how many ask that no dial is repeated
	began     time.Time

	mu       sync.Mutex
	closed   bool
	conns    map[*streamConn]struct{}
	away     map[raft.ServerAddress]time.Time // since when no attempt has succeeded
	handlers sync.WaitGroup                   // one for each accepted connection that is in use
}

// host is the replica that a stream belongs to.
type host interface {
	// greet returns what to say to the member at address, if there is one.
	greet(address raft.ServerAddress) (greeting, error)

	// admit returns nil if this replica is the one that was greeted.
	admit(greeting) error

	// errand returns a function that says whether a dial that begins now should
	// be repeated after it has failed.
	errand(address raft.ServerAddress) (stands func() bool)
}

func newStream(layer raft.StreamLayer) *stream {
	return &stream{
		StreamLayer: layer,
		done:        make(chan struct{}),
		ready:       make(chan struct{}),
		began:       time.Now(),
		conns:       map[*streamConn]struct{}{},
		away:        map[raft.ServerAddress]time.Time{},
	}
}

// serve says whom the stream belongs to. Until then all connections wait.
func (s *stream) serve(h host) {
	s.host = h
	close(s.ready)
}

// introduced waits for serve.
func (s *stream) introduced() error {
	select {
	case <-s.ready:
		return nil
	case <-s.done:
		return net.ErrClosed
	}
}

// Accept returns the next connection from a peer. Its user must close it. The
// greeting is read by the first Read.
func (s *stream) Accept() (net.Conn, error) {
	conn, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return s.adopt(conn, "")
}

// Dial connects to the member at address and greets it. While its errand stands,
// a failed attempt is followed by another: raft, which is told of every failure,
// would wait longer after each, and come late when the peer is back.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if err := s.introduced(); err != nil {
		return nil, err
	}
	stands := s.host.errand(address)
	for {
		conn, err := s.attempt(address, min(timeout, dialTimeout))
		pause := s.pause(address, err)
		if err == nil {
			return conn, nil
		}
		if s.impatient.Load() > 0 || !stands() {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-s.done:
			return nil, net.ErrClosed
		}
		if s.impatient.Load() > 0 || !stands() || errors.Is(err, errStranger) {
			return nil, err
		}
	}
}

// pause notes how an attempt to reach address went, and returns how long to wait
// before the next.
func (s *stream) pause(address raft.ServerAddress, err error) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.away, address)
		return 0
	}
	if errors.Is(err, errStranger) {
		return strangerPause
	}
	since, ok := s.away[address]
	if !ok {
		since = time.Now()
		s.away[address] = since
	}
	return min(max(time.Since(since)/dialPausePer, minDialPause), maxDialPause)
}

// attempt dials and greets once.
func (s *stream) attempt(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	greeting, err := s.host.greet(address)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(timeout)
	dialled, err := s.StreamLayer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	conn, err := s.adopt(dialled, address) // Close cuts it from here on
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(deadline)
	if err := greeting.send(conn); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greet %s at %s: %w", greeting.to, address, err)
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}

// hurry has dials fail at their first attempt until release is called, those that
// wait already included.
func (s *stream) hurry() (release func()) {
	s.impatient.Add(1)
	return func() { s.impatient.Add(-1) }
}

// answered reports whether something was received from address, within the last
// while, on a connection that was dialled and is still open.
func (s *stream) answered(address raft.ServerAddress, within time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		if last := conn.last.Load(); conn.dialled == address && last > 0 && time.Since(s.began)-time.Duration(last) <= within {
			return true
		}
	}
	return false
}

// cut breaks the connections that were dialled to address, and so ends what waits
// for an answer on them.
func (s *stream) cut(address raft.ServerAddress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		if conn.dialled == address {
			_ = conn.Conn.Close()
		}
	}
}

// Close stops accepting and dialling, and cuts all connections.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.done)
	for conn := range s.conns {
		_ = conn.Conn.Close()
	}
	return s.StreamLayer.Close()
}

// wait returns when every accepted connection was closed by its user, who then
// no longer handles a message from it. Call it after Close.
func (s *stream) wait() { s.handlers.Wait() }

// adopt makes conn one of the stream's. Dialled is empty for one that was accepted.
func (s *stream) adopt(conn net.Conn, dialled raft.ServerAddress) (*streamConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	owned := &streamConn{Conn: conn, stream: s, dialled: dialled}
	s.conns[owned] = struct{}{}
	if owned.accepted() {
		s.handlers.Add(1)
	}
	return owned, nil
}

// streamConn is a connection that its stream knows of until its user closes it.
type streamConn struct {
	net.Conn
	stream  *stream
	dialled raft.ServerAddress // empty if accepted
	last    atomic.Int64       // when something was last read, as a Duration since the stream began
	greeted bool               // owned by the one that reads
	once    sync.Once
}

func (c *streamConn) accepted() bool { return c.dialled == "" }

// Read reads what a peer has sent, once it has greeted this replica.
func (c *streamConn) Read(p []byte) (int, error) {
	if c.accepted() && !c.greeted {
		if err := c.receive(); err != nil {
			return 0, err
		}
		c.greeted = true
	}
	n, err := c.Conn.Read(p)
	if n > 0 && !c.accepted() {
		c.last.Store(int64(time.Since(c.stream.began)))
	}
	return n, err
}

func (c *streamConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.stream.mu.Lock()
		delete(c.stream.conns, c)
		c.stream.mu.Unlock()
		if c.accepted() {
			c.stream.handlers.Done()
		}
	})
	return err
}
