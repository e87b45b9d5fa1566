package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

const (
	// peerHeartbeat is what the link between follower and leader beats at.
	peerHeartbeat = 100 * time.Millisecond
	// routeRetry is the pause after a failed attempt to reach the leader.
	routeRetry = 30 * time.Millisecond
)

// way is how the leader is reached from here. The zero value means that there
// is none.
type way struct {
	// term is set when this replica leads.
	term *term
	// link and peer are set when another one does.
	link *link.Link
	peer peerpb.PeerClient
}

func (w way) known() bool { return w.term != nil || w.link != nil }

// call brings a request to the leader and waits for its answer.
func (w way) call(ctx context.Context, request *exchangepb.Envelope) (*exchangepb.Envelope, error) {
	if w.link != nil {
		return w.link.Call(ctx, request)
	}
	if deadline, ok := ctx.Deadline(); ok {
		request.TimeLeftNs = int64(time.Until(deadline))
	}
	answer := make(chan *exchangepb.Envelope, 1)
	w.term.dispatcher.Handle(ctx, request, func(a *exchangepb.Envelope) { answer <- a })
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask makes a call to the leader's peer service that ends with the link, with
// link.ErrBroken: a leader that is cut off neither answers nor hangs up.
func (w way) ask(ctx context.Context, call func(context.Context) error) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching.Go(func() {
		select {
		case <-w.link.Broken():
			cancel(link.ErrBroken)
		case <-ctx.Done():
		}
	})
	err := call(ctx)
	if err != nil && errors.Is(context.Cause(ctx), link.ErrBroken) {
		return link.ErrBroken
	}
	return grpcerr.FromStatus(err)
}

// resolve asks the leader for a model.
func (w way) resolve(ctx context.Context, name, version string) (*logpb.Model, error) {
	if w.term != nil {
		return w.term.resolve(ctx, name, version)
	}
	var answer *peerpb.ResolveResponse
	err := w.ask(ctx, func(ctx context.Context) (err error) {
		answer, err = w.peer.Resolve(ctx, &peerpb.ResolveRequest{Name: name, Version: version})
		return err
	})
	return answer.GetModel(), err
}

// route follows the leader.
type route struct {
	c *Controller

	mu      sync.Mutex
	way     way
	changed chan struct{}
	// since is when the present way was lost; zero while there is one.
	since time.Time
}

func newRoute(c *Controller) *route {
	return &route{c: c, changed: make(chan struct{}), since: c.epoch}
}

// current is the way to the leader now, and a channel that is closed when it
// changes.
func (r *route) current() (way, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.way, r.changed
}

// leaderless is how long there has been no way to a leader.
func (r *route) leaderless() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.way.known() {
		return 0
	}
	return time.Since(r.since)
}

// wait returns a way to the leader, as soon as there is one.
func (r *route) wait(ctx context.Context) (way, error) {
	for {
		w, changed := r.current()
		if w.known() {
			return w, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return way{}, ctx.Err()
		}
	}
}

func (r *route) set(w way) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replace(w)
}

// replace is set under the lock.
func (r *route) replace(w way) {
	if w == r.way {
		return
	}
	if r.way.known() && !w.known() {
		r.since = time.Now()
	}
	r.way = w
	close(r.changed)
	r.changed = make(chan struct{})
}

// run keeps the way up to date. While this replica leads, its term sets the
// way itself (see Controller.lead).
func (r *route) run(ctx context.Context) {
	for ctx.Err() == nil {
		id, address := r.c.options.Consensus.Leader()
		following, cancel := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() {
			r.awaitOtherLeader(following, id, address)
			cancel()
		})
		if address != "" && id != r.c.options.Consensus.ID() {
			r.follow(following, address)
		}
		watching.Wait()
		cancel()
	}
}

// awaitOtherLeader returns when the leader is no longer the given one, or ctx
// ends.
func (r *route) awaitOtherLeader(ctx context.Context, id, address string) {
	for {
		changed := r.c.options.Consensus.LeaderChanged()
		if nowID, nowAddress := r.c.options.Consensus.Leader(); nowID != id || nowAddress != address {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// follow keeps a link to the leader until ctx ends.
func (r *route) follow(ctx context.Context, raftAddress string) {
	for ctx.Err() == nil {
		r.attempt(ctx, raftAddress)
		select {
		case <-ctx.Done():
		case <-time.After(routeRetry):
		}
	}
}

// attempt opens one link to the leader and holds it until it breaks.
func (r *route) attempt(ctx context.Context, raftAddress string) {
	address, ok := r.c.peers.addressOf(ctx, raftAddress)
	if !ok {
		return
	}
	peer, err := r.c.peers.client(address)
	if err != nil {
		return
	}
	l, closeConns, err := openLink(ctx, address, r.c.options)
	if err != nil {
		r.c.log.Debug("no link to the leader", "address", address, "error", err)
		return
	}
	defer closeConns()
	defer l.Close()
	w := way{link: l, peer: peer}
	r.set(w)
	defer r.clear(w)
	select {
	case <-ctx.Done():
	case <-l.Broken():
		r.c.options.Consensus.SuspectLeader()
	}
}

// clear ends a way, unless another one has been set meanwhile.
func (r *route) clear(w way) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.way == w {
		r.replace(way{})
	}
}

// openLink dials both connections of a link.
func openLink(ctx context.Context, address string, o Options) (*link.Link, func(), error) {
	conns := make([]*rpc.Conn, 2)
	closeConns := func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
	for i := range conns {
		conn, err := rpc.Connect(address, o.Dial, o.MaxMessage)
		if err != nil {
			closeConns()
			return nil, nil, err
		}
		conns[i] = conn
	}
	opening, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	l, err := link.Open(opening, conns[0], conns[1], link.Options{Name: o.Name, Heartbeat: peerHeartbeat})
	if err != nil {
		closeConns()
		return nil, nil, err
	}
	return l, closeConns, nil
}

// forwarded takes the requests that followers forward. It is the accepting end
// of their links.
type forwarded struct{ c *Controller }

// Handle implements link.Handler.
func (f forwarded) Handle(ctx context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	t := f.c.term.Load()
	if t == nil {
		reply(failed(errs.New(errs.NotLeader, "%s does not lead", f.c.options.Name)))
		return
	}
	t.dispatcher.Handle(ctx, request, reply)
}
