package rpc_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/internal/testnet"
)

// serve starts a health service with this message limit.
func serve(t *testing.T, n *testnet.Network, maxMessage int) {
	t.Helper()
	listener, err := n.Host("server").Listen("server:8001")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(maxMessage)
	healthpb.RegisterHealthServer(server, health.NewServer())
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
}

func connect(t *testing.T, n *testnet.Network, maxMessage int) healthpb.HealthClient {
	t.Helper()
	conn, err := rpc.Connect("server:8001", func(ctx context.Context, address string) (net.Conn, error) {
		return n.Host("client").Dial(ctx, address)
	}, maxMessage)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

func TestMessagesBeyondTheLimitAreRefused(t *testing.T) {
	const small, large = 1 << 20, 64 << 20
	tests := map[string]struct{ client, server int }{
		"by the server":        {large, small},
		"by the client itself": {small, large},
	}
	for name, limit := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := testnet.New()
				serve(t, n, limit.server)
				client := connect(t, n, limit.client)
				check := func(size int) error {
					_, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: strings.Repeat("x", size)})
					return err
				}
				// The service of such a name is unknown: so the message has arrived.
				if err := check(small); status.Code(err) != codes.NotFound {
					t.Errorf("a payload at the limit: %v", err)
				}
				if err := check(4 * small); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") {
					t.Errorf("beyond the limit: %v, want ResourceExhausted and why", err)
				}
				if err := check(0); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

func TestARestartedServerIsFoundWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		client := connect(t, n, 1<<20)
		for range 60 { // a minute of failures: the back-off has grown to its bound
			if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
				t.Fatalf("nobody listens: %v", err)
			}
			time.Sleep(time.Second)
		}
		serve(t, n, 1<<20)
		time.Sleep(1200 * time.Millisecond) // the bound and its jitter
		if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("the server is back: %v", err)
		}
	})
}

// stuck is a connection whose writes wait until it is closed, once they are
// told to: what becomes of one to a machine that has vanished, when its buffers
// are full.
type stuck struct {
	net.Conn
	now    *atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (s *stuck) Write(b []byte) (int, error) {
	if s.now.Load() {
		<-s.closed
		return 0, net.ErrClosed
	}
	return s.Conn.Write(b)
}

func (s *stuck) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

func TestAConnectionToAMachineThatHasVanishedIsClosedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		serve(t, n, 1<<20)
		var vanished atomic.Bool
		conn, err := rpc.Connect("server:8001", func(ctx context.Context, address string) (net.Conn, error) {
			raw, err := n.Host("client").Dial(ctx, address)
			if err != nil {
				return nil, err
			}
			return &stuck{Conn: raw, now: &vanished, closed: make(chan struct{})}, nil
		}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		client := healthpb.NewHealthClient(conn)
		if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		vanished.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
		began := time.Now()
		_ = conn.Close()
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v", took)
		}
		if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err == nil {
			t.Error("a call on a closed connection")
		}
	})
}

// The first attempt hangs, as on a network that was cut; one beside it succeeds,
// and what comes of the first later is closed.
func TestInsistentTriesAgainBesideAnAttemptThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int32
		late, other := net.Pipe()
		dial := rpc.Insistent(func(ctx context.Context, _ string) (net.Conn, error) {
			if attempts.Add(1) == 1 {
				<-ctx.Done()
				return late, nil // it came all the same
			}
			conn, _ := net.Pipe()
			return conn, nil
		})
		began := time.Now()
		conn, err := dial(t.Context(), "a:1")
		if err != nil || time.Since(began) != 200*time.Millisecond || attempts.Load() != 2 {
			t.Errorf("after %v and %d attempts: %v", time.Since(began), attempts.Load(), err)
		}
		_ = conn.Close()
		if _, err := other.Write([]byte("x")); err == nil {
			t.Error("the late connection is open")
		}
	})
}

func TestInsistentGivesUpAtOnceWhenRefusedAndWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		began := time.Now()
		if _, err := rpc.Insistent(func(context.Context, string) (net.Conn, error) { return nil, refused })(t.Context(), "a:1"); err != refused {
			t.Errorf("got %v", err)
		}
		if time.Since(began) > 0 {
			t.Errorf("after %v", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := rpc.Insistent(func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() })(ctx, "a:1")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
