package client_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

func TestInferSticksToTheFirstThatAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		b, c := start(t, n, "b"), start(t, n, "c")
		cl := dialled(t, n, "a", "b", "c") // nobody is a
		for range 3 {
			infer(t, cl, time.Second)
		}
		if len(b.seen()) != 3 || len(c.seen()) != 0 {
			t.Fatalf("b has %d, c has %d requests; all 3 belong to b", len(b.seen()), len(c.seen()))
		}
	})
}

func TestInferSaysWhoseTheRequestIs(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a := start(t, n, "a")
		cl, err := client.New(client.Options{Inference: []string{"a:1"}, Dial: n.Host("client").Dial, Tenant: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		infer(t, cl, time.Second)
		if got := a.seen()[0].Header.GetTenant(); got != "shop" {
			t.Errorf("the tenant is %q, want shop", got)
		}
	})
}

func TestInferIsSentAgainWhenTheControllerDies(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a, b := start(t, n, "a"), start(t, n, "b")
		a.answer = func(*exchangepb.Envelope) *exchangepb.Envelope { return nil }
		cl := dialled(t, n, "a", "b")
		var wait sync.WaitGroup
		for range 3 {
			wait.Go(func() { infer(t, cl, 2*time.Second) })
		}
		synctest.Wait()
		if len(a.seen()) != 3 {
			t.Fatalf("a has %d requests before it dies; want 3", len(a.seen()))
		}
		since := time.Now()
		a.stop()
		wait.Wait()
		if took := time.Since(since); took > 100*time.Millisecond {
			t.Errorf("the requests were answered %v after the crash", took)
		}
		first, second := a.seen()[0], b.seen()
		if len(second) != 3 || second[0].Attempt != 2 {
			t.Fatalf("b has %d requests, the first %v; want 3 of attempt 2", len(second), second)
		}
		ids := map[string]bool{second[0].RequestId: true, second[1].RequestId: true, second[2].RequestId: true}
		if !ids[first.RequestId] {
			t.Errorf("request %s came to b under another id", first.RequestId)
		}
	})
}

func TestInferLeavesAControllerThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		start(t, n, "a")
		b := start(t, n, "b")
		cl := dialled(t, n, "a", "b")
		infer(t, cl, time.Second)
		n.Cut("client", "a")
		since := time.Now()
		infer(t, cl, 3*time.Second)
		if took := time.Since(since); took > 1500*time.Millisecond {
			t.Errorf("answered after %v, the link's silence is noticed after 1.2s", took)
		}
		if len(b.seen()) != 1 {
			t.Errorf("b has %d requests, want 1", len(b.seen()))
		}
	})
}

func TestInferSkipsAControllerThatSwallowsPackets(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		start(t, n, "a")
		start(t, n, "b")
		n.Cut("client", "a")
		since := time.Now()
		infer(t, dialled(t, n, "a", "b"), 2*time.Second)
		if took := time.Since(since); took != time.Second {
			t.Errorf("answered after %v; the first controller is given 1s", took)
		}
	})
}

func TestInferLeavesAControllerThatIsClosing(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a, b := start(t, n, "a"), start(t, n, "b")
		a.answer = func(e *exchangepb.Envelope) *exchangepb.Envelope { return nil }
		cl := dialled(t, n, "a", "b")
		done := make(chan error, 1)
		go func() {
			_, _, err := cl.Infer(within(t, time.Second), &inferencepb.ModelInferRequest{ModelName: "m"})
			done <- err
		}()
		synctest.Wait()
		a.links.Refuse()
		synctest.Wait()
		infer(t, cl, time.Second)
		if len(a.seen()) != 1 || len(b.seen()) != 1 {
			t.Fatalf("a has %d, b has %d requests; want one each", len(a.seen()), len(b.seen()))
		}
		select {
		case err := <-done:
			t.Fatalf("the request in hand was given up: %v", err)
		default: // a may still answer it
		}
		if err := <-done; !errors.Is(err, errs.DeadlinePassed) {
			t.Fatalf("the unanswered request: %v", err)
		}
	})
}

func TestInferTellsWhyItFailed(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a := start(t, n, "a")
		refusal := errs.New(errs.Infeasible, "the deadline is sooner than the answer can be").After(time.Second)
		a.answer = func(*exchangepb.Envelope) *exchangepb.Envelope {
			return &exchangepb.Envelope{Answer: grpcerr.Answer(refusal)}
		}
		_, _, err := dialled(t, n, "a").Infer(within(t, time.Second), &inferencepb.ModelInferRequest{})
		e, ok := errors.AsType[*errs.Error](err)
		if !ok || *e != *refusal {
			t.Fatalf("%#v, want %#v", err, refusal)
		}
		if len(a.seen()) != 1 {
			t.Errorf("sent %d times, a refusal is not repeated", len(a.seen()))
		}
	})
}

func TestARefusalAfterALostAttemptIsNotCalledNotExecuted(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a, b := start(t, n, "a"), start(t, n, "b")
		a.answer = func(*exchangepb.Envelope) *exchangepb.Envelope { return nil } // it dies with the request
		b.answer = func(*exchangepb.Envelope) *exchangepb.Envelope {
			return &exchangepb.Envelope{Answer: grpcerr.Answer(errs.New(errs.NoWorker, "nobody is there"))}
		}
		cl := dialled(t, n, "a", "b")
		failed := make(chan error, 1)
		go func() {
			_, _, err := cl.Infer(within(t, time.Second), &inferencepb.ModelInferRequest{})
			failed <- err
		}()
		synctest.Wait()
		a.stop()
		e, ok := errors.AsType[*errs.Error](<-failed)
		if !ok || e.Reason != errs.NoWorker || e.Execution != errs.MaybeExecuted {
			t.Errorf("got %#v", e)
		}
	})
}

func TestInferEndsWithItsDeadline(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a := start(t, n, "a")
		a.answer = func(*exchangepb.Envelope) *exchangepb.Envelope { return nil }
		for name, want := range map[string]errs.Execution{"a": errs.MaybeExecuted, "nobody": errs.NotExecuted} {
			since := time.Now()
			_, _, err := dialled(t, n, name).Infer(within(t, 300*time.Millisecond), &inferencepb.ModelInferRequest{})
			e, ok := errors.AsType[*errs.Error](err)
			if !ok || e.Reason != errs.DeadlinePassed || e.Execution != want {
				t.Errorf("%s: %#v", name, err)
			}
			if took := time.Since(since); took != 300*time.Millisecond {
				t.Errorf("%s: ended after %v", name, took)
			}
		}
		if left := time.Duration(a.seen()[0].TimeLeftNs); left <= 0 || left > 300*time.Millisecond {
			t.Errorf("the controller was told that %v are left", left)
		}
	})
}

func TestInferWaitsForAControllerToComeBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		start(t, n, "a").stop()
		cl := dialled(t, n, "a")
		time.AfterFunc(700*time.Millisecond, func() { start(t, n, "a") })
		since := time.Now()
		infer(t, cl, 5*time.Second)
		if took := time.Since(since); took > 800*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
	})
}

func TestInferIsRefusedBeforeItBreaksALink(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a := start(t, n, "a")
		c, err := client.New(client.Options{Inference: []string{"a:1"}, Dial: n.Host("client").Dial, MaxMessage: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		big := &inferencepb.ModelInferRequest{RawInputContents: [][]byte{make([]byte, 10_000)}}
		if _, _, err := c.Infer(t.Context(), big); !errors.Is(err, errs.Invalid) {
			t.Errorf("a request larger than a message: %v", err)
		}
		if len(a.seen()) != 0 {
			t.Error("it was sent")
		}
	})
}

func TestInferIsShedWithoutCredit(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a := start(t, n, "a")
		a.answer = func(*exchangepb.Envelope) *exchangepb.Envelope { return nil }
		cl := dialled(t, n, "a")
		var wait sync.WaitGroup
		defer wait.Wait()
		for range 4 {
			wait.Go(func() { _, _, _ = cl.Infer(within(t, time.Second), &inferencepb.ModelInferRequest{}) })
		}
		synctest.Wait()
		_, _, err := cl.Infer(t.Context(), &inferencepb.ModelInferRequest{})
		if !errors.Is(err, errs.Overloaded) {
			t.Errorf("the fifth request on a link of four: %v", err)
		}
	})
}

func TestCloseEndsRequests(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a := start(t, n, "a")
		a.answer = func(*exchangepb.Envelope) *exchangepb.Envelope { return nil }
		cl := dialled(t, n, "a")
		done := make(chan error, 1)
		go func() {
			_, _, err := cl.Infer(context.Background(), &inferencepb.ModelInferRequest{})
			done <- err
		}()
		synctest.Wait()
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, errs.Cancelled) {
			t.Errorf("the request in hand: %v", err)
		}
	})
}

func TestModelMetadataIsAskedOfAnotherController(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		start(t, n, "b")
		answer, err := dialled(t, n, "a", "b").ModelMetadata(within(t, time.Second), "m", "")
		if err != nil || answer.Name != "b" {
			t.Fatal(answer, err)
		}
	})
}
