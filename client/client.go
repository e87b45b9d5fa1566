// Package client is the Go client of an Orrery cluster.
//
// Any controller takes any call. The client sticks to one controller and moves
// to the next when that one can't be reached, is going away, or knows no
// leader. Inference is repeatable, and a control call carries a request id by
// which the cluster knows it again: so sending either a second time is
// harmless, and the client does it by itself until the context ends.
package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/rpc"
)

// Options of a client. A client that only infers needs no control addresses,
// and the other way round.
type Options struct {
	// Inference and Control are the addresses, as host:port, of the
	// controllers' listeners of these names. They are tried in this order.
	Inference []string
	Control   []string
	// Name is who calls, for the controllers' logs. Default "client".
	Name string
	// Tenant is whose the requests of Infer are: tenants get fair shares.
	Tenant string
	// Dial defaults to TCP.
	Dial rpc.DialFunc
	// MaxMessage is the largest request or answer in bytes, default 64 MiB;
	// no larger than the controllers' inference.max_message.
	MaxMessage int
}

// Client calls a cluster. Its methods may be called from any goroutine. Their
// errors are of type *errs.Error, which says what is wrong and whether the
// request was executed.
type Client struct {
	options  Options
	sessions *sessions
	// inference serves the unary calls of the inference protocol.
	inference, control *ring
}

// New makes a client. It connects when it is first used. Close must be called.
func New(o Options) (*Client, error) {
	if len(o.Inference)+len(o.Control) == 0 {
		return nil, errors.New("a client needs the address of at least one controller")
	}
	if o.Dial == nil {
		o.Dial = rpc.DialTCP
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = defaultMaxMessage
	}
	if o.Name == "" {
		o.Name = "client"
	}
	c := &Client{options: o, sessions: newSessions(o)}
	var err error
	if c.inference, err = newRing("inference", o.Inference, o); err != nil {
		return nil, err
	}
	if c.control, err = newRing("control", o.Control, o); err != nil {
		c.inference.close()
		return nil, err
	}
	return c, nil
}

// Close ends all connections; calls that are unanswered fail. It returns when
// nothing of the client is left.
func (c *Client) Close() error {
	c.sessions.close()
	return errors.Join(c.inference.close(), c.control.close())
}

// defaultMaxMessage is that of a controller's inference.max_message.
const defaultMaxMessage = 64 << 20

// retryPause is the wait before all controllers are tried once more.
const retryPause = 50 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ended is the error of a call whose context ended; last, when not nil, is what
// had gone wrong before.
func ended(ctx context.Context, since time.Time, sent bool, last error) *errs.Error {
	waited := time.Since(since).Round(time.Millisecond)
	message := fmt.Sprintf("no answer came within %v", waited)
	if last != nil {
		message += fmt.Sprintf(": %v", last)
	}
	if errors.Is(last, errs.Unreachable) {
		message += "; see that the controllers run and that the addresses are theirs"
	}
	e := errs.New(errs.DeadlinePassed, "%s", message)
	if errors.Is(ctx.Err(), context.Canceled) {
		e = errs.New(errs.Cancelled, "cancelled by the caller after %v", waited)
	}
	if sent {
		e.Execution = errs.MaybeExecuted
	}
	return e
}
