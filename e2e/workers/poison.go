//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	// deathsAllowed is how many workers a model or a request may take down.
	deathsAllowed = 2
	// verdictTimeout is how long it may take to be blamed, and mourning how long
	// deaths are counted after that.
	verdictTimeout = 30 * time.Second
	mourning       = 2 * time.Second
	// restartPause is how long a supervisor waits before it starts a worker again.
	restartPause = 100 * time.Millisecond
)

// crashParameter of a request ends the process that runs it.
const crashParameter = "emulated_crash"

// supervisor starts workers again that have died.
type supervisor struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu     sync.Mutex
	deaths []string
	failed error
}

// supervise begins; end must be called.
func supervise(ctx context.Context, some []*devcluster.Process) *supervisor {
	ctx, cancel := context.WithCancel(ctx)
	s := &supervisor{cancel: cancel}
	for _, p := range some {
		s.wait.Go(func() {
			for {
				select {
				case <-p.Exited():
				case <-ctx.Done():
					return
				}
				s.died(p.Name, nil)
				// Also when it is over: nobody else would start it.
				_ = bench.Pause(ctx, restartPause)
				if err := p.Start(); err != nil {
					s.died("", err)
					return
				}
			}
		})
	}
	return s
}

func (s *supervisor) died(name string, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "" {
		s.deaths = append(s.deaths, name)
	}
	s.failed = errors.Join(s.failed, failed)
}

// end returns the names of those that have died.
func (s *supervisor) end() ([]string, error) {
	s.cancel()
	s.wait.Wait()
	return s.deaths, s.failed
}

// poisoned has poison taken while dead workers are started again. poison returns
// when it was blamed, or gives up; blamed says whether it was, and for the right
// reason.
func (t *trial) poisoned(ctx context.Context, poison func(context.Context) (blamed bool, err error)) error {
	if err := t.begin(); err != nil {
		return err
	}
	s := supervise(ctx, t.cluster.Workers)
	bounded, cancel := context.WithTimeout(ctx, verdictTimeout)
	defer cancel()
	blamed, err := poison(bounded)
	t.tell("verdict_ms", time.Since(t.fault))
	if err == nil {
		err = bench.Pause(ctx, mourning)
	}
	deaths, failed := s.end()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if len(deaths) == 0 {
		return fmt.Errorf("%w: no worker has died", errNoBite)
	}
	slices.Sort(deaths)
	t.result.Figures["deaths"] = float64(len(deaths))
	if len(deaths) > deathsAllowed {
		t.note("died: %v", deaths)
	}
	t.result.Figures["unexplained"] = 0
	if !blamed {
		t.result.Figures["unexplained"] = 1
	}
	t.measured = true
	return nil
}

// poisonModel loads a model whose runs kill.
func poisonModel(ctx context.Context, t *trial) error {
	if _, err := t.control.SetSettings(ctx, &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}); err != nil {
		return err
	}
	err := t.poisoned(ctx, func(ctx context.Context) (bool, error) {
		var loading sync.WaitGroup
		defer loading.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		loading.Go(func() { _ = t.stage.load(ctx, killerModel, 0) }) // how it ends is told by the list
		return t.awaitBlame(ctx), nil
	})
	if err != nil {
		return err
	}
	if _, err := t.control.UnloadModel(ctx, killerModel, ""); err != nil {
		return err
	}
	return t.awaitWhole(ctx)
}

// awaitBlame waits until the killer is blamed, with advice.
func (t *trial) awaitBlame(ctx context.Context) bool {
	last := ""
	for {
		if m, err := t.model(ctx, killerModel); err == nil {
			if m.Code == string(errs.ModelBlamed) && m.Advice != "" {
				return true
			}
			last = fmt.Sprintf("code %q, reason %q, advice %q", m.Code, m.Reason, m.Advice)
		}
		if bench.Pause(ctx, 50*time.Millisecond) != nil {
			t.note("the model was not blamed within %v: %s", verdictTimeout, last)
			return false
		}
	}
}

// poisonRequest sends a request that kills whoever runs it.
func poisonRequest(ctx context.Context, t *trial) error {
	c, err := client.New(client.Options{Name: "poison", Inference: t.cluster.Addresses("inference")})
	if err != nil {
		return err
	}
	defer c.Close()
	err = t.poisoned(ctx, func(ctx context.Context) (bool, error) {
		request := bench.Request(mainModel, make([]byte, bench.InputBytes))
		request.Parameters = map[string]*inferencepb.InferParameter{
			crashParameter: {ParameterChoice: &inferencepb.InferParameter_StringParam{StringParam: "true"}},
		}
		_, _, err := c.Infer(ctx, request)
		if !errors.Is(err, errs.RequestBlamed) {
			t.note("the request ended with %v", err)
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	return t.awaitWhole(ctx)
}
