package node

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// observed is one request of a watch.
type observed struct {
	sent, ended time.Time
	degraded    bool
	worker      string
	err         error
}

// watch is a steady load through one controller that notes how each request was
// answered.
type watch struct {
	c    *cluster
	stop chan struct{}
	wait sync.WaitGroup

	mu  sync.Mutex
	all []observed
}

// startWatch sends 50 requests a second for a model until end.
func (c *cluster) startWatch(at, model string, timeout time.Duration) *watch {
	w := &watch{c: c, stop: make(chan struct{})}
	to := c.inference(at)
	w.wait.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-w.stop:
				return
			case <-ticker.C:
				w.wait.Go(func() {
					o := observe(to, within(image(model, i), timeout))
					w.mu.Lock()
					defer w.mu.Unlock()
					w.all = append(w.all, o)
				})
			}
		}
	})
	return w
}

// observe sends one request, and checks that the answer is its own.
func observe(to inferencepb.GRPCInferenceServiceClient, r *inferencepb.ModelInferRequest) observed {
	o := observed{sent: time.Now()}
	var trailer metadata.MD
	answer, err := to.ModelInfer(context.Background(), r, grpc.Trailer(&trailer))
	if err == nil {
		err = checkAnswer(r, answer)
	}
	o.ended, o.err = time.Now(), err
	if values := trailer.Get("orrery-degraded"); len(values) > 0 {
		o.degraded = values[0] == "true"
	}
	if values := trailer.Get("orrery-worker"); len(values) > 0 {
		o.worker = values[0]
	}
	return o
}

// end stops the load and waits for all answers.
func (w *watch) end() {
	close(w.stop)
	w.wait.Wait()
}

// sent are the requests that were sent between two instants. There must be
// some: else nothing was tested.
func (w *watch) sent(from, to time.Time) []observed {
	w.c.t.Helper()
	var out []observed
	for _, o := range w.all {
		if !o.sent.Before(from) && o.sent.Before(to) {
			out = append(out, o)
		}
	}
	if len(out) == 0 {
		w.c.t.Errorf("nothing was sent between %v and %v", from, to)
	}
	return out
}

// expect wants requests to be answered, marked or not.
func (w *watch) expect(what string, degraded bool, from, to time.Time) {
	w.c.t.Helper()
	wrong := 0
	for _, o := range w.sent(from, to) {
		if o.err == nil && o.degraded == degraded {
			continue
		}
		if wrong++; wrong <= 3 {
			w.c.t.Errorf("%s: sent at %v, ended after %v: degraded %v, error %v", what, o.sent.Sub(from), o.ended.Sub(o.sent), o.degraded, o.err)
		}
	}
	if wrong > 3 {
		w.c.t.Errorf("%s: %d requests in all", what, wrong)
	}
}

// loseQuorum kills two controllers and returns the third.
func (c *cluster) loseQuorum(leader string) (survivor string) {
	survivor = follower(leader, controllerNames...)
	for _, name := range survivors(survivor) {
		c.net.Kill(name) // both at once
	}
	for _, name := range survivors(survivor) {
		c.stop(name)
	}
	return survivor
}

// direct is how many requests a worker has executed without a leader.
func (c *cluster) direct(worker string) uint64 {
	return c.workers[worker].worker.Stats().Direct[sessionpb.ResultCode_RESULT_CODE_OK]
}

// degradedAnswers is a controller's own count.
func (c *cluster) degradedAnswers(at string) float64 {
	c.t.Helper()
	families, err := c.controllers[at].controller.Metrics().Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "orrery_degraded_answers_total" {
			return f.Metric[0].GetCounter().GetValue()
		}
	}
	c.t.Fatal("there is no such metric")
	return 0
}

// untilLed waits until a controller has a leader again.
func (c *cluster) untilLed(at string) {
	c.t.Helper()
	c.eventually(20*time.Second, "an answer of a leader", func() error {
		o := observe(c.inference(at), within(image("resnet18", 1), time.Second))
		if o.err == nil && o.degraded {
			return fmt.Errorf("it is degraded")
		}
		return o.err
	})
}

func TestInferenceGoesOnWithoutAQuorum(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		one := follower(leader, controllerNames...)
		load := c.startWatch(one, "resnet18", 3*time.Second)
		began := time.Now()
		time.Sleep(2 * time.Second)
		lost := time.Now()
		if survivor := c.loseQuorum(leader); survivor != one {
			t.Fatal("the load is not at the survivor")
		}
		time.Sleep(3 * time.Second)
		if !c.controllers[one].controller.Degraded() || !c.controllers[one].controller.Ready() {
			t.Error("it does not say that it serves without a leader")
		}
		// What can't be known without a leader is not said.
		e := reasonOf(ask(context.Background(), c.inference(one), within(image("other", 1), time.Second)))
		if e.Reason != errs.NoLeader || e.Execution != errs.NotExecuted || e.RetryAfter <= 0 {
			t.Errorf("an unknown model: %+v", e)
		}
		wrong := within(image("resnet18", 1), time.Second)
		wrong.Inputs[0].Shape[1]--
		if e := reasonOf(ask(context.Background(), c.inference(one), wrong)); e.Reason != errs.Invalid {
			t.Errorf("a wrong shape: %+v", e)
		}
		time.Sleep(6 * time.Second)
		back := time.Now()
		c.startController(survivors(one)[0])
		c.startController(survivors(one)[1])
		c.untilLed(one)
		led := time.Now()
		time.Sleep(2 * time.Second)
		load.end()

		load.expect("before", false, began, lost.Add(-50*time.Millisecond))
		load.expect("without a leader", true, lost.Add(time.Millisecond), back.Add(-100*time.Millisecond))
		load.expect("after", false, led, time.Now())
		for _, o := range load.all {
			if o.err != nil {
				t.Errorf("sent %v after the loss: %v", o.sent.Sub(lost), o.err)
			}
		}
		for _, o := range load.sent(lost.Add(2600*time.Millisecond), back.Add(-time.Second)) {
			if took := o.ended.Sub(o.sent); took > 100*time.Millisecond {
				t.Errorf("sent %v after the loss, answered after %v", o.sent.Sub(lost), took)
			}
		}
		begins, ends := c.journal.find("serving without a leader begins"), c.journal.find("serving without a leader ends")
		if len(begins) != 1 || len(ends) != 1 || begins[0].at.Sub(lost) > 2800*time.Millisecond {
			t.Errorf("begins %v, ends %v", begins, ends)
		}
		if n, executed := c.degradedAnswers(one), c.direct("w1")+c.direct("w2"); n == 0 || uint64(n) != executed {
			t.Errorf("%v answers are counted, %d at the workers", n, executed)
		}
		if c.controllers[one].controller.Degraded() {
			t.Error("it still says that it serves without a leader")
		}
		c.digestsEqual()
	})
}

// Nobody hangs up when hosts vanish.
func TestInferenceGoesOnWhenTwoControllersVanish(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		one := follower(leader, controllerNames...)
		load := c.startWatch(one, "resnet18", 4*time.Second)
		time.Sleep(time.Second)
		for _, name := range survivors(one) {
			c.net.Isolate(name)
		}
		lost := time.Now()
		time.Sleep(6 * time.Second)
		healed := time.Now()
		c.net.HealAll()
		c.untilLed(one)
		led := time.Now()
		time.Sleep(time.Second)
		load.end()
		load.expect("without a leader", true, lost.Add(10*time.Millisecond), healed.Add(-500*time.Millisecond))
		load.expect("after", false, led, time.Now())
		for _, o := range load.all {
			if o.err != nil {
				t.Errorf("sent %v after the loss: %v", o.sent.Sub(lost), o.err)
			}
		}
	})
}

// Those that are alone believe that there is no leader; the workers know better.
func TestAControllerThatIsCutOffAloneIsNotServed(t *testing.T) {
	for _, role := range []string{"follower", "leader"} {
		t.Run(role, func(t *testing.T) {
			inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
				alone := c.serve(2)
				if role == "follower" {
					alone = follower(alone, controllerNames...)
				}
				others := survivors(alone)
				load := c.startTraffic(50, 3*time.Second, others...)
				time.Sleep(time.Second)
				c.cutFrom(alone, others...)
				to := c.inference(alone)
				began := time.Now()
				var wait sync.WaitGroup
				for i := range 200 {
					wait.Go(func() {
						time.Sleep(time.Second + time.Duration(i)*20*time.Millisecond)
						o := observe(to, within(image("resnet18", i), 2*time.Second))
						if e := reasonOf(o.err); e.Reason != errs.DeadlinePassed || e.Execution != errs.NotExecuted {
							t.Errorf("sent after %v: %+v", o.sent.Sub(began), e)
						}
					})
				}
				time.Sleep(5 * time.Second)
				if c.controllers[alone].controller.Degraded() || c.controllers[alone].controller.Ready() {
					t.Error("it says that it serves")
				}
				wait.Wait()
				if n := c.direct("w1") + c.direct("w2"); n > 0 {
					t.Errorf("%d requests were executed without the leader", n)
				}
				c.net.HealAll()
				time.Sleep(2 * time.Second)
				load.end()
				load.expectNoFault()
				c.untilLed(alone)
			})
		})
	}
}

func TestAWorkerThatWasRestartedServesNobodyWithoutALeader(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		c.untilLed(follower(leader, controllerNames...)) // the weights are there now
		one := c.loseQuorum(leader)
		time.Sleep(3 * time.Second)
		to := c.inference(one)
		if o := observe(to, within(image("resnet18", 1), time.Second)); o.err != nil || !o.degraded {
			t.Fatalf("nothing is tested: %+v", o)
		}
		c.kill("w1")
		c.startWorker("w1")
		for i := range 5 {
			o := observe(to, within(image("resnet18", i), time.Second))
			if e := reasonOf(o.err); e.Reason != errs.DeadlinePassed {
				t.Errorf("%+v", e)
			}
		}
		if s := c.workers["w1"].worker.Stats(); s.Registered || s.Models > 0 || c.direct("w1") > 0 {
			t.Errorf("the new start worked without a leader: %+v", s)
		}
		if c.controllers[one].controller.Ready() {
			t.Error("it says that it serves")
		}
		for _, name := range survivors(one) {
			c.startController(name)
		}
		c.untilLed(one)
	})
}

func TestServingWithoutALeaderHasAnEnd(t *testing.T) {
	for name, most := range map[string]time.Duration{"after a while": 5 * time.Second, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			tune := func(config *configs.Controller) {
				quick(config)
				config.Inference.DegradedFor = most
			}
			inTunedBubble(t, 1, tune, func(t *testing.T, c *cluster) {
				leader := c.serve(1)
				c.untilLed(follower(leader, controllerNames...))
				one := c.loseQuorum(leader)
				to := c.inference(one)
				time.Sleep(4 * time.Second)
				o := observe(to, within(image("resnet18", 1), time.Second))
				if served := o.err == nil && o.degraded; served != (most > 0) {
					t.Errorf("for %v, after 4s: %+v", most, o)
				}
				time.Sleep(4 * time.Second)
				o = observe(to, within(image("resnet18", 2), time.Second))
				if e := reasonOf(o.err); e.Reason != errs.DeadlinePassed || e.Execution != errs.NotExecuted {
					t.Errorf("for %v, after 9s: %+v", most, o)
				}
				if c.controllers[one].controller.Degraded() || c.controllers[one].controller.Ready() {
					t.Error("it says that it serves")
				}
				for _, name := range survivors(one) {
					c.startController(name)
				}
				c.untilLed(one)
			})
		})
	}
}

// Each side of a cut serves with the workers that it has; no worker has two
// masters.
func TestAWorkerThatIsCutOffWithAController(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		one := follower(leader, controllerNames...)
		c.bothWarm(one)
		load, others := c.startWatch(one, "resnet18", 4*time.Second), c.startTraffic(50, 4*time.Second, survivors(one)...)
		time.Sleep(time.Second)
		cut := time.Now()
		for _, here := range []string{one, "w1"} {
			c.cutFrom(here, append(survivors(one), "w2")...)
		}
		time.Sleep(6 * time.Second)
		healed := time.Now()
		c.net.HealAll()
		c.untilLed(one)
		led := time.Now()
		time.Sleep(time.Second)
		load.end()
		others.end()
		others.expectNoFault()
		load.expect("cut off", true, cut.Add(10*time.Millisecond), healed.Add(-500*time.Millisecond))
		load.expect("after", false, led, time.Now())
		for _, o := range load.all {
			if o.err != nil || o.degraded && o.worker != "w1" {
				t.Errorf("sent %v after the cut: %+v", o.sent.Sub(cut), o)
			}
		}
		if n := c.direct("w2"); n > 0 {
			t.Errorf("%d requests were executed without the leader at the worker that it has", n)
		}
		c.digestsEqual()
	})
}

// bothWarm has both workers run the model.
func (c *cluster) bothWarm(at string) {
	c.t.Helper()
	c.eventually(20*time.Second, "weights at both workers", func() error {
		load := c.startTraffic(900, 500*time.Millisecond, at)
		time.Sleep(500 * time.Millisecond)
		load.end()
		for name, w := range c.workers {
			if w.worker.Stats().Devices[0].Resident == 0 {
				return fmt.Errorf("none at %s", name)
			}
		}
		return nil
	})
}

// What waits at a worker when a leader comes is refused there, and sent to the
// leader.
func TestALeaderTakesOverWhatWaitsAtWorkers(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.serveTable(map[string]string{"slow": "10,1,400,400,400,400"})
		one := follower(leader, controllerNames...)
		to := c.inference(one)
		if o := observe(to, within(image("slow", 1), 5*time.Second)); o.err != nil {
			t.Fatal(o.err)
		}
		c.loseQuorum(leader)
		time.Sleep(3 * time.Second)
		var wait sync.WaitGroup
		var mu sync.Mutex
		marked := map[bool]int{}
		for i := range 200 {
			wait.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				o := observe(to, within(image("slow", i), 30*time.Second))
				if o.err != nil {
					t.Errorf("request %d: %v", i, o.err)
				}
				mu.Lock()
				defer mu.Unlock()
				marked[o.degraded]++
			})
		}
		time.Sleep(time.Second)
		for _, name := range survivors(one) {
			c.startController(name)
		}
		wait.Wait()
		displaced := c.workers["w1"].worker.Stats().Direct[sessionpb.ResultCode_RESULT_CODE_STALE]
		t.Logf("%d were answered without a leader, %d by one, of which %d had waited at the worker", marked[true], marked[false], displaced)
		if marked[true] == 0 || marked[false] == 0 || displaced == 0 {
			t.Error("no leader came while requests waited at the worker")
		}
	})
}
