package node

import (
	"context"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// sources are models whose profiles are measured one after the other.
var sources = map[string]string{
	"resnet18": resnet18, "resnet152": resnet152,
	"stress": "profiles.csv#symphony-stress-default(resnet-like)", "example": "profiles.csv#symphony-example-resnet_1",
}

// untilProfiled waits until a controller's state has so many profiles, and
// returns the models that they are of.
func (c *cluster) untilProfiled(at string, profiles int) map[string]bool {
	c.t.Helper()
	control := c.control(at)
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(time.Millisecond) {
		r, err := control.ListModels(context.Background(), &controlpb.ListModelsRequest{})
		if err != nil {
			c.t.Fatal(err)
		}
		done := map[string]bool{}
		for _, m := range r.Models {
			if len(m.Profiles) > 0 {
				done[m.Model.Name] = true
			}
		}
		if len(done) >= profiles {
			return done
		}
	}
	c.t.Fatalf("%s has not seen %d profiles within 30s", at, profiles)
	return nil
}

// expectServed waits until the cluster serves, and has each model answer
// through each of the named controllers.
func (c *cluster) expectServed(models map[string]string, names ...string) {
	c.t.Helper()
	c.untilPhase(names[0], logpb.Phase_PHASE_SERVING, time.Minute)
	for _, name := range names {
		for model := range models {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if err := ask(ctx, c.inference(name), image(model, 1)); err != nil {
				c.t.Errorf("%s through %s: %v", model, name, err)
			}
			cancel()
		}
	}
}

// expectNotRepeated checks that no model was profiled after an instant although
// its profile was in the log by then.
func (c *cluster) expectNotRepeated(done map[string]bool, after time.Time) {
	c.t.Helper()
	for model := range done {
		for _, l := range c.journal.find("profiling", "model="+model) {
			if l.at.After(after) {
				c.t.Errorf("%s was profiled again by %s, %v after the leader had gone", model, l.node, l.at.Sub(after))
			}
		}
	}
}

func TestTheLeaderIsKilledWhileWaiting(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		c.untilPhase(leader, logpb.Phase_PHASE_WAITING, 5*time.Second)
		others := survivors(leader)
		c.kill(leader)
		load := c.startLoad(context.Background(), others[0], "resnet18", resnet18)
		<-load.done
		if load.err != nil || !loadedAt(load.m, "w1") {
			t.Errorf("%v, %v", load.m, load.err)
		}
		c.expectServed(map[string]string{"resnet18": resnet18}, others...)
	})
}

func TestTheLeaderIsKilledWhileLoading(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		others := survivors(leader)
		c.net.Isolate("w2")
		load := c.startLoad(context.Background(), others[0], "resnet18", resnet18)
		time.Sleep(2 * time.Second)
		c.kill(leader)
		next := c.leader(others...)
		// The worker is not reachable for the next leader, either: so the
		// countdown does not run until it is back or lost.
		time.Sleep(3 * time.Second)
		if s, err := c.startup(next); err != nil || s.Phase != logpb.Phase_PHASE_LOADING || s.CountdownNs >= 0 || load.answered() {
			t.Errorf("with a load pending: %v, %v, answered %v", s, err, load.answered())
		}
		c.net.Rejoin("w2")
		<-load.done
		if load.err != nil || !loadedAt(load.m, "w1") || !loadedAt(load.m, "w2") {
			t.Errorf("%v, %v", load.m, load.err)
		}
		c.expectServed(map[string]string{"resnet18": resnet18}, others...)
	})
}

func TestTheLeaderIsKilledDuringTheCountdown(t *testing.T) {
	inTunedBubble(t, 1, func(config *configs.Controller) { config.Startup.LoadIdle = 5 * time.Second }, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		c.mustLoad(leader, "resnet18", resnet18)
		time.Sleep(4 * time.Second)
		killed := time.Now()
		c.kill(leader)
		others := survivors(leader)
		c.leader(others...)
		c.expectServed(map[string]string{"resnet18": resnet18}, others...)
		if idle := c.journal.phaseAt("profiling", killed).Sub(killed); idle < 5*time.Second {
			t.Errorf("the next leader counted down only %v, not 5s in full", idle)
		}
	})
}

func TestTheLeaderIsKilledWhileProfiling(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		others := survivors(leader)
		for model, source := range sources {
			c.mustLoad(leader, model, source)
		}
		done := c.untilProfiled(others[0], 2)
		killed := time.Now()
		c.kill(leader)
		if len(done) == len(sources) {
			t.Fatal("the leader was not killed while profiling")
		}
		late := c.startLoad(context.Background(), others[0], "another", resnet18)
		<-late.done
		if late.err != nil || !loadedAt(late.m, "w1") {
			t.Errorf("a load while the leader was gone: %v, %v", late.m, late.err)
		}
		c.expectServed(sources, others...)
		c.expectNotRepeated(done, killed)
		c.expectServed(map[string]string{"another": resnet18}, others...)
	})
}

// The leader dies at several moments around the commit of phase serving.
func TestTheLeaderIsKilledAtTheHandOver(t *testing.T) {
	for _, offset := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond} {
		t.Run(offset.String(), func(t *testing.T) {
			inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
				leader := c.leader(controllerNames...)
				c.registered(leader, 1)
				others := survivors(leader)
				c.mustLoad(leader, "resnet18", resnet18)
				requests := c.startTraffic(50, 5*time.Second, others...)
				c.untilPhase(others[1], logpb.Phase_PHASE_PROFILING, 5*time.Second)
				c.untilProfiled(others[1], 1)
				time.Sleep(offset)
				killed := time.Now()
				c.kill(leader)
				c.expectServed(map[string]string{"resnet18": resnet18}, others...)
				c.expectNotRepeated(map[string]bool{"resnet18": true}, killed)
				requests.end()
				requests.expectNoFault()
			})
		})
	}
}
