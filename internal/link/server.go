package link

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/outbox"
	"github.com/orrery-project/orrery/proto/exchangepb"
)

// pairing bounds how long one stream of a link waits for the other.
const pairing = 10 * time.Second

// Handler takes the requests of all links of a server.
type Handler interface {
	// Handle must not block. It calls reply exactly once, from any goroutine;
	// after ctx has ended nobody listens. ctx ends when the caller cancels or
	// the link breaks.
	Handle(ctx context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope))
}

// Server is the accepting end of any number of links.
type Server struct {
	exchangepb.UnimplementedExchangeServer
	handler Handler
	options Options
	credit  *exchangepb.Credit

	mu      sync.Mutex
	links   map[string]*accepted
	closing bool
	// streams counts the handlers of streams and their goroutines. It is
	// raised from 0 only with mu held, and not while closing.
	streams sync.WaitGroup
}

// NewServer makes a server that grants each link the right to so many
// unanswered requests and bytes.
func NewServer(handler Handler, options Options, requests int, bytes int64) *Server {
	return &Server{
		handler: handler,
		options: options.withDefaults(),
		credit:  &exchangepb.Credit{Requests: uint32(requests), Bytes: uint64(bytes)},
		links:   map[string]*accepted{},
	}
}

// accepted is one link as its accepting end sees it.
type accepted struct {
	control *outbox.Box[*exchangepb.ControlFrame]
	data    *outbox.Box[*exchangepb.Envelope]
	alive   chan struct{}
	ctx     context.Context
	cancel  context.CancelCauseFunc
	// streams counts which of the two are attached.
	hasControl, hasData bool

	mu      sync.Mutex
	pending map[key]context.CancelFunc
	bytes   uint64
}

// Refuse asks all callers to send further requests elsewhere. What was
// accepted is still answered.
func (s *Server) Refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for _, a := range s.links {
		a.control.Put(&exchangepb.ControlFrame{Closing: true})
	}
}

// Close breaks all links and waits for their goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	s.closing = true
	for _, a := range s.links {
		a.cancel(errors.New("the server is closing"))
	}
	s.mu.Unlock()
	s.streams.Wait()
}

// attach finds or makes the link that a stream belongs to. detach must be
// called when the stream has ended.
func (s *Server) attach(hello *exchangepb.Hello, control bool) (*accepted, error) {
	if len(hello.GetLinkId()) < 16 {
		return nil, status.Error(codes.InvalidArgument, "the first frame must have a hello with a link id of at least 16 characters")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, grpcerr.Status(errs.New(errs.ShuttingDown, "this controller is shutting down; call another one"))
	}
	a := s.links[hello.LinkId]
	if a == nil {
		a = &accepted{
			control: outbox.New(1, func(*exchangepb.ControlFrame) int { return 1 }),
			data:    outbox.New(frameBytes, cost),
			alive:   make(chan struct{}, 1),
			pending: map[key]context.CancelFunc{},
		}
		a.ctx, a.cancel = context.WithCancelCause(context.Background())
		s.links[hello.LinkId] = a
		time.AfterFunc(pairing, func() { s.expire(a) })
	}
	if control && a.hasControl || !control && a.hasData {
		return nil, status.Error(codes.AlreadyExists, "this link has such a stream already")
	}
	a.hasControl, a.hasData = a.hasControl || control, a.hasData || !control
	s.streams.Add(1)
	return a, nil
}

// expire breaks a link whose second stream never came.
func (s *Server) expire(a *accepted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.hasControl || !a.hasData {
		a.cancel(errors.New("the link's other stream did not come"))
	}
}

func (s *Server) detach(id string, a *accepted) {
	defer s.streams.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[id] == a {
		delete(s.links, id)
	}
}

// Control serves the control stream of a link.
func (s *Server) Control(stream grpc.BidiStreamingServer[exchangepb.ControlFrame, exchangepb.ControlFrame]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	a, err := s.attach(first.Hello, true)
	if err != nil {
		return err
	}
	defer s.detach(first.Hello.LinkId, a)
	a.control.Put(&exchangepb.ControlFrame{Credit: s.credit})
	s.streams.Go(func() {
		a.cancel(Watch(a.ctx, s.options.Heartbeat, s.options.Misses, a.alive, func() { a.control.Put(&exchangepb.ControlFrame{Heartbeat: true}) }))
	})
	receive := func() error {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, c := range frame.Cancels {
			a.forget(key{c.RequestId, c.Attempt})
		}
		return nil
	}
	return s.move(a, stream.Context(), receive, func() error {
		return a.control.Drain(a.ctx.Done(), func(frames []*exchangepb.ControlFrame) error { return stream.Send(frames[0]) })
	})
}

// Data serves the data stream of a link.
func (s *Server) Data(stream grpc.BidiStreamingServer[exchangepb.DataFrame, exchangepb.DataFrame]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	a, err := s.attach(first.Hello, false)
	if err != nil {
		return err
	}
	defer s.detach(first.Hello.LinkId, a)
	frame := first // it may hold requests too
	receive := func() (err error) {
		for _, e := range frame.GetEnvelopes() {
			s.accept(a, e)
		}
		frame, err = stream.Recv()
		return err
	}
	return s.move(a, stream.Context(), receive, func() error {
		return a.data.Drain(a.ctx.Done(), func(envelopes []*exchangepb.Envelope) error {
			return stream.Send(&exchangepb.DataFrame{Envelopes: envelopes})
		})
	})
}

// move runs a stream's reader and writer until the link ends. It can't wait
// for them: only the return of the stream's handler ends a Recv, or a Send to
// somebody who does not read. The server waits for them.
func (s *Server) move(a *accepted, stream context.Context, receive, send func() error) error {
	s.streams.Go(func() {
		for {
			err := receive()
			if err == nil {
				err = stream.Err() // what is still buffered is of no use
			}
			if err != nil {
				a.cancel(err)
				return
			}
			touch(a.alive)
		}
	})
	s.streams.Go(func() { a.cancel(send()) })
	<-a.ctx.Done()
	return a.end()
}

// accept takes one request, within the link's credit.
func (s *Server) accept(a *accepted, request *exchangepb.Envelope) {
	k, size := keyOf(request), uint64(cost(request))
	ctx, err := a.admit(k, size, s.credit)
	if err != nil {
		a.data.Put(&exchangepb.Envelope{RequestId: k.request, Attempt: k.attempt, Answer: grpcerr.Answer(err)})
		return
	}
	s.handler.Handle(ctx, request, func(answer *exchangepb.Envelope) {
		if a.settle(k, size) {
			answer.RequestId, answer.Attempt = k.request, k.attempt
			a.data.Put(answer)
		}
	})
}

// admit counts a request and makes its context.
func (a *accepted) admit(k key, size uint64, credit *exchangepb.Credit) (context.Context, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, twice := a.pending[k]; twice {
		return nil, errs.New(errs.Invalid, "request %s, attempt %d, is already on this link", k.request, k.attempt)
	}
	if len(a.pending) >= int(credit.Requests) || len(a.pending) > 0 && a.bytes+size > credit.Bytes {
		return nil, errs.New(errs.Overloaded, "the link's credit of %d requests and %d bytes is used up", credit.Requests, credit.Bytes)
	}
	ctx, cancel := context.WithCancel(a.ctx)
	a.pending[k] = cancel
	a.bytes += size
	return ctx, nil
}

// settle counts a request as answered, and says whether anybody still waits
// for the answer.
func (a *accepted) settle(k key, size uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bytes -= size
	cancel := a.pending[k]
	if cancel == nil {
		return false
	}
	delete(a.pending, k)
	cancel()
	return true
}

// forget cancels a request whose caller has given up; its answer is dropped.
func (a *accepted) forget(k key) {
	a.mu.Lock()
	cancel := a.pending[k]
	delete(a.pending, k)
	a.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// end is what a stream's handler returns when the link has ended.
func (a *accepted) end() error {
	cause := context.Cause(a.ctx)
	if errors.Is(cause, io.EOF) || errors.Is(cause, context.Canceled) {
		return nil
	}
	return status.Error(codes.Unavailable, cause.Error())
}
