package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// tolerance is how late something that depends on a coordinator's look at the
// clock may be.
const tolerance = 300 * time.Millisecond

// calm slows down what beats all the time, for tests of many quiet minutes.
func calm(config *configs.Controller) {
	config.Raft.CommitTimeout = 100 * time.Millisecond
	config.Workers.HeartbeatInterval = time.Second
}

func TestTheCountdownWaitsForTheFirstLoad(t *testing.T) {
	inTunedBubble(t, 1, calm, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		c.untilPhase(leader, logpb.Phase_PHASE_WAITING, 5*time.Second)
		time.Sleep(quiet(10 * time.Minute))
		s, err := c.startup(leader)
		if err != nil || s.Phase != logpb.Phase_PHASE_WAITING || s.CountdownNs >= 0 {
			t.Fatalf("after a long time without a load: %v, %v", s, err)
		}
		if lines := c.journal.find("profiling"); len(lines) > 0 {
			t.Errorf("profiled without a load: %v", lines)
		}
		began := time.Now()
		c.mustLoad(leader, "resnet18", resnet18)
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		if idle := c.journal.phaseAt("profiling", began).Sub(began); idle < 10*time.Second || idle > 10*time.Second+tolerance {
			t.Errorf("profiling began %v after the first load, not 10s", idle)
		}
	})
}

func TestTheCountdownRestartsOnEachLoad(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		var last time.Time
		loads := []*logpb.LoadModel{
			{Name: "m", Source: resnet18},
			{Name: "n", Source: resnet18},
			// No worker can take this one; a request it is all the same.
			{Name: "o", Source: resnet18, Constraints: []*logpb.Label{{Key: "rack", Value: "9"}}},
		}
		for i, load := range loads {
			last = time.Now()
			if _, err := c.control(controllerNames[i]).LoadModel(t.Context(), &controlpb.LoadModelRequest{Model: load}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(9 * time.Second)
			s, err := c.startup(leader)
			if err != nil || s.Phase != logpb.Phase_PHASE_LOADING || s.CountdownNs < 0 {
				t.Fatalf("9s after load %d: %v, %v", i, s, err)
			}
		}
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		if idle := c.journal.phaseAt("profiling", last).Sub(last); idle < 10*time.Second-tolerance || idle > 10*time.Second+tolerance {
			t.Errorf("profiling began %v after the last load, not 10s", idle)
		}
	})
}

func TestTheCountdownWaitsForPendingLoads(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		c.net.Isolate("w2")
		load := c.startLoad(context.Background(), follower(leader, controllerNames...), "resnet18", resnet18)
		c.untilPhase(leader, logpb.Phase_PHASE_LOADING, time.Second)
		for range 16 { // less than until the worker counts as lost
			time.Sleep(500 * time.Millisecond)
			s, err := c.startup(leader)
			if err != nil || s.Phase != logpb.Phase_PHASE_LOADING || s.CountdownNs >= 0 || load.answered() {
				t.Fatalf("with a load pending: %v, %v, answered %v", s, err, load.answered())
			}
		}
		c.net.Rejoin("w2")
		healed := time.Now()
		<-load.done
		if load.err != nil || !loadedAt(load.m, "w1") || !loadedAt(load.m, "w2") {
			t.Fatalf("%v, %v", load.m, load.err)
		}
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		if idle := c.journal.phaseAt("profiling", healed).Sub(load.at); idle < 10*time.Second-tolerance || idle > 10*time.Second+tolerance {
			t.Errorf("profiling began %v after the pending load, not 10s", idle)
		}
	})
}

// One that nobody can reach may come back, and is waited for; of one whose port is
// closed nothing is left.
func TestALostWorkerHoldsNoLoadUp(t *testing.T) {
	inTunedBubble(t, 3, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 3)
		c.kill("w3")
		began := time.Now()
		c.mustLoad(leader, "first", resnet18)
		if waited := time.Since(began); waited > 2*time.Second {
			t.Errorf("answered after %v; a worker whose port is closed counts as lost after 1s", waited)
		}
		c.net.Isolate("w2")
		time.Sleep(time.Second)
		began = time.Now()
		m := c.mustLoad(leader, "resnet18", resnet18)
		if waited := time.Since(began); waited < 7*time.Second || waited > 15*time.Second {
			t.Errorf("answered after %v; a worker that can't be reached counts as lost after 10s", waited)
		}
		c.stop("w2")
		c.net.Rejoin("w2")
		if !loadedAt(m, "w1") {
			t.Errorf("%v", m)
		}
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		c.startWorker("w2")
		c.eventually(30*time.Second, "the model on the worker that came back", func() error {
			if c.workers["w2"].worker.Stats().Models == 0 {
				return fmt.Errorf("no model there")
			}
			return nil
		})
	})
}

func TestRequestsAreBufferedDuringStartup(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		var wait sync.WaitGroup
		defer wait.Wait()
		// Each request is sent before its model is wanted or served.
		expectStarting := func(phase string, timeout time.Duration) {
			for _, name := range controllerNames {
				wait.Go(func() {
					began := time.Now()
					ctx, cancel := context.WithTimeout(context.Background(), timeout)
					defer cancel()
					err := ask(ctx, c.inference(name), image("resnet18", 1))
					took, e := time.Since(began), reasonOf(err)
					if status.Code(err) != codes.Unavailable || e.Reason != errs.Starting || e.Execution != errs.NotExecuted ||
						!strings.Contains(e.Message, "phase "+phase) || e.RetryAfter <= 0 {
						t.Errorf("in phase %s through %s: %v %+v", phase, name, err, e)
					}
					if took < 10*time.Second || took > 10*time.Second+tolerance {
						t.Errorf("in phase %s through %s: refused after %v, not 10s", phase, name, took)
					}
				})
			}
		}
		expectStarting("waiting", time.Minute)
		wait.Wait()
		// The load is answered at once and the countdown is 10s: so a request
		// from before it times out in phase loading, and one that is sent 2s
		// later is answered when serving begins.
		expectStarting("loading", time.Minute)
		wait.Go(func() { // its own deadline is shorter
			began := time.Now()
			err := ask(context.Background(), c.inference(leader), within(image("resnet18", 2), 3*time.Second))
			e := reasonOf(err)
			if took := time.Since(began); took < 3*time.Second || took > 3*time.Second+tolerance {
				t.Errorf("a request with 3s ended after %v", took)
			}
			if status.Code(err) != codes.DeadlineExceeded || e.Reason != errs.DeadlinePassed || e.Execution != errs.NotExecuted ||
				!strings.Contains(e.Message, "phase") {
				t.Errorf("a request with 3s: %v %+v", err, e)
			}
		})
		time.Sleep(100 * time.Millisecond)
		c.mustLoad(leader, "resnet18", resnet18)
		time.Sleep(2 * time.Second)
		for i := range 30 {
			wait.Go(func() {
				if err := ask(context.Background(), c.inference(controllerNames[i%3]), within(image("resnet18", i), 20*time.Second)); err != nil {
					t.Errorf("buffered request %d: %v", i, err)
				}
			})
		}
	})
}

func TestLoadsAfterServingHasBegun(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		first := c.mustLoad(leader, "resnet18", resnet18)
		if again := c.mustLoad(follower(leader, controllerNames...), "resnet18", resnet18); again.Model.Id != first.Model.Id {
			t.Errorf("the same load again made model %d beside %d", again.Model.Id, first.Model.Id)
		}
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		for _, name := range controllerNames {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_, err := c.load(ctx, name, "late", resnet152)
			if e := reasonOf(err); status.Code(err) != codes.FailedPrecondition || e.Reason != errs.LateLoad || !strings.Contains(e.Message, "late_loads") {
				t.Errorf("a late load through %s: %v", name, err)
			}
			if again, err := c.load(ctx, name, "resnet18", resnet18); err != nil || again.Model.Id != first.Model.Id || !loadedAt(again, "w1") {
				t.Errorf("the same load again, while serving, through %s: %v, %v", name, again, err)
			}
			cancel()
		}
		if s, err := c.startup(leader); err != nil || s.Phase != logpb.Phase_PHASE_SERVING {
			t.Errorf("after the loads: %v, %v", s, err)
		}
		if err := ask(t.Context(), c.inference(leader), image("resnet18", 7)); err != nil {
			t.Error(err)
		}
	})
}

func TestABadLoadLeavesNoHole(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		for i, source := range []string{"nosuch.csv#x", "profiles.csv#nosuch"} {
			m := c.mustLoad(leader, fmt.Sprint("bad", i), source)
			for _, worker := range []string{"w1", "w2"} {
				if at := copyAt(m, worker); at == nil || at.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED || !strings.Contains(at.Error, "nosuch") {
					t.Errorf("load of %s at %s: %v", source, worker, at)
				}
			}
			if m.Reason == "" || m.Advice == "" {
				t.Errorf("load of %s says neither why nor what helps: %v", source, m)
			}
		}
		c.mustLoad(leader, "good", resnet18)
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		to := c.inference(follower(leader, controllerNames...))
		if err := ask(t.Context(), to, image("good", 1)); err != nil {
			t.Error(err)
		}
		if e := reasonOf(ask(t.Context(), to, image("bad0", 1))); e.Reason != errs.LoadFailed || e.Execution != errs.NotExecuted {
			t.Errorf("a request for the bad model: %+v", e)
		}
		if e := reasonOf(ask(t.Context(), to, image("unheard-of", 1))); e.Reason != errs.UnknownModel {
			t.Errorf("a request for no model: %+v", e)
		}
	})
}

func TestOneWorkerThatCannotLoadIsNotFatal(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		has, lacks := c.table("m,10,1,2,3,4,6"), t.TempDir()
		c.tuneWorker = func(w *configs.Worker) {
			w.ModelDir = map[string]string{"w1": has, "w2": lacks}[w.Name]
		}
		c.startWorker("w1")
		c.startWorker("w2")
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		m := c.mustLoad(follower(leader, controllerNames...), "m", "table.csv#m")
		if at := copyAt(m, "w2"); !loadedAt(m, "w1") || at == nil || at.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED || !strings.Contains(at.Error, "table.csv") {
			t.Errorf("the answer doesn't tell who failed and why: %v", m.Copies)
		}
		if m.Code != "" && m.Code != string(errs.NotProfiled) {
			t.Errorf("one copy suffices, but %q", m.Reason)
		}
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		if err := ask(t.Context(), c.inference(leader), image("m", 1)); err != nil {
			t.Error(err)
		}
	})
}

// Nothing of a model can be measured whose weights are larger than any device: it is
// refused with that as the reason, and nobody waits for it.
func TestAModelThatFitsOnNoDeviceHoldsNothingUp(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		dir := c.table("small,10,1,2,3,4,6", "huge,900,1,2,3,4,6")
		c.tuneWorker = func(w *configs.Worker) { w.ModelDir = dir }
		c.startWorker("w1")
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		c.mustLoad(leader, "huge", "table.csv#huge")
		c.mustLoad(leader, "small", "table.csv#small")
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		if err := ask(t.Context(), c.inference(leader), image("small", 1)); err != nil {
			t.Error(err)
		}
		if e := reasonOf(ask(t.Context(), c.inference(leader), image("huge", 1))); e.Reason != errs.NoRoom {
			t.Errorf("a request for what fits nowhere: %+v", e)
		}
	})
}

func TestALoadWaitsForAWorker(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		load := c.startLoad(context.Background(), follower(leader, controllerNames...), "resnet18", resnet18)
		// Of a client that goes away the load is wanted all the same.
		gone, leave := context.WithTimeout(context.Background(), 5*time.Second)
		defer leave()
		abandoned := c.startLoad(gone, leader, "resnet152", resnet152)
		time.Sleep(20 * time.Second)
		if s, err := c.startup(leader); err != nil || s.CountdownNs >= 0 || s.Phase != logpb.Phase_PHASE_LOADING || load.answered() {
			t.Fatalf("without a worker: %v, %v, answered %v", s, err, load.answered())
		}
		if <-abandoned.done; status.Code(abandoned.err) != codes.DeadlineExceeded {
			t.Errorf("the client that left got %v", abandoned.err)
		}
		c.startWorker("w1")
		<-load.done
		if load.err != nil || !loadedAt(load.m, "w1") {
			t.Fatalf("%v, %v", load.m, load.err)
		}
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		for _, model := range []string{"resnet18", "resnet152"} {
			if err := ask(t.Context(), c.inference(leader), image(model, 1)); err != nil {
				t.Errorf("%s: %v", model, err)
			}
		}
	})
}

// Profiles are there already, so loading, profiling and serving follow each
// other within moments. Loads arrive ever closer to them until one is too late.
// On a network with some latency they are on their way to the log while the
// leader decides.
func TestALoadAtTheMomentOfTransitionIsAnswered(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		c.net.SetLatency(5 * time.Millisecond)
		quietSince := time.Now()
		c.mustLoad(leader, "resnet18", resnet18)
		admitted, refused := []string{"resnet18"}, 0
		for offset := -20 * time.Millisecond; refused == 0; offset += 7 * time.Millisecond {
			if offset > 500*time.Millisecond {
				t.Fatal("no load was ever too late: the startup is stuck")
			}
			time.Sleep(time.Until(quietSince.Add(time.Second + offset)))
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			loads := map[string]*pendingLoad{}
			for _, at := range controllerNames {
				name := fmt.Sprintf("%s-%d", at, offset.Milliseconds()+100)
				loads[name] = c.startLoad(ctx, at, name, resnet18)
			}
			quietSince = time.Now()
			for name, load := range loads {
				<-load.done
				switch e := reasonOf(load.err); {
				case load.err == nil && loadedAt(load.m, "w1"):
					admitted = append(admitted, name)
				case load.err != nil && e.Reason == errs.LateLoad:
					refused++
				default:
					t.Errorf("load %s at %v got neither yes nor no: %v, %v", name, offset, load.m, load.err)
				}
			}
			cancel()
		}
		t.Logf("%d loads were admitted, %d refused", len(admitted), refused)
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, 10*time.Second)
		serving := c.journal.phaseAt("serving", time.Time{})
		for _, l := range c.journal.find("model loaded") {
			if l.at.After(serving) {
				t.Errorf("a model was loaded %v after serving had begun", l.at.Sub(serving))
			}
		}
		slices.Sort(admitted)
		for _, model := range admitted {
			if err := ask(t.Context(), c.inference(leader), image(model, 1)); err != nil {
				t.Errorf("%s was admitted: %v", model, err)
			}
		}
		c.digestsEqual()
	})
}
