package link

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/proto/exchangepb"
)

func TestOpenAgainstNobody(t *testing.T) {
	tests := map[string]struct {
		there func(r *rig)
		code  codes.Code // of the failure; OK: the context's own error, at its deadline
	}{
		"nobody listens":      {func(r *rig) {}, codes.Unavailable},
		"packets are dropped": {func(r *rig) { r.net.Isolate("server") }, codes.OK},
		"it does not answer":  {func(r *rig) { r.listen(mute{}) }, codes.OK},
		"another service":     {func(r *rig) { r.listen(exchangepb.UnimplementedExchangeServer{}) }, codes.Unimplemented},
	}
	for what, test := range tests {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := serveNobody(t)
				test.there(r)
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				_, err := r.tryOpen(ctx)
				took := time.Since(start)
				if test.code != codes.OK {
					if status.Code(err) != test.code || took != 0 {
						t.Errorf("open: %v after %v, want %v at once", err, took, test.code)
					}
				} else if !errors.Is(err, context.DeadlineExceeded) || took != 300*time.Millisecond {
					t.Errorf("open: %v after %v, want the context's error after 300ms", err, took)
				}
			})
		})
	}
}

func TestALinkOutlivesTheContextOfOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := serve(t, handler(echo), 10, 1<<20)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		l, err := r.tryOpen(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		cancel()
		time.Sleep(time.Minute)
		answered(t, call(t.Context(), l, "a", []byte("still there")), "still there")
	})
}

func TestCloseWhileLinksAreOpened(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := serve(t, handler(echo), 10, 1<<20)
		var opening sync.WaitGroup
		for range 20 {
			control, data := r.dial(controlHost), r.dial(dataHost)
			opening.Go(func() {
				l, err := Open(t.Context(), control, data, Options{})
				if err != nil {
					return
				}
				<-l.Broken()
				l.Close()
			})
		}
		r.server.Close()
		opening.Wait()
		r.forgotten()
	})
}

// mute takes both streams and says nothing.
type mute struct {
	exchangepb.UnimplementedExchangeServer
}

func (mute) Control(s exchangepb.Exchange_ControlServer) error {
	<-s.Context().Done()
	return nil
}

func (mute) Data(s exchangepb.Exchange_DataServer) error {
	<-s.Context().Done()
	return nil
}

func TestHalfOpenLinksEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := serve(t, handler(echo), 10, 1<<20)
		hello := &exchangepb.Hello{LinkId: strings.Repeat("x", 16)}
		client := exchangepb.NewExchangeClient(r.dial(controlHost))
		start := time.Now()

		data, err := client.Data(t.Context())
		if err := errors.Join(err, data.Send(&exchangepb.DataFrame{Hello: hello})); err != nil {
			t.Fatal(err)
		}
		if _, err := data.Recv(); status.Code(err) != codes.Unavailable || time.Since(start) != pairing {
			t.Errorf("a data stream alone ended after %v: %v", time.Since(start), err)
		}

		start = time.Now()
		control, err := client.Control(t.Context())
		if err := errors.Join(err, control.Send(&exchangepb.ControlFrame{Hello: hello})); err != nil {
			t.Fatal(err)
		}
		go func() { // heartbeats alone don't keep it
			for control.Send(&exchangepb.ControlFrame{Heartbeat: true}) == nil {
				time.Sleep(100 * time.Millisecond)
			}
		}()
		for err == nil {
			_, err = control.Recv()
		}
		if status.Code(err) != codes.Unavailable || time.Since(start) != pairing {
			t.Errorf("a control stream alone ended after %v: %v", time.Since(start), err)
		}
		synctest.Wait()
		r.forgotten()
		time.Sleep(time.Second) // the sender of heartbeats ends
	})
}

func TestJunkInTheFirstFrame(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := serve(t, handler(echo), 10, 1<<20)
		l := r.open()
		var taken string
		r.server.mu.Lock()
		for taken = range r.server.links {
		}
		r.server.mu.Unlock()
		client := exchangepb.NewExchangeClient(r.dial(controlHost))

		tests := map[string]struct {
			hello *exchangepb.Hello
			code  codes.Code
		}{
			"no hello":   {nil, codes.InvalidArgument},
			"empty":      {&exchangepb.Hello{}, codes.InvalidArgument},
			"short":      {&exchangepb.Hello{LinkId: "123456789012345"}, codes.InvalidArgument},
			"taken":      {&exchangepb.Hello{LinkId: taken}, codes.AlreadyExists},
			"taken, too": {&exchangepb.Hello{LinkId: taken, From: "a thief"}, codes.AlreadyExists},
		}
		for what, test := range tests {
			control, err := client.Control(t.Context())
			if err := errors.Join(err, control.Send(&exchangepb.ControlFrame{Hello: test.hello, Heartbeat: true})); err != nil {
				t.Fatal(err)
			}
			if _, err := control.Recv(); status.Code(err) != test.code {
				t.Errorf("%s: the control stream ended with %v, want %v", what, err, test.code)
			}
			data, err := client.Data(t.Context())
			if err := errors.Join(err, data.Send(&exchangepb.DataFrame{Hello: test.hello})); err != nil {
				t.Fatal(err)
			}
			if _, err := data.Recv(); status.Code(err) != test.code {
				t.Errorf("%s: the data stream ended with %v, want %v", what, err, test.code)
			}
		}
		answered(t, call(t.Context(), l, "a", []byte("unharmed")), "unharmed")
	})
}

func TestRequestsInTheFirstFrameAreAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := serve(t, handler(echo), 10, 1<<20)
		data, err := exchangepb.NewExchangeClient(r.dial(dataHost)).Data(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = data.Send(&exchangepb.DataFrame{
			Hello:     &exchangepb.Hello{LinkId: strings.Repeat("x", 16)},
			Envelopes: []*exchangepb.Envelope{{RequestId: "a", Payload: []byte("early")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if frame, err := data.Recv(); err != nil || len(frame.Envelopes) != 1 || string(frame.Envelopes[0].Payload) != "early" {
			t.Errorf("got %v, %v; want the answer", frame, err)
		}
	})
}

func TestARequestTwiceIsRefusedByTheServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, requests := holding()
		r := serve(t, h, 10, 1<<20)
		data, err := exchangepb.NewExchangeClient(r.dial(dataHost)).Data(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		twice := slices.Repeat([]*exchangepb.Envelope{{RequestId: "a", Attempt: 1}}, 2)
		if err := errors.Join(
			data.Send(&exchangepb.DataFrame{Hello: &exchangepb.Hello{LinkId: strings.Repeat("x", 16)}}),
			data.Send(&exchangepb.DataFrame{Envelopes: twice}),
		); err != nil {
			t.Fatal(err)
		}
		frame, err := data.Recv()
		if err != nil || codes.Code(frame.Envelopes[0].Answer.GetCode()) != codes.InvalidArgument {
			t.Errorf("got %v, %v; want a refusal", frame, err)
		}
		(<-requests).reply(&exchangepb.Envelope{Payload: []byte("once")})
		if frame, err = data.Recv(); err != nil || string(frame.Envelopes[0].Payload) != "once" {
			t.Errorf("got %v, %v; want the answer", frame, err)
		}
	})
}

// A handler that is slow to return hides the end of its stream from the reader.
func TestADataStreamThatEndsDuringHandleBreaksTheLink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		taken, release := make(chan struct{}), make(chan struct{})
		r := serveNobody(t)
		r.server = NewServer(handler(func(context.Context, *exchangepb.Envelope, func(*exchangepb.Envelope)) {
			close(taken)
			<-release
		}), Options{Heartbeat: time.Hour}, 10, 1<<20)
		r.listen(r.server)
		t.Cleanup(r.server.Close)
		hello := &exchangepb.Hello{LinkId: strings.Repeat("x", 16)}
		control, err := exchangepb.NewExchangeClient(r.dial(controlHost)).Control(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		data, err := exchangepb.NewExchangeClient(r.dial(dataHost)).Data(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(
			control.Send(&exchangepb.ControlFrame{Hello: hello}),
			data.Send(&exchangepb.DataFrame{Hello: hello}),
			data.Send(&exchangepb.DataFrame{Envelopes: []*exchangepb.Envelope{{RequestId: "a"}}}),
		); err != nil {
			t.Fatal(err)
		}
		<-taken
		r.net.Kill(dataHost)
		synctest.Wait()
		start := time.Now()
		close(release)
		for err == nil {
			_, err = control.Recv()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the link ended after %v, want at once", took)
		}
	})
}

func TestTheEndOfAnOldLinkLeavesANewOneOfItsID(t *testing.T) {
	s := NewServer(handler(echo), Options{}, 1, 1)
	hello := &exchangepb.Hello{LinkId: strings.Repeat("x", 16)}
	bubble(t, func(t *testing.T) {
		old, err := s.attach(hello, true)
		if _, too := s.attach(hello, false); err != nil || too != nil {
			t.Fatal(err, too)
		}
		s.detach(hello.LinkId, old) // of the control stream
		current, err := s.attach(hello, true)
		if err != nil {
			t.Fatal(err)
		}
		s.detach(hello.LinkId, old) // of the data stream
		if s.links[hello.LinkId] != current {
			t.Error("the new link is forgotten")
		}
	})
}
