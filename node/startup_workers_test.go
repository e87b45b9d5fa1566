package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func TestAWorkerThatDiesInTheMiddleOfALoadHoldsNothingUp(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.slowTable(2 * time.Second)
		c.startWorker("w1")
		c.startWorker("w2")
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		load := c.startLoad(context.Background(), follower(leader, controllerNames...), "slow", "table.csv#slow")
		// One of them loads it first; then the other one, in the middle of which it dies.
		c.eventually(10*time.Second, "the first load", func() error {
			if len(c.journal.find("model loaded")) == 0 {
				return context.DeadlineExceeded
			}
			return nil
		})
		second := follower(c.journal.find("model loaded")[0].node, "w1", "w2")
		time.Sleep(time.Second)
		c.kill(second)
		<-load.done
		if load.err != nil || !loadedAt(load.m, follower(second, "w1", "w2")) {
			t.Fatalf("%v, %v", load.m, load.err)
		}
		c.expectServed(map[string]string{"slow": ""}, controllerNames...)
		restarted := time.Now()
		c.startWorker(second)
		c.eventually(30*time.Second, "the model on the worker that came back", func() error {
			if m := c.model(leader, "slow"); !loadedAt(m, second) {
				return context.DeadlineExceeded
			}
			return nil
		})
		if first := follower(second, "w1", "w2"); len(c.loadsAt(first)) != 1 {
			t.Errorf("%s has loaded it again: %v", first, c.loadsAt(first))
		}
		// What was cut short is in the journal, too: in a bubble a process that is
		// killed ends what it has begun.
		if loads := c.loadsAt(second); len(loads) == 0 || loads[len(loads)-1].at.Before(restarted.Add(2*time.Second)) {
			t.Errorf("%s has not loaded it after its restart: %v", second, loads)
		}
	})
}

// loadsAt are the models that a worker has read from its disk.
func (c *cluster) loadsAt(worker string) (loads []journalLine) {
	for _, l := range c.journal.find("model loaded") {
		if l.node == worker {
			loads = append(loads, l)
		}
	}
	return loads
}

// killMeasuring kills the worker that the first measurement runs on.
func (c *cluster) killMeasuring(leader, model string) string {
	c.t.Helper()
	c.untilPhase(leader, logpb.Phase_PHASE_PROFILING, 5*time.Second)
	c.eventually(time.Second, "a measurement", func() error {
		if len(c.journal.find("profiling term=")) == 0 {
			return context.DeadlineExceeded
		}
		return nil
	})
	_, name, _ := strings.Cut(c.journal.find("profiling term=")[0].text, " worker=")
	name, _, _ = strings.Cut(name, " ")
	c.kill(name)
	if done := c.model(leader, model).Profiles; len(done) > 0 {
		c.t.Fatalf("the fault did not bite: it was measured already: %v", done)
	}
	return name
}

// expectResNet152 expects the model to be measured on a kind of device, and right.
func (c *cluster) expectResNet152(at string, kinds int) {
	c.t.Helper()
	c.expectServed(map[string]string{"resnet152": ""}, controllerNames...)
	profiles := c.model(at, "resnet152").Profiles
	if len(profiles) != kinds {
		c.t.Errorf("it was measured on %d kinds of device, not %d", len(profiles), kinds)
	}
	for _, p := range profiles {
		if p.Execution[0].P50Ns != int64(9131*time.Microsecond) {
			c.t.Errorf("the profile is %v", p)
		}
	}
}

func TestAWorkerThatDiesWhileItMeasuresIsReplaced(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		c.mustLoad(leader, "resnet152", resnet152)
		c.killMeasuring(leader, "resnet152")
		c.expectResNet152(leader, 1)
	})
}

// The only worker has begun to load a model that wants one copy, when another
// one joins, which has nothing to do.
func TestACopyIsLoadedOnceWhileWorkersJoin(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.slowTable(2 * time.Second)
		leader := c.leader(controllerNames...)
		load := make(chan error, 1)
		var copies []*controlpb.Copy
		go func() {
			r, err := c.control(follower(leader, controllerNames...)).LoadModel(context.Background(),
				&controlpb.LoadModelRequest{Model: &logpb.LoadModel{Name: "slow", Source: "table.csv#slow", Copies: 1}})
			if err == nil {
				copies = r.Models[0].Copies
			}
			load <- err
		}()
		c.startWorker("w1")
		c.registered(leader, 1)
		time.Sleep(time.Second)
		c.startWorker("w2")
		c.registered(leader, 2)
		if err := <-load; err != nil || len(copies) != 1 || copies[0].Worker != "w1" || copies[0].Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED {
			t.Errorf("the load was answered by %v, %v", copies, err)
		}
		c.expectServed(map[string]string{"slow": ""}, controllerNames...)
		if n := len(c.loadsAt("w1")) + len(c.loadsAt("w2")); n != 1 {
			t.Errorf("one copy was loaded %d times", n)
		}
	})
}
