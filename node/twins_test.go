package node

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// startTwin starts a worker on a host of its own that goes by another one's name.
func (c *cluster) startTwin(host, name string) {
	tuned := c.tuneWorker
	c.tuneWorker = func(w *configs.Worker) { tuned(w); w.Name = name }
	defer func() { c.tuneWorker = tuned }()
	c.startWorker(host)
}

func TestASecondWorkerOfOneNameIsRefusedAndToldWhy(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		load := c.startTraffic(100, 3*time.Second, survivors(leader)...)
		first := c.worker(leader, "w1").Worker.Incarnation
		c.startTwin("w9", "w1")
		c.eventually(10*time.Second, "a refusal in the second one's log", func() error {
			for _, l := range c.journal.find("the leader refuses this worker", "is alive already") {
				if l.node == "w9" {
					return nil
				}
			}
			return fmt.Errorf("none")
		})
		time.Sleep(20 * time.Second)
		// Not even the next leader takes the wrong one.
		c.kill(leader)
		next := c.leader(survivors(leader)...)
		time.Sleep(20 * time.Second)
		w := c.worker(next, "w1")
		if w.Worker.Incarnation != first || !w.Live.Connected {
			t.Errorf("the registered one is now %v", w)
		}
		if !strings.Contains(w.Live.Twin, "w9:8020") {
			t.Errorf("an operator sees %q", w.Live.Twin)
		}
		s := c.workers["w9"].worker.Stats()
		if s.Registered || s.Models > 0 || s.Results[sessionpb.ResultCode_RESULT_CODE_OK] > 0 {
			t.Errorf("the second one was used: %+v", s)
		}
		load.end()
		load.expectNoFault()
		// When the first one goes, the second may.
		c.stop("w1")
		c.eventually(40*time.Second, "the second one serves", func() error {
			return ask(context.Background(), c.inference(next), within(image("resnet18", 1), time.Second))
		})
	})
}

// At another address, while the gossip still believes in the one that was killed.
func TestARestartedWorkerTakesOverAtOnce(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		c.kill("w1")
		c.startTwin("w9", "w1")
		began := time.Now()
		c.eventually(5*time.Second, "the restarted one serves", func() error {
			if c.done("w9") == 0 {
				_ = ask(context.Background(), c.inference(leader), within(image("resnet18", 1), time.Second))
				return fmt.Errorf("no work there")
			}
			return nil
		})
		t.Logf("it served %v after its start", time.Since(began))
	})
}

// A worker that was frozen comes back when another one has its name.
func TestAWorkerThatWasSupersededDoesNothing(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		c.net.Isolate("w1")
		time.Sleep(time.Second)
		c.startTwin("w9", "w1")
		c.eventually(5*time.Second, "the second one is registered and has the model", func() error {
			if s := c.workers["w9"].worker.Stats(); !s.Registered || s.Models == 0 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		c.net.Rejoin("w1")
		before := c.done("w1")
		load := c.startTraffic(100, time.Second, controllerNames...)
		time.Sleep(15 * time.Second)
		load.end()
		load.expectNoFault()
		// The leader looks at other addresses every 30s at the latest.
		c.eventually(35*time.Second, "an operator sees the second one", func() error {
			if w := c.worker(leader, "w1"); !strings.Contains(w.Live.Twin, "w1:8020") {
				return fmt.Errorf("%q", w.Live.Twin)
			}
			return nil
		})
		if n := c.done("w1") - before; n > 0 {
			t.Errorf("the superseded one did %d actions", n)
		}
	})
}
