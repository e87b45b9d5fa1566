package client_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func refuse(r errs.Reason) func(context.Context) (*controlpb.LoadModelResponse, error) {
	return func(context.Context) (*controlpb.LoadModelResponse, error) {
		return nil, grpcerr.Status(errs.New(r, "no"))
	}
}

func hang(ctx context.Context) (*controlpb.LoadModelResponse, error) {
	<-ctx.Done()
	return nil, grpcerr.Status(ctx.Err())
}

func accept(context.Context) (*controlpb.LoadModelResponse, error) {
	return &controlpb.LoadModelResponse{Models: []*controlpb.ModelStatus{{Reason: "ok"}}}, nil
}

func TestControlCallsAreRepeatedUnderOneID(t *testing.T) {
	tests := map[string]struct {
		first func(context.Context) (*controlpb.LoadModelResponse, error)
		after time.Duration
	}{
		"no leader":     {refuse(errs.NoLeader), 0},
		"not leader":    {refuse(errs.NotLeader), 0},
		"shutting down": {refuse(errs.ShuttingDown), 0},
		"hangs":         {hang, 5 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *testnet.Network) {
				a, b := start(t, n, "a"), start(t, n, "b")
				a.load, b.load = test.first, accept
				since := time.Now()
				got, err := dialled(t, n, "a", "b").LoadModel(within(t, time.Minute), &logpb.LoadModel{Name: "m"})
				if err != nil || len(got) != 1 {
					t.Fatal(got, err)
				}
				if took := time.Since(since); took != test.after {
					t.Errorf("answered after %v, want %v", took, test.after)
				}
				if at, bt := a.wanted(), b.wanted(); len(at) != 1 || !slices.Equal(at, bt) || at[0] == "" {
					t.Errorf("request ids %q at a, %q at b; want the same one", at, bt)
				}
			})
		})
	}
}

func TestControlCallsThatAreRefusedAreNotRepeated(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a, b := start(t, n, "a"), start(t, n, "b")
		a.load, b.load = refuse(errs.LateLoad), accept
		_, err := dialled(t, n, "a", "b").LoadModel(within(t, time.Minute), &logpb.LoadModel{Name: "m"})
		if !errors.Is(err, errs.LateLoad) || len(b.wanted()) != 0 {
			t.Fatal(err, b.wanted())
		}
	})
}

// Each controller has waited for a leader itself before it says so: to go on
// asking would hide the outage from whoever waits.
func TestControlCallsEndWhenNoControllerHasALeader(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a, b := start(t, n, "a"), start(t, n, "b")
		a.load, b.load = refuse(errs.NoLeader), refuse(errs.NoLeader)
		since := time.Now()
		_, err := dialled(t, n, "a", "b").LoadModel(within(t, time.Minute), &logpb.LoadModel{})
		if !errors.Is(err, errs.NoLeader) || len(a.wanted()) != 1 || len(b.wanted()) != 1 {
			t.Errorf("%v, after %q at a and %q at b", err, a.wanted(), b.wanted())
		}
		if took := time.Since(since); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestControlCallsEndWithTheirDeadline(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		since := time.Now()
		_, err := dialled(t, n, "a").ListWorkers(within(t, time.Second), &controlpb.ListWorkersRequest{})
		if !errors.Is(err, errs.DeadlinePassed) || !strings.Contains(err.Error(), "a:1") || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v; want the address and the cause", err)
		}
		if took := time.Since(since); took != time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestCallsWithoutAnAddress(t *testing.T) {
	if _, err := client.New(client.Options{}); err == nil {
		t.Error("a client without any address was made")
	}
	c, err := client.New(client.Options{Inference: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Startup(t.Context()); !errors.Is(err, errs.Invalid) {
		t.Errorf("a control call without an address: %v", err)
	}
}

func TestWatchStartupGoesOnElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, n *testnet.Network) {
		a, b := start(t, n, "a"), start(t, n, "b")
		send := func(phases ...logpb.Phase) func(controlpb.Control_WatchStartupServer) error {
			return func(s controlpb.Control_WatchStartupServer) error {
				for _, p := range phases {
					if err := s.Send(&controlpb.StartupStatus{Phase: p}); err != nil {
						return err
					}
				}
				return nil
			}
		}
		a.watch = send(logpb.Phase_PHASE_WAITING, logpb.Phase_PHASE_LOADING)
		b.watch = send(logpb.Phase_PHASE_LOADING, logpb.Phase_PHASE_SERVING)
		var saw []logpb.Phase
		enough := errors.New("enough")
		err := dialled(t, n, "a", "b").WatchStartup(within(t, time.Second), func(s *controlpb.StartupStatus) error {
			if saw = append(saw, s.Phase); s.Phase == logpb.Phase_PHASE_SERVING {
				return enough
			}
			return nil
		})
		want := []logpb.Phase{logpb.Phase_PHASE_WAITING, logpb.Phase_PHASE_LOADING, logpb.Phase_PHASE_SERVING}
		if !errors.Is(err, enough) || !slices.Equal(saw, want) {
			t.Errorf("saw %v, %v", saw, err)
		}
	})
}
