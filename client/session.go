package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/rpc"
)

// openTimeout bounds the opening of a link, so that a host that swallows
// packets does not use up the time of the requests that wait.
const openTimeout = time.Second

// session is a link to one controller. It is closed when the last one who
// holds it lets go: a request, or the sessions that offer it to new requests.
type session struct {
	address string
	link    *link.Link
	conns   [2]*rpc.Conn
	// holders is guarded by sessions.mu.
	holders int
}

func (s *session) usable() bool {
	select {
	case <-s.link.Broken():
		return false
	default:
		return !s.link.Closing()
	}
}

// sessions keeps a link to one controller, and replaces it when it has ended.
type sessions struct {
	options Options
	// opening is held by the caller that opens a link; the others wait for it.
	opening chan struct{}
	// closed ends what Close may not wait for.
	closed context.Context
	cancel context.CancelFunc
	// open counts the sessions that are not closed yet.
	open sync.WaitGroup

	mu      sync.Mutex
	current *session
	live    map[*session]struct{}
	// next is the index of the address that is tried next.
	next int
	// last is why the last attempt to open a link failed.
	last error
}

func newSessions(o Options) *sessions {
	s := &sessions{options: o, opening: make(chan struct{}, 1), live: map[*session]struct{}{}}
	s.closed, s.cancel = context.WithCancel(context.Background())
	return s
}

// hold returns a session that can be used; release must be called on it. It
// fails when ctx ends before there is one.
func (p *sessions) hold(ctx context.Context) (*session, error) {
	if len(p.options.Inference) == 0 {
		return nil, errs.New(errs.Invalid, "the client has no inference address of any controller; give it one")
	}
	for failed := 0; ; {
		if s := p.use(); s != nil {
			return s, nil
		}
		select {
		case p.opening <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.closed.Done():
			return nil, errs.New(errs.Cancelled, "the client is closed")
		}
		s := p.use()
		if s == nil {
			s = p.renew(ctx)
		}
		if s == nil {
			// The pause is made before others may try.
			if failed++; failed%len(p.options.Inference) == 0 {
				pause(ctx, retryPause)
			}
		}
		<-p.opening
		switch {
		case s != nil:
			return s, nil
		case p.closed.Err() != nil:
			return nil, errs.New(errs.Cancelled, "the client is closed")
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
	}
}

// use holds the present session, if it can be used, and else lets go of it.
func (p *sessions) use() *session {
	p.mu.Lock()
	s := p.current
	if s == nil || s.usable() {
		if s != nil {
			s.holders++
		}
		p.mu.Unlock()
		return s
	}
	p.mu.Unlock()
	p.retire(s)
	return nil
}

// retire makes new requests use another session.
func (p *sessions) retire(s *session) {
	p.mu.Lock()
	mine := p.current == s
	if mine {
		p.current = nil
	}
	p.mu.Unlock()
	if mine {
		p.release(s)
	}
}

// release lets go of a session.
func (p *sessions) release(s *session) {
	p.mu.Lock()
	s.holders--
	over := s.holders == 0
	if over {
		delete(p.live, s)
	}
	p.mu.Unlock()
	if over {
		defer p.open.Done()
		s.link.Close()
		closeAll(s.conns)
	}
}

// renew opens a link to the next controller. It returns nil when that failed.
func (p *sessions) renew(ctx context.Context) *session {
	p.mu.Lock()
	address := p.options.Inference[p.next%len(p.options.Inference)]
	p.next++
	p.mu.Unlock()
	s, err := p.dial(ctx, address)

	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.last = fmt.Errorf("%s: %w", address, err)
		return nil
	}
	if p.closed.Err() != nil {
		s.link.Close()
		closeAll(s.conns)
		return nil
	}
	p.open.Add(1)
	s.holders = 2 // the caller, and current
	p.current, p.live[s], p.last = s, struct{}{}, nil
	return s
}

func (p *sessions) dial(ctx context.Context, address string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	defer context.AfterFunc(p.closed, cancel)()
	s := &session{address: address}
	for i := range s.conns {
		conn, err := rpc.Connect(address, p.options.Dial, p.options.MaxMessage)
		if err != nil {
			closeAll(s.conns)
			return nil, err
		}
		s.conns[i] = conn
	}
	// A link outlives the context that it is opened under, and so does its wait
	// for a connection: only closing those ends it in time.
	stop := context.AfterFunc(ctx, func() { closeAll(s.conns) })
	l, err := link.Open(ctx, s.conns[0], s.conns[1], link.Options{Name: p.options.Name})
	if !stop() && err == nil {
		l.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		closeAll(s.conns)
		return nil, err
	}
	s.link = l
	return s, nil
}

func closeAll(conns [2]*rpc.Conn) {
	for _, conn := range conns {
		if conn != nil {
			_ = conn.Close() // fails only when it is closed already
		}
	}
}

// why is what kept the last link from being opened.
func (p *sessions) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// close breaks all links and waits until they are gone.
func (p *sessions) close() {
	p.mu.Lock()
	p.cancel()
	current := p.current
	var live []*session
	for s := range p.live {
		live = append(live, s)
	}
	p.mu.Unlock()
	for _, s := range live {
		s.link.Close()
	}
	if current != nil {
		p.retire(current)
	}
	p.open.Wait()
}

// lost says that a request may be sent again because its session has ended.
func lost(err error) bool {
	return errors.Is(err, link.ErrBroken) || errors.Is(err, errs.ShuttingDown)
}
