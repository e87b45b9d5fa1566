package node

import (
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/logpb"
)

// The cluster is said to serve only when what the worker that came back has
// loaded is measured.
func TestServingDoesNotBeginBeforeAWorkerThatCameBackIsMeasured(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		c.mustLoad(leader, "resnet152", resnet152)
		name := c.killMeasuring(leader, "resnet152")
		time.Sleep(20 * time.Second)
		if s, err := c.startup(leader); err != nil || s.Phase == logpb.Phase_PHASE_SERVING || s.WaitingFor != "a worker to join" {
			t.Errorf("without a worker: %v, %v", s, err)
		}
		c.startWorker(name)
		c.expectResNet152(leader, 1)
	})
}

// Likewise when it is the only one of its kind, and back before anybody misses it.
func TestServingDoesNotBeginBeforeAKindOfDeviceThatCameBackIsMeasured(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		c.tuneWorker = func(w *configs.Worker) { w.Devices[0].Kind = "a10" }
		c.startWorker("w2")
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		c.mustLoad(leader, "resnet152", resnet152)
		c.untilApplied(leader, logpb.Phase_PHASE_PROFILING, 5*time.Second)
		c.net.Isolate("w2")
		c.untilProfiled(leader, 1)
		if s, err := c.startup(leader); err != nil || s.Phase != logpb.Phase_PHASE_PROFILING {
			t.Errorf("the other kind is not waited for: %v, %v", s, err)
		}
		c.kill("w2")
		c.startWorker("w2")
		c.net.Rejoin("w2")
		c.expectResNet152(leader, 2)
	})
}
