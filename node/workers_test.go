package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// live is what a controller says of a worker right now.
func (c *cluster) live(at, worker string) *controlpb.WorkerLive {
	c.t.Helper()
	if w := c.worker(at, worker); w != nil {
		return w.Live
	}
	c.t.Fatalf("%s is not registered", worker)
	return nil
}

// untilConnected waits until the leader has a session with a worker, or none.
func (c *cluster) untilConnected(leader, worker string, connected bool, within time.Duration) {
	c.t.Helper()
	c.eventually(within, fmt.Sprintf("%s connected: %v", worker, connected), func() error {
		if live := c.live(leader, worker); live.Connected != connected {
			return fmt.Errorf("%v", live)
		}
		return nil
	})
}

func TestAWorkerThatIsCutOffGetsNoWork(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		// Clocks that start anywhere are no obstacle.
		offset := time.Duration(c.live(leader, "w1").ClockOffsetNs - c.live(leader, "w2").ClockOffsetNs)
		if want := c.offsets["w1"] - c.offsets["w2"]; (offset - want).Abs() > time.Second {
			t.Errorf("the workers' clocks are %v apart, not %v", offset, want)
		}
		load := c.startTraffic(100, 2*time.Second, controllerNames...)
		for _, worker := range []string{"w1", "w2", "w1"} {
			other := map[string]string{"w1": "w2", "w2": "w1"}[worker]
			time.Sleep(time.Second)
			c.net.Cut(leader, worker)
			c.untilConnected(leader, worker, false, 700*time.Millisecond)
			before, elsewhere := c.results(worker, sessionpb.ResultCode_RESULT_CODE_OK), c.results(other, sessionpb.ResultCode_RESULT_CODE_OK)
			time.Sleep(time.Second)
			if n := c.results(worker, sessionpb.ResultCode_RESULT_CODE_OK); n != before {
				t.Errorf("%s did %d actions while it was cut off", worker, n-before)
			}
			if n := c.results(other, sessionpb.ResultCode_RESULT_CODE_OK); n < elsewhere+20 {
				t.Errorf("%s did only %d actions", other, n-elsewhere)
			}
			c.net.Heal(leader, worker)
			healed := time.Now()
			c.untilConnected(leader, worker, true, 3*time.Second)
			t.Logf("%s was back %v after the heal", worker, time.Since(healed))
		}
		load.end()
		load.expectNoFault()
		if lost := c.journal.find("worker is lost"); len(lost) > 0 {
			t.Errorf("a short cut took a worker out of the registry: %v", lost)
		}
	})
}

func TestAWorkerThatJoinsLateGetsModelsAndWork(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		serving := time.Now()
		load := c.startTraffic(50, 2*time.Second, controllerNames...)
		c.startWorker("w2")
		c.eventually(30*time.Second, "the model on w2", func() error {
			if m := c.mustLoad(leader, "resnet18", resnet18); !loadedAt(m, "w2") {
				return fmt.Errorf("%v", m.Copies)
			}
			return nil
		})
		time.Sleep(time.Second)
		before := load.answered()
		c.kill("w1")
		time.Sleep(3 * time.Second)
		load.end()
		load.expectNoFault()
		if n := load.answered() - before; n < 100 {
			t.Errorf("w2 answered %d requests", n)
		}
		c.expectNotRepeated(map[string]bool{"resnet18": true}, serving)
	})
}

func TestAnotherKindOfDeviceIsProfiledBesideTheSchedule(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		load := c.startTraffic(50, time.Second, controllerNames...)
		c.tuneWorker = func(w *configs.Worker) { w.Devices[0].Kind = "a100" }
		c.startWorker("w2")
		c.eventually(30*time.Second, "a profile of the new kind", func() error {
			m := c.mustLoad(leader, "resnet18", resnet18)
			for _, p := range m.Profiles {
				if p.Key.DeviceKind == "a100" {
					return nil
				}
			}
			return fmt.Errorf("%v", m.Profiles)
		})
		if lines := c.journal.find("profiling", "worker=w2"); len(lines) != 1 {
			t.Errorf("w2 was to measure one model: %v", lines)
		}
		c.kill("w1")
		time.Sleep(3 * time.Second)
		load.end()
		load.expectNoFault()
		if n := c.results("w2", sessionpb.ResultCode_RESULT_CODE_OK); n < 50 {
			t.Errorf("w2 did %d actions", n)
		}
	})
}

// Either model fits into the weights cache, but not both.
func TestModelsThatDoNotFitTogetherAreBothServed(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		dir := c.table("a,40,4,2,3,4,6", "b,40,4,2,3,4,6.5")
		c.tuneWorker = func(w *configs.Worker) { w.ModelDir, w.Devices[0].WeightsCache = dir, 64*configs.MiB }
		c.startWorker("w1")
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		for _, model := range []string{"a", "b"} {
			c.mustLoad(leader, model, "table.csv#"+model)
		}
		c.expectServed(map[string]string{"a": "", "b": ""}, controllerNames...)
		to := c.inference(leader)
		loads := c.results("w1", sessionpb.ResultCode_RESULT_CODE_OK)
		for i := range 40 {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			if err := ask(ctx, to, image([]string{"a", "b"}[i%2], i)); err != nil {
				t.Errorf("request %d: %v", i, err)
			}
			cancel()
			if s := c.workers["w1"].worker.Stats().Devices[0]; s.Resident > 1 || s.FreePages+3*s.Resident != s.Pages {
				t.Errorf("after request %d: %+v", i, s)
			}
		}
		// Each request needs an eviction, a load and an Infer.
		if n := c.results("w1", sessionpb.ResultCode_RESULT_CODE_OK) - loads; n < 3*39 {
			t.Errorf("only %d actions for 40 requests: both models were resident", n)
		}
	})
}
