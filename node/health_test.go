package node

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// appliedAt is how far a controller's log has come.
func (c *cluster) appliedAt(name string) uint64 {
	c.t.Helper()
	s, err := c.status(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return s.AppliedIndex
}

// crashLoop kills a worker and starts it again every so often.
func (c *cluster) crashLoop(name string, lives time.Duration, for_ time.Duration) (deaths int) {
	c.t.Helper()
	for end := time.Now().Add(for_); time.Now().Before(end); deaths++ {
		time.Sleep(lives)
		c.kill(name)
		time.Sleep(50 * time.Millisecond)
		c.startWorker(name)
	}
	return deaths
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// One worker in a crash loop costs less than one log entry a second, and the
// others' latency is what it was: ten pairs of times with and without it.
func TestAWorkerInACrashLoopIsNobodyElsesBurden(t *testing.T) {
	inTunedBubble(t, 3, quick, func(t *testing.T, c *cluster) {
		c.offsets["w3"] = time.Minute
		leader := c.serve(3)
		const phase = 4 * time.Second
		var ratios []float64
		var entries, background uint64
		deaths := 0
		for range 10 {
			var medians [2]time.Duration
			for i := range medians {
				at := c.appliedAt(leader)
				load := c.startTraffic(250, time.Second, controllerNames...)
				if i == 1 {
					deaths += c.crashLoop("w3", 700*time.Millisecond, phase)
				} else {
					time.Sleep(phase)
				}
				load.end()
				load.expectNoFault()
				medians[i] = median(load.took)
				if n := c.appliedAt(leader) - at; i == 1 {
					entries += n
				} else {
					background += n
				}
			}
			ratios = append(ratios, float64(medians[1])/float64(medians[0]))
		}
		slices.Sort(ratios)
		rate := float64(entries-min(entries, background)) / (10 * phase.Seconds())
		t.Logf("%d deaths in %v; %.2f log entries a second for them; the others' median latency was ×%.3f (median of ten pairs; least %.3f, most %.3f)",
			deaths, 10*phase, rate, ratios[5], ratios[0], ratios[9])
		if rate > 1 {
			t.Errorf("%.2f log entries a second", rate)
		}
		if ratios[5] > 1.05 {
			t.Errorf("latency rose: %v", ratios)
		}
		if deaths < 40 {
			t.Errorf("only %d deaths", deaths)
		}
		if lines := c.journal.find("worker keeps failing", "worker=w3"); len(lines) < 2 {
			t.Errorf("it was put into quarantine %d times", len(lines))
		}
		if w := c.worker(leader, "w3"); w != nil && w.Live.QuarantinedNs == 0 && !w.Live.OnTrial {
			t.Errorf("an operator sees %v", w)
		}
		// An operator who has mended it need not wait.
		c.setStatus(follower(leader, controllerNames...), "w3", ready, 0)
		c.eventually(5*time.Second, "the worker is back", func() error {
			if w := c.worker(leader, "w3"); w == nil || !w.Live.Connected || w.Live.QuarantinedNs > 0 || len(w.Models) == 0 {
				return fmt.Errorf("%v", w)
			}
			return nil
		})
	})
}

// A worker whose runs fail while others' succeed is put aside; it is let back in on
// trial.
func TestAWorkerThatFailsWhatOthersCanDoIsQuarantined(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.startWorker("w2")
		c.startWorker("w3")
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		c.mustLoad(leader, "resnet18", resnet18)
		c.untilPhase(leader, 4, time.Minute) // serving
		// It gets its model by the profile that the others have made.
		c.tuneWorker = func(w *configs.Worker) { w.Engines.Emulated.FailureRate = 1 }
		c.startWorker("w1")
		load := c.startTraffic(2500, time.Second, controllerNames...) // so that it is needed
		c.eventually(20*time.Second, "a quarantine", func() error {
			if w := c.worker(leader, "w1"); w == nil || w.Live.QuarantinedNs == 0 {
				return fmt.Errorf("%v", w)
			}
			return nil
		})
		before := c.done("w1") + c.results("w1", sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED)
		time.Sleep(3 * time.Second)
		// It may have been given 10 ms of work already, at 1.6 ms a run.
		if n := c.done("w1") + c.results("w1", sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED) - before; n > 8 {
			t.Errorf("%d actions in quarantine", n)
		}
		load.end()
		if w := c.worker(leader, "w1"); w.Worker.Status != ready || !w.Live.Connected {
			t.Errorf("quarantine is not the registry's: %v", w)
		}
	})
}

// Clocks that are off by an hour and drift are no obstacle: windows are met, and
// what a worker says of its times is true on the leader's clock.
func TestWorkersWithClocksThatAreOffAndDrift(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.offsets = map[string]time.Duration{"w1": 7 * time.Minute, "w2": -3 * time.Hour}
		c.drifts = map[string]float64{"w1": 200e-6, "w2": -200e-6}
		c.startWorker("w1")
		c.startWorker("w2")
		leader := c.serve(2)
		began := time.Now()
		load := c.startTraffic(100, 60*time.Millisecond, controllerNames...)
		time.Sleep(time.Minute)
		load.end()
		load.expectNoFault()
		for name := range c.offsets {
			late := c.results(name, sessionpb.ResultCode_RESULT_CODE_TOO_LATE) + c.results(name, sessionpb.ResultCode_RESULT_CODE_TOO_EARLY)
			if late > 0 {
				t.Errorf("%s refused %d actions for their window", name, late)
			}
			drifted := time.Duration(c.drifts[name] * float64(time.Since(began)))
			want := c.offsets[name] + drifted
			live := c.live(leader, name)
			// The leader's clock and the workers' begin at different instants.
			t.Logf("%s: offset %v, drifted by %v, estimated %v", name, c.offsets[name], drifted, time.Duration(live.ClockOffsetNs))
			if diff := (time.Duration(live.ClockOffsetNs) - want).Abs(); diff > 5*time.Second {
				t.Errorf("%s is %v off, estimated %v", name, want, time.Duration(live.ClockOffsetNs))
			}
		}
		// The drift between the two, which the instants of their starts leave alone.
		first := time.Duration(c.live(leader, "w1").ClockOffsetNs - c.live(leader, "w2").ClockOffsetNs)
		time.Sleep(3 * time.Minute)
		moved := time.Duration(c.live(leader, "w1").ClockOffsetNs-c.live(leader, "w2").ClockOffsetNs) - first
		if want := 72 * time.Millisecond; (moved - want).Abs() > 2*time.Millisecond {
			t.Errorf("in three minutes the clocks came apart by %v, want %v", moved, want)
		}
	})
}

// In a cluster in which nothing goes wrong, what the leader believes is what the
// workers say.
func TestNothingHasToBeRepairedWithoutAFault(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		c.tuneWorker = func(w *configs.Worker) { w.Devices[0].WeightsCache = 64 * configs.MiB }
		c.stop("w1")
		c.startWorker("w1")
		leader := c.serve(2)
		for i := range 6 { // more than fit on w1's device
			c.admitLateLoads(leader)
			c.mustLoad(leader, fmt.Sprint("m", i), []string{resnet18, resnet152}[i%2])
		}
		time.Sleep(5 * time.Second)
		load := c.startTraffic(200, time.Second, controllerNames...)
		others := []*traffic{}
		for i := range 6 {
			others = append(others, c.startTrafficFor(fmt.Sprint("m", i), 20, time.Second, controllerNames...))
		}
		time.Sleep(20 * time.Second)
		load.end()
		for _, o := range others {
			o.end()
		}
		for _, name := range []string{"w1", "w2"} {
			if live := c.live(leader, name); live.Repairs != 0 {
				t.Errorf("%d repairs at %s: %v", live.Repairs, name, c.journal.find("what was believed of a worker was wrong"))
			}
		}
		if n := c.results("w1", sessionpb.ResultCode_RESULT_CODE_OK); n < 100 {
			t.Errorf("w1 did only %d actions", n)
		}
	})
}

// What an operator sees of a worker is what the leader knows right now, whoever is
// asked.
func TestAWorkerIsShownLiveByEveryController(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		c.serve(2)
		load := c.startTraffic(937, time.Second, controllerNames...) // mostly busy, and not in step with the heartbeats
		time.Sleep(2 * time.Second)
		for _, at := range controllerNames {
			busy, resident := false, false
			for range 50 {
				r, err := c.control(at).ListWorkers(context.Background(), &controlpb.ListWorkersRequest{Name: "w1"})
				if err != nil || len(r.Workers) != 1 {
					t.Fatalf("%v, %v", r, err)
				}
				w := r.Workers[0]
				if !w.Live.Connected || w.Live.LastHeartbeatAgoNs > int64(300*time.Millisecond) || w.Worker.SessionAddress != "w1:8020" ||
					len(w.Models) != 1 || len(w.Live.Devices) != 1 {
					t.Fatalf("%s shows %v", at, w)
				}
				d := w.Live.Devices[0]
				busy = busy || w.Live.QueueLength > 0 && d.Executing == "resnet18" && d.Queued > 0
				resident = resident || slices.Equal(d.Resident, []string{"resnet18"}) && d.FreePages < d.Pages
				time.Sleep(37 * time.Millisecond)
			}
			if !busy || !resident {
				t.Errorf("%s never shows what runs (%v) and what is resident (%v)", at, busy, resident)
			}
		}
		load.end()
		if _, err := c.control("c1").ListWorkers(context.Background(), &controlpb.ListWorkersRequest{Name: "w9"}); reasonOf(err).Reason != "UNKNOWN_WORKER" {
			t.Errorf("a worker that isn't there: %v", err)
		}
	})
}
