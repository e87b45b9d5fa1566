// Package rpc is the one place where gRPC servers and connections get their
// limits (and, later, their TLS).
package rpc

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // clients of the inference protocol may compress
	"google.golang.org/grpc/keepalive"
)

// Windows as measured: large tensors want more than the defaults of 64 KiB.
const (
	streamWindow = 4 << 20
	connWindow   = 16 << 20

	// MaxMessageLimit is the largest that any configuration may allow. Workers
	// take it: what reaches them has passed the controllers' own bound.
	MaxMessageLimit = 1 << 30

	// headroom is added to every bound for what travels around a payload, so
	// that a request that may come in can also be passed on.
	headroom = 1 << 20
)

// quick is the back-off of connections inside a cluster: a restarted process
// is found at once, and there are few who dial.
var quick = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// DialFunc connects to an address.
type DialFunc func(ctx context.Context, address string) (net.Conn, error)

// DialTCP is the DialFunc of production.
func DialTCP(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// insistence is the pause before Insistent dials a second time beside the first.
const insistence = 200 * time.Millisecond

// Insistent makes a DialFunc that tries again beside an attempt that hangs, until
// one succeeds or fails: the system repeats a lost packet of a handshake only
// after a second, and a network that was cut and is whole again would be noticed
// so much later.
func Insistent(dial DialFunc) DialFunc {
	return func(ctx context.Context, address string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		type outcome struct {
			conn net.Conn
			err  error
		}
		var dialling sync.WaitGroup
		done := make(chan outcome)
		again := time.NewTicker(insistence)
		defer again.Stop()
		// Those that come too late are closed by their own goroutine.
		defer dialling.Wait()
		defer cancel()
		attempt := func() {
			dialling.Go(func() {
				conn, err := dial(ctx, address)
				select {
				case done <- outcome{conn, err}:
				case <-ctx.Done():
					if conn != nil {
						_ = conn.Close()
					}
				}
			})
		}
		attempt()
		for {
			select {
			case o := <-done:
				return o.conn, o.err
			case <-again.C:
				attempt()
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// NewServer makes a server for payloads of up to maxMessage bytes, whose limits hold against strangers: few streams a
// connection, a short handshake, a bound on messages, dead peers are noticed.
func NewServer(maxMessage int, options ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage + headroom),
		grpc.MaxSendMsgSize(maxMessage + headroom),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.MaxConcurrentStreams(4096),
		grpc.ConnectionTimeout(5 * time.Second),
		grpc.MaxHeaderListSize(64 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}, options...)...)
}

// Connect makes a connection for payloads of up to maxMessage bytes, that is dialled when it is first used. The caller
// closes it.
func Connect(address string, dial DialFunc, maxMessage int) (*Conn, error) {
	c := &Conn{open: map[*socket]struct{}{}}
	var err error
	c.ClientConn, err = grpc.NewClient("passthrough:///"+address,
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return c.adopt(dial(ctx, address)) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage+headroom), grpc.MaxCallSendMsgSize(maxMessage+headroom)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: 2 * time.Second}),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return c, nil
}
