package link

import (
	"context"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/exchangepb"
)

const (
	maxMessage = 64 << 20
	address    = "server:8011"
	// The client's two connections come from two hosts, so that a test can cut one.
	controlHost = "client-control"
	dataHost    = "client-data"
)

// handler makes a function a Handler.
type handler func(ctx context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope))

func (h handler) Handle(ctx context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	h(ctx, request, reply)
}

// echo answers at once with the request's payload.
func echo(_ context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	reply(&exchangepb.Envelope{Payload: request.Payload})
}

// held is a request that a handler has not answered yet.
type held struct {
	ctx     context.Context
	request *exchangepb.Envelope
	reply   func(*exchangepb.Envelope)
}

// holding is a Handler that gives its requests to the test.
func holding() (Handler, <-chan held) {
	requests := make(chan held, 64)
	return handler(func(ctx context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
		requests <- held{ctx, request, reply}
	}), requests
}

// rig is a server in a network. Its parts end with the test.
type rig struct {
	t      *testing.T
	net    *testnet.Network
	server *Server
}

// bubble runs a test in virtual time. That it ends shows that no goroutine is
// left. Heartbeats would let a test that hangs go on for ever.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hangs := time.AfterFunc(10*time.Minute, func() { panic("the test hangs") })
		t.Cleanup(func() { hangs.Stop() })
		test(t)
	})
}

// serveNobody is a network in which nobody listens yet.
func serveNobody(t *testing.T) *rig { return &rig{t: t, net: testnet.New()} }

func serve(t *testing.T, h Handler, requests int, bytes int64) *rig {
	t.Helper()
	r := serveNobody(t)
	r.server = NewServer(h, Options{Name: "server"}, requests, bytes)
	r.listen(r.server)
	t.Cleanup(r.server.Close)
	return r
}

// listen serves the Exchange service at the address.
func (r *rig) listen(service exchangepb.ExchangeServer) {
	r.t.Helper()
	listener, err := r.net.Host("server").Listen(address)
	if err != nil {
		r.t.Fatal(err)
	}
	server := rpc.NewServer(maxMessage)
	exchangepb.RegisterExchangeServer(server, service)
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	r.t.Cleanup(func() {
		server.Stop()
		<-done
	})
}

func (r *rig) dial(host string) *rpc.Conn {
	r.t.Helper()
	conn, err := rpc.Connect(address, func(ctx context.Context, address string) (net.Conn, error) {
		return r.net.Host(host).Dial(ctx, address)
	}, maxMessage)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

func (r *rig) tryOpen(ctx context.Context) (*Link, error) {
	r.t.Helper()
	return Open(ctx, r.dial(controlHost), r.dial(dataHost), Options{Name: "client"})
}

// open opens a link and waits until the server has both streams.
func (r *rig) open() *Link {
	r.t.Helper()
	l, err := r.tryOpen(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(l.Close)
	synctest.Wait()
	return l
}

// accepted is the server's end of the only link.
func (r *rig) accepted() *accepted {
	r.t.Helper()
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	if len(r.server.links) != 1 {
		r.t.Fatalf("the server has %d links, want 1", len(r.server.links))
	}
	for _, a := range r.server.links {
		return a
	}
	return nil
}

// forgotten checks that the server has no link any more.
func (r *rig) forgotten() {
	r.t.Helper()
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	if n := len(r.server.links); n != 0 {
		r.t.Errorf("the server still has %d links", n)
	}
}

// idle checks that neither end counts anything as unanswered.
func (r *rig) idle(l *Link) {
	r.t.Helper()
	synctest.Wait()
	a := r.accepted()
	a.mu.Lock()
	defer a.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(a.pending) != 0 || a.bytes != 0 || len(l.pending) != 0 || l.bytes != 0 {
		r.t.Errorf("unanswered: %d requests, %d bytes at the server; %d, %d at the client; want none",
			len(a.pending), a.bytes, len(l.pending), l.bytes)
	}
}

// outcome is what a Call returned, and when.
type outcome struct {
	answer *exchangepb.Envelope
	err    error
	at     time.Time
}

// call calls on a goroutine of its own.
func call(ctx context.Context, l *Link, id string, payload []byte) <-chan outcome {
	result := make(chan outcome, 1)
	go func() {
		answer, err := l.Call(ctx, &exchangepb.Envelope{RequestId: id, Attempt: 1, Payload: payload})
		result <- outcome{answer, err, time.Now()}
	}()
	return result
}

// answered checks that a call got this payload.
func answered(t *testing.T, result <-chan outcome, payload string) {
	t.Helper()
	if o := <-result; o.err != nil || string(o.answer.Payload) != payload {
		t.Errorf("got %.40q, %v; want the answer %.40q", o.answer.GetPayload(), o.err, payload)
	}
}

// breaks checks that the link is broken no later than d from start.
func breaks(t *testing.T, start time.Time, d time.Duration, ended <-chan struct{}, what string) {
	t.Helper()
	<-ended
	if took := time.Since(start); took > d {
		t.Errorf("%s ended after %v, want at most %v", what, took, d)
	}
}

func name(i int) string { return fmt.Sprintf("request-%d", i) }
