package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// This file is about what goes on beside the schedule, where it is tight.

// serveTight serves the models of a table on workers with a weights cache of so many
// MiB, and admits late loads.
func (c *cluster) serveTight(dir string, cacheMiB int, workers []string, models ...string) (leader string) {
	c.t.Helper()
	tune := c.tuneWorker
	c.tuneWorker = func(w *configs.Worker) {
		tune(w)
		w.ModelDir, w.Devices[0].WeightsCache = dir, configs.Bytes(cacheMiB)<<20
	}
	for _, name := range workers {
		c.startWorker(name)
	}
	leader = c.leader(controllerNames...)
	c.registered(leader, len(workers))
	for _, m := range models {
		c.mustLoad(leader, m, "table.csv#"+m)
	}
	c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
	c.awaitNewestVersion()
	c.admitLateLoads(leader)
	return leader
}

// untilMeasured waits until a model has a profile of so many kinds of devices.
func (c *cluster) untilMeasured(at, model string, kinds int, within time.Duration) {
	c.t.Helper()
	control := c.control(at)
	c.eventually(within, model+" is measured", func() error {
		r, err := control.ListModels(context.Background(), &controlpb.ListModelsRequest{Name: model})
		if err == nil && len(r.Models[0].Profiles) < kinds {
			err = fmt.Errorf("%d profiles, %s", len(r.Models[0].Profiles), r.Models[0].Reason)
		}
		return err
	})
}

// Its first copy is there long before the others: the version before goes on until
// all are.
func TestAReplacementTakesOverWithAllItsCopies(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.serveTight(c.faultyTable("slow,10,1,20,30,,,,2000"), 512, []string{"w1", "w2", "w3"}, "slow")
		traffic := c.startTrafficFor("slow", 120, 200*time.Millisecond, controllerNames...)
		time.Sleep(5 * time.Second)
		// The same source: there is nothing to measure.
		if _, err := c.replace(leader, "slow", "table.csv#slow"); err != nil {
			t.Fatal(err)
		}
		c.eventually(30*time.Second, "the switch", func() error {
			if lines := c.journal.find("a model takes over", "devices_with_weights=3 before=3"); len(lines) == 0 {
				return fmt.Errorf("%v", c.journal.find("a model takes over"))
			}
			return nil
		})
		time.Sleep(5 * time.Second)
		traffic.end()
		traffic.expectNoFault()
	})
}

func TestAReplacementIsMeasuredOnAllKindsBeforeItTakesOver(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.tuneWorker = func(w *configs.Worker) {
			w.Devices[0].Kind = "a"
			if w.Name != "w1" {
				w.Devices[0].Kind = "b"
				w.Engines.Emulated.Slowdown = 4
			}
		}
		leader := c.serveTight(c.table("m,10,1,20,30,40,50", "n,10,1,20,30,40,50"), 512, []string{"w1", "w2", "w3"}, "m")
		traffic := c.startTrafficFor("m", 100, 800*time.Millisecond, controllerNames...)
		time.Sleep(2 * time.Second)
		if _, err := c.replace(leader, "m", "table.csv#n"); err != nil {
			t.Fatal(err)
		}
		c.eventually(3*time.Minute, "the switch", func() error {
			if len(c.journal.find("a model takes over")) == 0 {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		if m := c.model(leader, "m"); len(m.Profiles) != 2 {
			t.Errorf("it took over with %d profiles of two kinds", len(m.Profiles))
		}
		time.Sleep(2 * time.Second)
		traffic.end()
		traffic.expectNoFault()
	})
}

// The measurement needs more than the model that is always waited for leaves.
func TestAMeasurementWithoutRoomTakesNothingFromOthers(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.serveTight(c.table("hot,32,4,20,25,30,40", "cold,16,4,2,3,5,9", "late,48,4,5,8,12,20"), 64, []string{"w1"}, "hot", "cold")
		traffic := c.startTrafficFor("hot", 60, time.Second, leader)
		time.Sleep(2 * time.Second)
		c.mustLoad(leader, "late", "table.csv#late")
		for range 20 {
			if err := ask(t.Context(), c.inference(leader), within(image("cold", 1), time.Second)); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		traffic.end()
		traffic.expectNoFault()
		if n := len(c.model(leader, "late").Profiles); n > 0 {
			t.Error("it was measured all the same: there was room")
		}
		c.untilMeasured(leader, "late", 1, time.Minute) // now that it is quiet
	})
}

// profileAttemptsToGiveUp is the controller's.
const profileAttemptsToGiveUp = 3

// A model is measured where its weights are; another one needs the room.
func TestWeightsThatAreMeasuredCanBeEvicted(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.tuneWorker = func(*configs.Worker) {}
		dir := c.table("a,32,4,20,25,30,40", "b,32,4,2,3,5,9", "c,32,4,2,3,5,9")
		leader := c.serveTight(dir, 64, []string{"w1"}, "b", "c")
		load := func(name string, rows uint32) {
			if _, err := c.control(leader).LoadModel(context.Background(), &controlpb.LoadModelRequest{Model: &logpb.LoadModel{
				Name: name, Source: "table.csv#a", MaxRows: rows,
			}}); err != nil {
				t.Fatal(err)
			}
		}
		load("a", 1)
		c.untilMeasured(leader, "a", 1, time.Minute)
		for _, model := range []string{"a", "b"} {
			if err := ask(t.Context(), c.inference(leader), image(model, 1)); err != nil {
				t.Fatal(err)
			}
		}
		traffic := c.startTrafficFor("b", 100, time.Second, leader)
		time.Sleep(2 * time.Second)
		load("a2", 8)
		time.Sleep(300 * time.Millisecond)
		for range 5 {
			if err := ask(t.Context(), c.inference(leader), within(image("c", 1), time.Second)); err != nil {
				t.Error(err)
			}
		}
		c.eventually(5*time.Minute, "a2's rows are measured", func() error {
			if p := c.model(leader, "a2").Profiles; len(p) == 0 || len(p[0].Execution) != 4 {
				return fmt.Errorf("%v", p)
			}
			return nil
		})
		traffic.end()
		traffic.expectNoFault()
	})
}

// Three measured loads of 800 ms are no reason for a batch to wait.
func TestMeasuredLoadsKeepNoBatchWaiting(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.serveTight(c.table("busy,32,4,2,3,5,9", "late,32,800,5,8,12,20"), 512, []string{"w1"}, "busy")
		traffic := c.startTrafficFor("busy", 100, 500*time.Millisecond, leader)
		time.Sleep(2 * time.Second)
		c.mustLoad(leader, "late", "table.csv#late")
		c.untilMeasured(leader, "late", 1, 2*time.Minute)
		traffic.end()
		traffic.expectNoFault()
		if slow := slowest(traffic.took); slow > 50*time.Millisecond {
			t.Errorf("the slowest answer took %v", slow)
		}
	})
}

// A worker comes back in the middle, with a cache that is full.
func TestRoomIsLentToAWorkerThatCameBack(t *testing.T) {
	inTunedBubble(t, 0, threeSeconds, func(t *testing.T, c *cluster) {
		dir := c.table("busy,32,4,2,3,5,9", "idle,32,4,2,3,5,9", "late,32,4,5,8,12,20")
		leader := c.serveTight(dir, 64, []string{"w1"}, "busy", "idle")
		if err := c.reopen(leader, false); err != nil {
			t.Fatal(err)
		}
		for _, model := range []string{"idle", "busy"} {
			if err := ask(t.Context(), c.inference(leader), image(model, 1)); err != nil {
				t.Fatal(err)
			}
		}
		c.mustLoad(leader, "late", "table.csv#late")
		time.Sleep(500 * time.Millisecond)
		c.net.Isolate("w1")
		c.untilPhase(leader, logpb.Phase_PHASE_PROFILING, 10*time.Second)
		time.Sleep(500 * time.Millisecond)
		c.net.Rejoin("w1")
		c.untilMeasured(leader, "late", 1, 10*time.Second)
	})
}

// Of two models that share a profile the first one's worker is away.
func TestAnyModelOfAProfileIsMeasured(t *testing.T) {
	inTunedBubble(t, 2, threeSeconds, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		one, two := holders(c.loadCopies(leader, "one", resnet18, 1)), holders(c.loadCopies(leader, "two", resnet18, 1))
		if one[0] == two[0] {
			t.Fatalf("both are on %v", one)
		}
		c.net.Isolate(one[0])
		c.untilPhase(leader, logpb.Phase_PHASE_PROFILING, 30*time.Second)
		c.untilMeasured(leader, "two", 1, 3*time.Second)
	})
}

// On a device on which weights come and go a check finds no room at first.
func TestADeviceThatPagesIsChecked(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		models := []string{"a", "b", "d"}
		leader := c.serveTight(c.table("a,32,4,2,3,5,9", "b,32,4,2,3,5,9", "d,32,4,2,3,5,9"), 32, []string{"w1"}, models...)
		c.setStatus(leader, "w1", cordoned, 0)
		c.startWorker("w2")
		c.registered(leader, 2)
		var all []*traffic
		for _, m := range models {
			all = append(all, c.startTrafficFor(m, 40, time.Second, leader))
		}
		time.Sleep(20 * time.Second)
		for _, traffic := range all {
			traffic.end()
		}
		c.eventually(time.Minute, "w2 is checked", func() error {
			if w := c.worker(leader, "w2"); w == nil || len(w.Worker.Checks) != 1 {
				return fmt.Errorf("%v", w)
			}
			return nil
		})
	})
}

// What was given up is tried again by a worker that was started anew.
func TestAMendedWorkerIsMeasured(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.tuneWorker = func(w *configs.Worker) { w.Engines.Emulated.FailureRate = 1 }
		leader := c.serveTight(c.table("m,32,4,2,3,5,9"), 512, []string{"w1"}, "m")
		if n := len(c.journal.find("profiling failed")); n != profileAttemptsToGiveUp {
			t.Fatalf("%d attempts to measure it", n)
		}
		c.stop("w1")
		tune := c.tuneWorker
		c.tuneWorker = func(w *configs.Worker) { tune(w); w.Engines.Emulated.FailureRate = 0 }
		c.startWorker("w1")
		c.untilMeasured(leader, "m", 1, 30*time.Second)
		if err := ask(t.Context(), c.inference(leader), image("m", 1)); err != nil {
			t.Error(err)
		}
	})
}

// Reopened once more while it profiles: loads are accepted for as long again.
func TestAReopenedStartupThatProfilesIsReopened(t *testing.T) {
	inTunedBubble(t, 1, threeSeconds, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		c.mustLoad(leader, "resnet18", resnet18)
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		c.awaitNewestVersion()
		if err := c.reopen(leader, false); err != nil {
			t.Fatal(err)
		}
		c.mustLoad(leader, "late", resnet152)
		c.untilPhase(leader, logpb.Phase_PHASE_PROFILING, 10*time.Second)
		if err := c.reopen(leader, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		c.mustLoad(leader, "later", resnet152)
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		c.expectServed(map[string]string{"late": "", "later": ""}, leader)
	})
}
