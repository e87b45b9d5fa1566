package rpc_test

import (
	"context"
	"net"
	"strings"
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
