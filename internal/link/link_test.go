package link

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/exchangepb"
)

// silence is how long the default options bear it, and one heartbeat for the
// phase of the ticker.
const silence = (5 + 2) * 200 * time.Millisecond

func TestCallAndAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		r := serve(t, h, 10, 1<<20)
		l := r.open()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()

		result := call(ctx, l, "a", []byte("question"))
		got := <-requests
		if got.request.RequestId != "a" || got.request.Attempt != 1 || string(got.request.Payload) != "question" {
			t.Errorf("the handler got %v", got.request)
		}
		if left := time.Duration(got.request.TimeLeftNs); left != 3*time.Second {
			t.Errorf("time left is %v, want 3s", left)
		}
		got.reply(&exchangepb.Envelope{Payload: []byte("answer")})
		answered(t, result, "answer")
		if got.ctx.Err() == nil {
			t.Error("the handler's context has not ended with the answer")
		}

		result = call(t.Context(), l, "b", nil)
		if got = <-requests; got.request.TimeLeftNs != 0 {
			t.Errorf("without a deadline the time left is %d", got.request.TimeLeftNs)
		}
		got.reply(&exchangepb.Envelope{})
		answered(t, result, "")
		r.idle(l)
	})
}

func TestManyCallsInAnyOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const calls = 500
		lucky := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		var order []string
		r := serve(t, handler(func(_ context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
			time.AfterFunc(time.Duration(lucky.IntN(1000))*time.Millisecond, func() {
				mu.Lock()
				order = append(order, request.RequestId)
				mu.Unlock()
				reply(&exchangepb.Envelope{Payload: append([]byte("answer to "), request.Payload...)})
			})
		}), calls, 1<<20)
		l := r.open()
		results := make([]<-chan outcome, calls)
		for i := range calls {
			results[i] = call(t.Context(), l, name(i), []byte(name(i)))
		}
		for i, result := range results {
			answered(t, result, "answer to "+name(i))
		}
		inOrder := true
		for i, id := range order {
			inOrder = inOrder && id == name(i)
		}
		if len(order) != calls || inOrder {
			t.Errorf("%d answers, in order: %v; the test wants them shuffled", len(order), inOrder)
		}
		r.idle(l)
	})
}

func TestAttemptsOfOneRequestAreApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		l := serve(t, h, 10, 1<<20).open()
		first := call(t.Context(), l, "a", nil)
		one := <-requests
		if _, err := l.Call(t.Context(), &exchangepb.Envelope{RequestId: "a", Attempt: 1}); !errors.Is(err, errs.Internal) {
			t.Errorf("the same attempt again: %v, want Internal", err)
		}
		second := make(chan outcome, 1)
		go func() {
			answer, err := l.Call(t.Context(), &exchangepb.Envelope{RequestId: "a", Attempt: 2})
			second <- outcome{answer: answer, err: err}
		}()
		two := <-requests
		two.reply(&exchangepb.Envelope{Payload: []byte("two")})
		one.reply(&exchangepb.Envelope{Payload: []byte("one")})
		answered(t, first, "one")
		answered(t, second, "two")
	})
}

func TestCancelReachesTheHandler(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		r := serve(t, h, 10, 1<<20)
		l := r.open()
		ctx, cancel := context.WithCancel(t.Context())
		result := call(ctx, l, "a", make([]byte, 1000))
		old := <-requests
		cancel()
		if o := <-result; !errors.Is(o.err, context.Canceled) {
			t.Errorf("the call failed with %v", o.err)
		}
		<-old.ctx.Done()

		// The handler keeps its memory until it answers, and so does the count.
		a := r.accepted()
		synctest.Wait()
		a.mu.Lock()
		if a.bytes != 1000+envelopeOverhead {
			t.Errorf("the server counts %d bytes for a handler that still has 1000", a.bytes)
		}
		a.mu.Unlock()

		// The answer that nobody waits for is dropped, also when the same
		// request was sent again meanwhile under another attempt.
		again := make(chan outcome, 1)
		go func() {
			answer, err := l.Call(t.Context(), &exchangepb.Envelope{RequestId: "a", Attempt: 2})
			again <- outcome{answer: answer, err: err}
		}()
		fresh := <-requests
		old.reply(&exchangepb.Envelope{Payload: []byte("stale")})
		synctest.Wait()
		fresh.reply(&exchangepb.Envelope{Payload: []byte("fresh")})
		answered(t, again, "fresh")
		r.idle(l)
	})
}

func TestADeadlineCancels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		r := serve(t, h, 10, 1<<20)
		l := r.open()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		result := call(ctx, l, "a", nil)
		got := <-requests
		if o := <-result; !errors.Is(o.err, context.DeadlineExceeded) || o.at.Sub(start) != time.Second {
			t.Errorf("the call failed with %v after %v", o.err, o.at.Sub(start))
		}
		breaks(t, start, time.Second, got.ctx.Done(), "the handler's context")
		got.reply(&exchangepb.Envelope{})
		r.idle(l)
	})
}

func TestCreditIsUsedUpAndComesBack(t *testing.T) {
	tests := map[string]struct {
		requests int
		bytes    int64
	}{
		"requests": {2, 1 << 20},
		"bytes":    {100, 2*(1000+envelopeOverhead) + 999},
	}
	for what, credit := range tests {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, requests := holding()
				r := serve(t, h, credit.requests, credit.bytes)
				l := r.open()
				first := call(t.Context(), l, "a", make([]byte, 1000))
				one := <-requests
				second := call(t.Context(), l, "b", make([]byte, 1000))
				two := <-requests

				start := time.Now()
				o := <-call(t.Context(), l, "c", make([]byte, 1000))
				if !errors.Is(o.err, errs.Overloaded) || errs.From(o.err).RetryAfter <= 0 || errs.From(o.err).Execution != errs.NotExecuted {
					t.Errorf("beyond the credit: %v; want Overloaded, not executed, with a time for a retry", o.err)
				}
				if !o.at.Equal(start) {
					t.Errorf("it was refused after %v, want at once", o.at.Sub(start))
				}

				one.reply(&exchangepb.Envelope{Payload: []byte("one")})
				answered(t, first, "one")
				third := call(t.Context(), l, "c", make([]byte, 1000))
				three := <-requests
				three.reply(&exchangepb.Envelope{Payload: []byte("three")})
				two.reply(&exchangepb.Envelope{Payload: []byte("two")})
				answered(t, second, "two")
				answered(t, third, "three")
				r.idle(l)
			})
		})
	}
}

func TestAClientThatIgnoresItsCreditIsRefused(t *testing.T) {
	tests := map[string]struct {
		requests int
		bytes    int64
	}{
		"requests": {1, 1 << 20},
		"bytes":    {100, 2000},
	}
	for what, credit := range tests {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, requests := holding()
				r := serve(t, h, credit.requests, credit.bytes)
				l := r.open()
				l.mu.Lock()
				l.credit = &exchangepb.Credit{Requests: 1000, Bytes: 1 << 30}
				l.mu.Unlock()
				first := call(t.Context(), l, "a", make([]byte, 1000))
				one := <-requests
				o := <-call(t.Context(), l, "b", make([]byte, 1000))
				if o.err != nil {
					t.Fatal(o.err)
				}
				if err := grpcerr.FromAnswer(o.answer.Answer); !errors.Is(err, errs.Overloaded) || errs.From(err).Execution != errs.NotExecuted {
					t.Errorf("the server answered %v, want Overloaded and not executed", err)
				}
				one.reply(&exchangepb.Envelope{Payload: []byte("one")})
				answered(t, first, "one")
				r.idle(l)
			})
		})
	}
}

func TestACutBreaksBothEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		r := serve(t, h, 10, 1<<20)
		l := r.open()
		result := call(t.Context(), l, "a", nil)
		got := <-requests
		time.Sleep(time.Minute)
		if l.ctx.Err() != nil || got.ctx.Err() != nil {
			t.Fatal("the link broke while nothing happened")
		}

		r.net.Isolate("server")
		start := time.Now()
		breaks(t, start, silence, l.Broken(), "the link")
		breaks(t, start, silence, got.ctx.Done(), "the handler's context")
		if o := <-result; !errors.Is(o.err, ErrBroken) || o.at.Sub(start) > silence {
			t.Errorf("the pending call failed with %v after %v", o.err, o.at.Sub(start))
		}
		if _, err := l.Call(t.Context(), &exchangepb.Envelope{RequestId: "b"}); !errors.Is(err, ErrBroken) {
			t.Errorf("a call on a broken link failed with %v", err)
		}
		synctest.Wait()
		r.forgotten()
		got.reply(&exchangepb.Envelope{}) // nobody listens, nothing happens
	})
}

func TestACutWhileLargeAnswersAreSentLeavesNobodyBlocked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		r := serve(t, h, 10, 64<<20)
		l := r.open()
		var taken []held
		for i := range 4 {
			call(t.Context(), l, name(i), nil)
			taken = append(taken, <-requests)
		}
		r.net.Isolate("server")
		start := time.Now()
		for _, h := range taken {
			// What the client never reads fills every window on the way.
			h.reply(&exchangepb.Envelope{Payload: make([]byte, 16<<20)})
		}
		breaks(t, start, silence, l.Broken(), "the link")
		r.server.Close()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the server was closed after %v, want at most 2s", took)
		}
	})
}

func TestOneLostStreamBreaksTheLink(t *testing.T) {
	for _, host := range []string{controlHost, dataHost} {
		t.Run(host, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, requests := holding()
				r := serve(t, h, 10, 1<<20)
				l := r.open()
				result := call(t.Context(), l, "a", nil)
				got := <-requests
				start := time.Now()
				r.net.Kill(host)
				breaks(t, start, 0, l.Broken(), "the link")
				breaks(t, start, 0, got.ctx.Done(), "the handler's context")
				if o := <-result; !errors.Is(o.err, ErrBroken) {
					t.Errorf("the pending call failed with %v", o.err)
				}
				synctest.Wait()
				r.forgotten()
			})
		})
	}
}

func TestRefuseLetsAcceptedRequestsBeAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		r := serve(t, h, 10, 1<<20)
		l := r.open()
		result := call(t.Context(), l, "a", nil)
		got := <-requests
		if l.Closing() {
			t.Error("closing before it was asked")
		}
		r.server.Refuse()
		synctest.Wait()
		if !l.Closing() {
			t.Error("the client was not told")
		}
		if _, err := l.Call(t.Context(), &exchangepb.Envelope{RequestId: "b"}); !errors.Is(err, ErrBroken) || strings.Contains(err.Error(), "%!") {
			t.Errorf("a new call failed with %q", err)
		}
		time.Sleep(time.Minute)
		got.reply(&exchangepb.Envelope{Payload: []byte("late")})
		answered(t, result, "late")
	})
}

func TestOpenSaysThatTheServerIsShuttingDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := serve(t, handler(echo), 10, 1<<20)
		r.server.Refuse()
		for range 50 { // which of the streams fails first is chance
			_, err := r.tryOpen(t.Context())
			if status.Code(err) != codes.Unavailable || !errors.Is(grpcerr.FromStatus(errors.Unwrap(err)), errs.ShuttingDown) {
				t.Fatalf("open: %v, want that the server is shutting down", err)
			}
		}
	})
}

func TestServerCloseBreaksItsLinks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		r := serve(t, h, 10, 1<<20)
		a, b := r.open(), r.open()
		result := call(t.Context(), a, "a", nil)
		got := <-requests
		r.server.Close()
		if got.ctx.Err() == nil {
			t.Error("the handler's context has not ended")
		}
		<-a.Broken()
		<-b.Broken()
		if o := <-result; !errors.Is(o.err, ErrBroken) {
			t.Errorf("the pending call failed with %v", o.err)
		}
		synctest.Wait()
		r.forgotten()
	})
}

func TestCloseEndsPendingCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		// A handler that blocks: so the client's writer is stuck in the middle of a payload.
		r := serve(t, handler(func(context.Context, *exchangepb.Envelope, func(*exchangepb.Envelope)) { <-release }), 10, 64<<20)
		l := r.open()
		results := []<-chan outcome{}
		for i := range 4 {
			results = append(results, call(t.Context(), l, name(i), make([]byte, 8<<20)))
		}
		synctest.Wait()
		start := time.Now()
		l.Close()
		for _, result := range results {
			if o := <-result; !errors.Is(o.err, ErrBroken) || !o.at.Equal(start) {
				t.Errorf("a pending call failed with %v after %v", o.err, o.at.Sub(start))
			}
		}
		close(release)
		synctest.Wait()
		r.forgotten()
	})
}

func TestLargePayloadsDelayNoHeartbeat(t *testing.T) {
	payload := bytes.Repeat([]byte("tensor! "), 1<<20) // 8 MiB

	t.Run("the data connection stalls", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := serve(t, handler(echo), 10, 64<<20)
			l := r.open()
			r.net.Cut(dataHost, "server")
			var results []<-chan outcome
			for i := range 2 {
				results = append(results, call(t.Context(), l, name(i), payload))
			}
			time.Sleep(10 * time.Second)
			for _, result := range results {
				select {
				case o := <-result:
					t.Fatalf("a call ended behind the cut: %v", o.err)
				default:
				}
			}
			r.net.HealAll()
			for _, result := range results {
				answered(t, result, string(payload))
			}
		})
	})

	t.Run("the receiver does not read", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			release := make(chan struct{})
			r := serve(t, handler(func(ctx context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
				<-release
				echo(ctx, request, reply)
			}), 10, 64<<20)
			l := r.open()
			ctx, cancel := context.WithCancel(t.Context())
			given := call(ctx, l, "given up", payload)
			var results []<-chan outcome
			for i := range 2 {
				results = append(results, call(t.Context(), l, name(i), payload))
			}
			time.Sleep(10 * time.Second)
			cancel()
			if o := <-given; !errors.Is(o.err, context.Canceled) {
				t.Errorf("the cancelled call failed with %v", o.err)
			}
			close(release)
			for _, result := range results {
				answered(t, result, string(payload))
			}
			r.idle(l)
		})
	})
}
