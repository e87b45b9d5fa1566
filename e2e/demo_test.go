package e2e

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// TestLeaderKilled is the demonstration with assertions: a cluster starts from
// nothing, classifies pictures, and loses its leader under load.
func TestLeaderKilled(t *testing.T) {
	c := startCluster(t, devcluster.Options{})
	entries := c.without(awaitLeader(t, c.Controllers...))
	t.Logf("the models are loaded through the follower %s", entries[0].Name)

	seen := watchPhases(t, clientOf(t, entries[0]))
	cl := clientOf(t, entries[0])
	loaded(t, cl, mlp)
	loaded(t, cl, cnn)
	// A request that comes too early is held until the cluster serves.
	early := make(chan error, 1)
	first := pictures(t)[0]
	go func() {
		response, _, err := clientOf(t, entries[1]).Infer(within(t, serveTimeout), request(cnn, first))
		if err == nil {
			err = compare(response, cnn, first)
		}
		early <- err
	}()
	c.awaitServing(t)
	if err := <-early; err != nil {
		t.Errorf("a request sent during the startup: %v", err)
	}
	checkPhases(t, seen())
	checkProfiles(t, cl)
	classifyEverywhere(t, c)

	leader, l := c.loadFollowers(t, 3*time.Second)
	followers, before := c.without(leader), term(t, leader)
	killed := time.Now()
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	next := awaitLeader(t, followers...)
	elected := time.Now()
	l.awaitAnswers(rate)
	t.Logf("SIGKILL of %s; %s led after %v, in term %v", leader.Name, next.Name, ms(elected.Sub(killed)), term(t, next))
	if now := term(t, next); now <= before {
		t.Errorf("the term is %v, and was %v before the leader was killed", now, before)
	}
	if err := leader.Restart(); err != nil {
		t.Fatal(err)
	}
	c.awaitHealth(t)
	l.awaitAnswers(rate)
	l.end(killed, elected)
	if n := l.sentBetween(killed, elected); n == 0 {
		t.Error("the fault did not bite: no request was sent while there was no leader")
	} else {
		t.Logf("%d requests were sent while there was no leader", n)
	}
	c.awaitHealth(t)
}

// watchPhases notes the startup's phases in the order in which they are seen,
// from the present one on. What it returns waits for the last one.
func watchPhases(t *testing.T, cl *client.Client) (seen func() []logpb.Phase) {
	ctx, cancel := context.WithCancel(t.Context())
	var phases []logpb.Phase
	began := make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) })
	var watch sync.WaitGroup
	watch.Go(func() {
		done := errors.New("it serves")
		err := cl.WatchStartup(ctx, func(s *controlpb.StartupStatus) error {
			begin()
			if len(phases) == 0 || phases[len(phases)-1] != s.Phase {
				phases = append(phases, s.Phase)
				t.Logf("startup: %v, %d workers, waiting for %q", s.Phase, s.Workers, s.WaitingFor)
			}
			if s.Phase == logpb.Phase_PHASE_SERVING {
				return done
			}
			return nil
		})
		begin()
		if !errors.Is(err, done) {
			t.Errorf("watch the startup: %v", err)
		}
	})
	end := time.AfterFunc(serveTimeout, cancel)
	t.Cleanup(func() { end.Stop(); cancel(); watch.Wait() })
	<-began
	return func() []logpb.Phase { watch.Wait(); return phases }
}

func checkPhases(t *testing.T, seen []logpb.Phase) {
	t.Helper()
	if len(seen) > 0 && seen[0] == logpb.Phase_PHASE_QUERYING {
		seen = seen[1:]
	}
	want := []logpb.Phase{logpb.Phase_PHASE_WAITING, logpb.Phase_PHASE_LOADING, logpb.Phase_PHASE_PROFILING, logpb.Phase_PHASE_SERVING}
	if !slices.Equal(seen, want) {
		t.Errorf("the phases were %v", seen)
	}
}

// checkProfiles expects measured times for each number of rows of each model.
func checkProfiles(t *testing.T, cl *client.Client) {
	t.Helper()
	answer, err := cl.ListModels(within(t, callTimeout), &controlpb.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	all := answer.Models
	if len(all) != 2 {
		t.Fatalf("models %v", all)
	}
	for _, m := range all {
		if m.Reason != "" || len(m.Profiles) != 1 || len(m.Copies) != 2 {
			t.Errorf("model %v", m)
			continue
		}
		p := m.Profiles[0]
		var rows []uint32
		var times []time.Duration
		for _, r := range p.Execution {
			rows, times = append(rows, r.Rows), append(times, time.Duration(r.P50Ns))
			if r.P50Ns <= 0 || r.P99Ns < r.P50Ns || r.Runs < 3 {
				t.Errorf("profile of %s: %v", m.Model.Name, r)
			}
		}
		t.Logf("profile of %s on %s: rows %v take %v, the weights %v", m.Model.Name, p.Key.DeviceKind, rows, times, time.Duration(p.WeightsLoadP50Ns))
		if !slices.Equal(rows, m.Model.Info.ProfileRows) || p.Key.Digest != m.Model.Info.Digest || p.WeightsLoadP50Ns <= 0 {
			t.Errorf("profile of %s: %v", m.Model.Name, p)
		}
	}
}

// classifyEverywhere sends all pictures to both models through each controller.
func classifyEverywhere(t *testing.T, c *cluster) {
	t.Helper()
	all := pictures(t)
	workers := map[string]int{}
	for _, p := range c.Controllers {
		cl := clientOf(t, p)
		for _, model := range []string{mlp, cnn} {
			right := 0
			for _, picture := range all {
				response, answer, err := cl.Infer(within(t, callTimeout), request(model, picture))
				if err == nil {
					err = compare(response, model, picture)
				}
				if err != nil {
					t.Errorf("%s through %s: %v", picture.File, p.Name, err)
					continue
				}
				workers[answer.GetWorker()]++
				if picture.Predictions[model] == picture.Label {
					right++
				}
			}
			t.Logf("%s through %s: all %d answers are the training run's, %d of them are right", model, p.Name, len(all), right)
		}
	}
	// Several at once make one batch.
	response, err := unary(t, c.Controllers[0]).infer(within(t, callTimeout), request(mlp, all[:16]...))
	if err == nil {
		err = compare(response, mlp, all[:16]...)
	}
	if err != nil {
		t.Errorf("16 pictures at once: %v", err)
	}
	t.Logf("answers by worker: %v", workers)
}

// exitedBy says by which signal a process has ended.
func exitedBy(err error) syscall.Signal {
	exit, ok := errors.AsType[interface {
		error
		Sys() any
	}](err)
	if !ok {
		return 0
	}
	return exit.Sys().(syscall.WaitStatus).Signal()
}
