package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/rpc"
)

// patience bounds one attempt of a call, so that a controller that hangs is not
// waited for until the end. What takes longer by nature is asked again, at the
// next controller, under the same request id.
const patience = 5 * time.Second

// ring is the same listener of several controllers.
type ring struct {
	listener  string
	addresses []string
	conns     []*rpc.Conn
	// at is the index of the one that is called next: the last that answered.
	at atomic.Int64
}

func newRing(listener string, addresses []string, o Options) (*ring, error) {
	r := &ring{listener: listener, addresses: addresses}
	for _, address := range addresses {
		conn, err := rpc.Connect(address, o.Dial, o.MaxMessage)
		if err != nil {
			r.close()
			return nil, err
		}
		r.conns = append(r.conns, conn)
	}
	return r, nil
}

func (r *ring) close() error {
	var all []error
	for _, conn := range r.conns {
		all = append(all, conn.Close())
	}
	return errors.Join(all...)
}

// call tries one controller after the other until one has answered, or ctx
// ends, or all have said that there is no leader to change or tell anything:
// each has waited for one itself. (Inference may wait for longer than they.) try
// must be harmless to repeat.
func (r *ring) call(ctx context.Context, limit time.Duration, try func(context.Context, *rpc.Conn) error) error {
	if len(r.conns) == 0 {
		return errs.New(errs.Invalid, "the client has no %s address of any controller; give it one", r.listener)
	}
	since := time.Now()
	var last error
	leaderless := 0 // in a row
	for tries := 1; ; tries++ {
		at := r.at.Load()
		err := once(ctx, limit, r.conns[at], try)
		if err == nil {
			return nil
		}
		e, ok := errors.AsType[*moveOn](err)
		switch {
		case ctx.Err() != nil:
			return ended(ctx, since, true, last)
		case !ok:
			return err
		case r.listener != "control" || !errors.Is(e.cause, errs.NoLeader):
			leaderless = 0
		case leaderless+1 == len(r.conns):
			return e.cause
		default:
			leaderless++
		}
		last = fmt.Errorf("%s: %w", r.addresses[at], e.cause)
		r.at.CompareAndSwap(at, (at+1)%int64(len(r.conns)))
		if tries%len(r.conns) == 0 {
			pause(ctx, retryPause)
		}
	}
}

// moveOn is an error after which the next controller is tried.
type moveOn struct{ cause error }

func (m *moveOn) Error() string { return m.cause.Error() }

// once makes one attempt, of at most limit unless that is 0.
func once(ctx context.Context, limit time.Duration, conn *rpc.Conn, try func(context.Context, *rpc.Conn) error) error {
	attempt, cancel := ctx, func() {}
	if limit > 0 {
		attempt, cancel = context.WithTimeout(ctx, limit)
	}
	defer cancel()
	err := try(attempt, conn)
	if err == nil {
		return nil
	}
	if attempt.Err() != nil {
		return &moveOn{fmt.Errorf("no answer within %v", limit)}
	}
	if passed, ok := errors.AsType[*moveOn](err); ok {
		return passed
	}
	err = grpcerr.FromStatus(err)
	// The server's clock of this attempt may run out a little before ours.
	for _, r := range []errs.Reason{errs.Unreachable, errs.NoLeader, errs.NotLeader, errs.ShuttingDown, errs.DeadlinePassed} {
		if errors.Is(err, r) {
			return &moveOn{err}
		}
	}
	return err
}
