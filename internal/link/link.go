// Package link carries requests over a pair of streams: calls one way, answers
// the other, in no particular order. It serves all hops between controllers
// and their clients (the Exchange service).
//
// Control and data travel on two connections, so that a large tensor delays no
// heartbeat. What has gathered while a stream was busy is sent as one frame.
// A link that is silent for too long, or loses either stream, is broken as a
// whole: what was unanswered has an unknown outcome, and it is the caller who
// knows whether it may be sent again.
package link

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/outbox"
	"github.com/orrery-project/orrery/proto/exchangepb"
)

// ErrBroken says that the link ended before the answer came. The request may
// have been executed.
var ErrBroken = errors.New("the link is broken")

// ErrSilence says that the other end was silent for too long.
var ErrSilence = errors.New("nothing was heard")

// frameBytes bounds a data frame that holds more than one envelope.
const frameBytes = 1 << 20

// envelopeOverhead is counted against credit beside the payload.
const envelopeOverhead = 256

// Options of either end.
type Options struct {
	// Name of this end, for the other's logs.
	Name string
	// Heartbeat is the time between heartbeats, default 200 ms. Misses of
	// them in a row (default 6) break the link.
	Heartbeat time.Duration
	Misses    int
}

func (o Options) withDefaults() Options {
	if o.Heartbeat <= 0 {
		o.Heartbeat = 200 * time.Millisecond
	}
	if o.Misses <= 0 {
		o.Misses = 6
	}
	return o
}

// key names one attempt of one request on a link.
type key struct {
	request string
	attempt uint32
}

func keyOf(e *exchangepb.Envelope) key { return key{e.RequestId, e.Attempt} }

func cost(e *exchangepb.Envelope) int { return len(e.Payload) + envelopeOverhead }

// Link is the dialling end.
type Link struct {
	options Options
	control *outbox.Box[*exchangepb.ControlFrame]
	data    *outbox.Box[*exchangepb.Envelope]
	// alive is given a token whenever anything arrives.
	alive  chan struct{}
	ready  chan struct{}
	cancel context.CancelCauseFunc
	ctx    context.Context
	wait   sync.WaitGroup

	mu      sync.Mutex
	pending map[key]chan *exchangepb.Envelope
	credit  *exchangepb.Credit
	bytes   uint64
	closing bool
}

// Open opens a link over two connections and waits until the other end has
// granted credit. Close must be called on what it returns. It fails when ctx
// ends first or the other end refuses.
func Open(ctx context.Context, control, data grpc.ClientConnInterface, options Options) (*Link, error) {
	l := &Link{
		options: options.withDefaults(),
		control: outbox.New(1, func(*exchangepb.ControlFrame) int { return 1 }),
		data:    outbox.New(frameBytes, cost),
		alive:   make(chan struct{}, 1),
		ready:   make(chan struct{}),
		pending: map[key]chan *exchangepb.Envelope{},
	}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	// Until the link is open it ends with ctx, also while gRPC still dials.
	opened := context.AfterFunc(ctx, func() { l.cancel(ctx.Err()) })
	defer opened()
	fail := func(err error) (*Link, error) {
		l.cancel(err) // the first cause stays
		l.wait.Wait()
		return nil, fmt.Errorf("open a link: %w", context.Cause(l.ctx))
	}
	c, err := exchangepb.NewExchangeClient(control).Control(l.ctx)
	if err != nil {
		return fail(err)
	}
	d, err := exchangepb.NewExchangeClient(data).Data(l.ctx)
	if err != nil {
		return fail(err)
	}
	hello := &exchangepb.Hello{LinkId: rand.Text(), From: l.options.Name}
	l.start(func() error { return l.readControl(c) })
	l.start(func() error { return l.readData(d) })
	l.start(func() error {
		return l.sent(l.control.Drain(l.ctx.Done(), func(frames []*exchangepb.ControlFrame) error { return c.Send(frames[0]) }))
	})
	l.start(func() error {
		if err := d.Send(&exchangepb.DataFrame{Hello: hello}); err != nil {
			return l.sent(err)
		}
		return l.sent(l.data.Drain(l.ctx.Done(), func(envelopes []*exchangepb.Envelope) error {
			return d.Send(&exchangepb.DataFrame{Envelopes: envelopes})
		}))
	})
	l.start(l.watch)
	l.control.Put(&exchangepb.ControlFrame{Hello: hello})

	select {
	case <-l.ready:
		if opened() {
			return l, nil
		}
		<-l.ctx.Done() // ctx has ended just now
	case <-l.ctx.Done():
	}
	return fail(nil)
}

// start runs one of the link's goroutines; the first to return ends the link.
func (l *Link) start(run func() error) {
	l.wait.Go(func() { l.cancel(run()) })
}

// sent is the error of a Send. io.EOF says only that the stream has ended: the
// stream's reader gets the reason, and is let first.
func (l *Link) sent(err error) error {
	if errors.Is(err, io.EOF) {
		<-l.ctx.Done()
	}
	return err
}

// Broken is closed when the link has ended.
func (l *Link) Broken() <-chan struct{} { return l.ctx.Done() }

// Closing says that the other end has asked to send requests elsewhere.
func (l *Link) Closing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}

// Close ends the link and waits for its goroutines. Calls that are still
// unanswered fail with ErrBroken.
func (l *Link) Close() {
	l.cancel(errors.New("closed"))
	l.wait.Wait()
}

// Call sends a request and waits for its answer. It fails with errs.Overloaded
// when the credit is used up, with ErrBroken, or with the context's error
// (after having told the other end that nobody waits any more). The request
// belongs to the link from then on, however Call ends.
func (l *Link) Call(ctx context.Context, request *exchangepb.Envelope) (*exchangepb.Envelope, error) {
	k, size := keyOf(request), uint64(cost(request))
	answer, err := l.reserve(k, size)
	if err != nil {
		return nil, err
	}
	defer l.release(k, size)
	if deadline, ok := ctx.Deadline(); ok {
		request.TimeLeftNs = int64(time.Until(deadline))
	}
	l.data.Put(request)
	select {
	case a := <-answer:
		return a, nil
	case <-l.ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrBroken, context.Cause(l.ctx))
	case <-ctx.Done():
		l.control.Put(&exchangepb.ControlFrame{Cancels: []*exchangepb.Cancel{{RequestId: k.request, Attempt: k.attempt}}})
		return nil, ctx.Err()
	}
}

// reserve takes credit and makes the channel on which the answer will come.
func (l *Link) reserve(k key, size uint64) (<-chan *exchangepb.Envelope, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, context.Cause(l.ctx))
	}
	if l.closing {
		return nil, fmt.Errorf("%w: the other end takes no further requests", ErrBroken)
	}
	if l.pending[k] != nil {
		return nil, errs.New(errs.Internal, "request %s, attempt %d, is already on this link", k.request, k.attempt)
	}
	if len(l.pending) >= int(l.credit.Requests) || len(l.pending) > 0 && l.bytes+size > l.credit.Bytes {
		return nil, errs.New(errs.Overloaded,
			"%d requests (%d bytes) are unanswered, and the other end grants %d (%d bytes); send more slowly",
			len(l.pending), l.bytes, l.credit.Requests, l.credit.Bytes).After(100 * time.Millisecond)
	}
	answer := make(chan *exchangepb.Envelope, 1)
	l.pending[k] = answer
	l.bytes += size
	return answer, nil
}

func (l *Link) release(k key, size uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, k)
	l.bytes -= size
}

func (l *Link) readControl(stream exchangepb.Exchange_ControlClient) error {
	first := true
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		l.touch()
		l.mu.Lock()
		if frame.Credit != nil {
			l.credit = frame.Credit
		}
		l.closing = l.closing || frame.Closing
		l.mu.Unlock()
		if first && frame.Credit != nil {
			first = false
			close(l.ready)
		}
	}
}

func (l *Link) readData(stream exchangepb.Exchange_DataClient) error {
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		l.touch()
		for _, e := range frame.Envelopes {
			l.mu.Lock()
			answer := l.pending[keyOf(e)]
			delete(l.pending, keyOf(e))
			l.mu.Unlock()
			if answer != nil {
				answer <- e
			}
		}
	}
}

func (l *Link) touch() { touch(l.alive) }

func touch(alive chan<- struct{}) {
	select {
	case alive <- struct{}{}:
	default:
	}
}

// watch sends heartbeats and breaks the link when the other end is silent.
func (l *Link) watch() error {
	return Watch(l.ctx, l.options.Heartbeat, l.options.Misses, l.alive, func() {
		l.control.Put(&exchangepb.ControlFrame{Heartbeat: true})
	})
}

// Watch calls beat every heartbeat until ctx ends. It fails with ErrSilence when
// alive, which is to be given a token whenever anything is heard, stays silent
// for so many heartbeats in a row.
func Watch(ctx context.Context, heartbeat time.Duration, misses int, alive <-chan struct{}, beat func()) error {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	missed := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-alive:
			missed = 0
		case <-ticker.C:
			// A process that was stopped finds the ticker and what arrived
			// meanwhile at once: what arrived counts.
			select {
			case <-alive:
				missed = 0
			default:
			}
			if missed++; missed >= misses {
				return fmt.Errorf("%w for %v", ErrSilence, time.Duration(missed)*heartbeat)
			}
			beat()
		}
	}
}
