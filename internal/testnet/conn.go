package testnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// bufferBytes is what a connection holds in each direction, sent and not yet read; writers wait when it is full.
const bufferBytes = 4 << 20

// segmentBytes bounds how much is gathered in one segment.
const segmentBytes = 64 << 10

// conn is one end of a connection.
type conn struct {
	host          *Host
	via           *listener // the listener or gossip transport that it belongs to; nil if dialled by Host.Dial
	local, remote addr
	peer          *conn

	inbox    []segment
	buffered int // bytes in inbox
	closed   bool
	readBy   time.Time
	writeBy  time.Time
	changed  signal // whatever Read or Write may wait for
}

// segment is a run of bytes, or the end of the stream, on its way to an end.
type segment struct {
	data []byte
	end  bool
	at   time.Time // of arrival; zero while a cut holds it back
}

func (s segment) arrived(now time.Time) bool {
	return !s.at.IsZero() && !s.at.After(now)
}

// Read waits for bytes, the end of the stream, the deadline or Close.
func (c *conn) Read(p []byte) (int, error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		now := time.Now()
		switch {
		case c.closed:
			return 0, c.failed("read", net.ErrClosed)
		case past(c.readBy, now):
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		wake := c.readBy
		if len(c.inbox) > 0 {
			head := c.inbox[0]
			if head.arrived(now) && head.end {
				return 0, io.EOF
			}
			if head.arrived(now) {
				return c.take(p, now), nil
			}
			wake = earlier(wake, head.at)
		}
		n.wait(&c.changed, nil, wake)
	}
}

// take moves what has arrived to p.
func (c *conn) take(p []byte, now time.Time) (taken int) {
	for len(c.inbox) > 0 && taken < len(p) {
		head := &c.inbox[0]
		if head.end || !head.arrived(now) {
			break
		}
		k := copy(p[taken:], head.data)
		taken += k
		head.data = head.data[k:]
		if len(head.data) == 0 {
			c.inbox = c.inbox[1:]
		}
	}
	c.buffered -= taken
	c.peer.changed.fire()
	return taken
}

// Write puts bytes on their way, and waits only while the buffer is full.
func (c *conn) Write(p []byte) (written int, err error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		now := time.Now()
		wake := c.writeBy
		switch {
		case c.closed:
			return written, c.failed("write", net.ErrClosed)
		case past(c.writeBy, now):
			return written, c.failed("write", os.ErrDeadlineExceeded)
		}
		if k := len(c.inbox); k > 0 && c.inbox[k-1].end {
			last := c.inbox[k-1]
			if last.arrived(now) {
				return written, c.failed("write", os.NewSyscallError("write", syscall.EPIPE))
			}
			wake = earlier(wake, last.at)
		}
		if room := min(bufferBytes-c.peer.buffered, len(p)-written); room > 0 {
			c.peer.receive(segment{data: p[written : written+room]})
			written += room
		}
		if written == len(p) {
			return written, nil
		}
		n.wait(&c.changed, nil, wake)
	}
}

// receive puts a copy of what the peer sends into the inbox.
func (c *conn) receive(s segment) {
	s.at = c.arrival()
	c.buffered += len(s.data)
	if k := len(c.inbox); !s.end && k > 0 && c.inbox[k-1].at.Equal(s.at) && len(c.inbox[k-1].data)+len(s.data) <= segmentBytes {
		c.inbox[k-1].data = append(c.inbox[k-1].data, s.data...)
	} else {
		s.data = append([]byte(nil), s.data...)
		c.inbox = append(c.inbox, s)
	}
	c.changed.fire()
}

// arrival is when something that is sent to this end now gets there; zero if a cut holds it back.
func (c *conn) arrival() time.Time {
	n := c.host.net
	if n.cut(c.peer.host.name, c.host.name) {
		return time.Time{}
	}
	at := time.Now().Add(n.latency)
	if k := len(c.inbox); k > 0 && c.inbox[k-1].at.After(at) {
		return c.inbox[k-1].at // the latency was lowered: no overtaking
	}
	return at
}

// release lets segments go that no cut holds back any more.
func (c *conn) release() {
	for i := range c.inbox {
		if c.inbox[i].at.IsZero() {
			c.inbox[i].at = c.arrival()
		}
	}
	c.changed.fire()
}

// Close ends both directions. The peer reads EOF after what was written before, and can't write any more.
func (c *conn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.failed("close", net.ErrClosed)
	}
	c.close()
	return nil
}

// close is Close with the lock held; it may be called again.
func (c *conn) close() {
	if c.closed {
		return
	}
	c.closed = true
	delete(c.host.net.ends, c)
	c.peer.receive(segment{end: true})
	c.changed.fire()
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(&t, &t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadlines(&t, nil)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadlines(nil, &t)
}

func (c *conn) setDeadlines(read, write *time.Time) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.failed("set", net.ErrClosed)
	}
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	c.changed.fire()
	return nil
}

func (c *conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// past says whether a deadline is over; a zero one never is.
func past(deadline, now time.Time) bool {
	return !deadline.IsZero() && !deadline.After(now)
}

// earlier returns the sooner of two times, where zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
