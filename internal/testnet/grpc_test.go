package testnet_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/testnet"
)

func serveHealth(t *testing.T, h *testnet.Host, address string) *grpc.Server {
	t.Helper()
	l, err := h.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(l)
	return server
}

func healthClient(t *testing.T, h *testnet.Host, target string) (healthpb.HealthClient, *grpc.ClientConn) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return h.Dial(ctx, address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	return healthpb.NewHealthClient(conn), conn
}

func TestGRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		server := serveHealth(t, n.Host("s"), "s:8001")
		client, conn := healthClient(t, n.Host("c"), "s:8001")

		watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := watch.Recv(); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatal(r, err)
		}

		// A cut ends a call by its deadline and a stream by keepalive.
		n.Cut("c", "s")
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = client.Check(ctx, &healthpb.HealthCheckRequest{})
		if status.Code(err) != codes.DeadlineExceeded || time.Since(start) != time.Second {
			t.Fatalf("check: %v after %v", err, time.Since(start))
		}
		_, err = watch.Recv()
		if status.Code(err) != codes.Unavailable || time.Since(start) > 30*time.Second {
			t.Fatalf("watch: %v after %v", err, time.Since(start))
		}

		// Healed, the client comes back by itself.
		n.Heal("c", "s")
		if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}

		// A killed server is seen at once, a restarted one is found.
		start = time.Now()
		watch, err = client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		n.Kill("s")
		for err == nil {
			_, err = watch.Recv()
		}
		if status.Code(err) != codes.Unavailable || time.Since(start) > time.Millisecond {
			t.Fatalf("watch: %v after %v", err, time.Since(start))
		}
		server.Stop()
		server = serveHealth(t, n.Host("s"), "s:8001")
		if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		server.Stop()
	})
}
