package e2e

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// fragile is a client's connection that breaks after so many bytes were
// written, or when its time is over.
type fragile struct {
	*net.TCPConn
	left  int
	reset bool
}

// Write writes what the connection still has to give.
func (f *fragile) Write(b []byte) (int, error) {
	n, err := f.TCPConn.Write(b[:min(len(b), f.left)])
	f.left -= n
	if f.left == 0 {
		f.end()
		return n, errors.Join(err, net.ErrClosed)
	}
	return n, err
}

// end closes the connection, or resets it.
func (f *fragile) end() {
	if f.reset {
		_ = f.SetLinger(0)
	}
	_ = f.Close()
}

// fate is how a client's connections end.
type fate struct {
	reset bool
	// bytes are written before; or else it happens after some time.
	bytes int
	after time.Duration
}

// dialer makes so many connections of that fate, and no more.
func (f fate) dialer(connections int) rpc.DialFunc {
	var made atomic.Int64
	return func(ctx context.Context, address string) (net.Conn, error) {
		if made.Add(1) > int64(connections) {
			return nil, errors.New("this client has vanished")
		}
		conn, err := rpc.DialTCP(ctx, address)
		if err != nil {
			return nil, err
		}
		c := &fragile{TCPConn: conn.(*net.TCPConn), left: cmp.Or(f.bytes, math.MaxInt), reset: f.reset}
		if f.after > 0 {
			time.AfterFunc(f.after, c.end)
		}
		return c, nil
	}
}

// vanishingClients sends requests on connections that are closed or reset: in
// the middle of a request, or shortly after all of it has been sent.
func vanishingClients(t *testing.T, c *cluster) {
	const clients = 120
	choose := random(t)
	r := request(mlp, pictures(t)[:16]...) // 50 kB
	var calls sync.WaitGroup
	var unanswered atomic.Int64
	for i := range clients {
		p := c.Controllers[i%len(c.Controllers)]
		f := fate{reset: choose.IntN(2) == 0}
		if choose.IntN(2) == 0 {
			f.bytes = 500 + choose.IntN(50_000)
		} else {
			f.after = time.Duration(500+choose.IntN(60_000)) * time.Microsecond
		}
		send := vanishUnary
		if choose.IntN(2) == 0 {
			send = vanishStreamed
		}
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := send(ctx, p.Addresses["inference"], f, r); err != nil {
				unanswered.Add(1)
			}
		})
	}
	calls.Wait()
	t.Logf("of %d clients %d vanished before their answers", clients, unanswered.Load())
	if unanswered.Load() < clients/3 {
		t.Errorf("the fault did not bite: only %d clients vanished before their answers", unanswered.Load())
	}
}

func vanishUnary(ctx context.Context, address string, f fate, r *inferencepb.ModelInferRequest) error {
	conn, err := rpc.Connect(address, f.dialer(1), 64<<20)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = inferencepb.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, r)
	return err
}

func vanishStreamed(ctx context.Context, address string, f fate, r *inferencepb.ModelInferRequest) error {
	cl, err := client.New(client.Options{Inference: []string{address}, Name: "vanishing", Dial: f.dialer(2)})
	if err != nil {
		return err
	}
	defer cl.Close()
	_, _, err = cl.Infer(ctx, r)
	return err
}
