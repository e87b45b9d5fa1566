package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// faultyTable is table for models that kill their workers, or are slow to load:
// the columns more are what a model crashes on, and the ms to load it from disk.
func (c *cluster) faultyTable(rows ...string) (dir string) {
	c.t.Helper()
	dir = c.t.TempDir()
	text := "model,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms,b8_ms,crash_on,disk_load_ms\n" + strings.Join(rows, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "table.csv"), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return dir
}

// admitLateLoads lets a serving cluster load models.
func (c *cluster) admitLateLoads(at string) {
	c.t.Helper()
	_, err := c.control(at).SetSettings(context.Background(), &controlpb.SetSettingsRequest{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
	if err != nil {
		c.t.Fatal(err)
	}
}

// serveBesideFaulty has four workers serve resnet18's like, with faulty models in
// their table, and admits loads.
func (c *cluster) serveBesideFaulty(rows ...string) (leader string) {
	c.t.Helper()
	dir := c.faultyTable(append([]string{"good,10,2,3,4,6,10,,"}, rows...)...)
	c.tuneWorker = func(w *configs.Worker) { w.ModelDir, w.Engines.Emulated.AllowCommands = dir, true }
	for i := range 4 {
		c.startWorker(fmt.Sprintf("w%d", i+1))
	}
	leader = c.leader(controllerNames...)
	c.registered(leader, 4)
	c.mustLoad(leader, "good", "table.csv#good")
	c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
	c.awaitNewestVersion()
	c.admitLateLoads(leader)
	return leader
}

// A model that kills its worker takes two of them down, and is then stopped, with a
// message that says what to do. Whoever serves beside it goes on.
func TestAModelThatKillsItsWorkersIsBlamedAfterTheSecond(t *testing.T) {
	for _, on := range []string{"load", "run", "weights"} {
		t.Run(on, func(t *testing.T) {
			inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
				leader := c.serveBesideFaulty("deadly,10,2,3,4,6,10," + on + ",")
				load := c.startTrafficFor("good", 300, time.Second, controllerNames...)
				time.Sleep(time.Second)
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				pending := c.startLoad(ctx, follower(leader, controllerNames...), "deadly", "table.csv#deadly")
				c.eventually(20*time.Second, "the blame", func() error {
					c.restartCrashed()
					if m := c.model(leader, "deadly"); m.Code != string(errs.ModelBlamed) {
						return fmt.Errorf("%s: %s", m.Code, m.Reason)
					}
					return nil
				})
				m := c.model(leader, "deadly")
				if !strings.Contains(m.Reason, "died while they") || !strings.Contains(m.Advice, "orrery model resume deadly") {
					t.Errorf("it says %q, %q", m.Reason, m.Advice)
				}
				c.restartCrashed()
				for range 10 {
					time.Sleep(time.Second)
					c.restartCrashed()
				}
				if c.crashCount() != 2 {
					t.Errorf("it took %d workers down: %v", c.crashCount(), c.crashes)
				}
				e := reasonOf(ask(context.Background(), c.inference("c1"), within(image("deadly", 1), time.Second)))
				if e.Reason != errs.ModelBlamed || !strings.Contains(e.Message, m.Reason) || !strings.Contains(e.Message, m.Advice) {
					t.Errorf("a request for it: %+v", e)
				}
				<-pending.done
				if pending.err != nil || on == "load" && pending.m.Code != string(errs.ModelBlamed) {
					t.Errorf("the load was answered %v, %v", pending.m, pending.err)
				}
				load.end()
				load.expectNoFault()
				// The next leader knows.
				c.kill(leader)
				next := c.leader(survivors(leader)...)
				time.Sleep(5 * time.Second)
				if m := c.model(next, "deadly"); m.Code != string(errs.ModelBlamed) || c.crashCount() != 2 {
					t.Errorf("under the next leader: %v, %d crashes", m, c.crashCount())
				}
			})
		})
	}
}

func TestABlamedModelCanBeResumed(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		// It kills in the first run of each process only by way of a table that is
		// mended meanwhile.
		leader := c.serveBesideFaulty("deadly,10,2,3,4,6,10,load,")
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		pending := c.startLoad(ctx, leader, "deadly", "table.csv#deadly")
		c.eventually(20*time.Second, "the blame", func() error {
			c.restartCrashed()
			if m := c.model(leader, "deadly"); m.Code != string(errs.ModelBlamed) {
				return fmt.Errorf("%s: %s", m.Code, m.Reason)
			}
			return nil
		})
		<-pending.done
		c.restartCrashed()
		mended := c.faultyTable("good,10,2,3,4,6,10,,", "deadly,10,2,3,4,6,10,,")
		c.tuneWorker = func(w *configs.Worker) { w.ModelDir = mended }
		for i := range 4 {
			c.stop(fmt.Sprintf("w%d", i+1))
			c.startWorker(fmt.Sprintf("w%d", i+1))
		}
		r, err := c.control(leader).ResumeModel(ctx, &controlpb.ResumeModelRequest{Name: "deadly"})
		if err != nil || len(r.ModelIds) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		c.eventually(20*time.Second, "an answer", func() error {
			return ask(context.Background(), c.inference("c2"), within(image("deadly", 1), time.Second))
		})
		if _, err := c.control(leader).ResumeModel(ctx, &controlpb.ResumeModelRequest{Name: "nobody"}); !errors.Is(reasonOf(err), errs.UnknownModel) {
			t.Errorf("resume nothing: %v", err)
		}
	})
}

// A request that kills workers is tried twice; the others are not lost by it.
func TestARequestThatKillsWorkersIsBlamedAfterTheSecond(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.serveBesideFaulty()
		load := c.startTrafficFor("good", 600, 2*time.Second, controllerNames...)
		time.Sleep(time.Second)
		poison := within(image("good", 7), 10*time.Second)
		poison.Parameters["emulated_crash"] = &inferencepb.InferParameter{ParameterChoice: &inferencepb.InferParameter_StringParam{StringParam: "true"}}
		began := time.Now()
		e := reasonOf(ask(context.Background(), c.inference(follower(leader, controllerNames...)), poison))
		if e.Reason != errs.RequestBlamed || e.Execution == errs.NotExecuted || strings.Count(e.Message, "died while it had it") != 2 {
			t.Errorf("after %v: %+v", time.Since(began), e)
		}
		time.Sleep(3 * time.Second)
		if c.crashCount() != 2 {
			t.Errorf("it took %d workers down: %v", c.crashCount(), c.crashes)
		}
		if m := c.model(leader, "good"); m.Code != "" {
			t.Errorf("the model is not to blame: %v", m)
		}
		load.end()
		load.expectNoFault()
	})
}

// Many machines that die at once prove nothing against what they did.
func TestNobodyIsBlamedWhenMachinesDieTogether(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.serveBesideFaulty()
		load := c.startTrafficFor("good", 600, 2*time.Second, controllerNames...)
		for range 5 {
			time.Sleep(2 * time.Second)
			for _, name := range []string{"w1", "w2", "w3"} {
				c.crashed(name)
				time.Sleep(3 * time.Millisecond) // connections break one after the other
			}
			time.Sleep(time.Second)
			c.restartCrashed()
			c.eventually(time.Minute, "all are back", func() error {
				for _, name := range []string{"w1", "w2", "w3"} {
					if w := c.worker(leader, name); w == nil || len(w.Models) == 0 {
						return fmt.Errorf("%s: %v", name, w)
					}
				}
				return nil
			})
		}
		load.end()
		load.expectNoFault()
		if m := c.model(leader, "good"); m.Code != "" {
			t.Errorf("blamed: %v", m)
		}
	})
}

// What hangs in one device is tried on another one, and no more.
func TestARequestThatHangsIsTriedTwice(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.serveBesideFaulty()
		load := c.startTrafficFor("good", 300, 2*time.Second, controllerNames...)
		time.Sleep(time.Second)
		hangs := within(image("good", 7), 10*time.Second)
		hangs.Parameters["emulated_delay"] = &inferencepb.InferParameter{ParameterChoice: &inferencepb.InferParameter_StringParam{StringParam: "1h"}}
		e := reasonOf(ask(context.Background(), c.inference("c1"), hangs))
		if e.Reason != errs.WorkerTimeout || strings.Count(e.Message, "did not answer in time") != 2 {
			t.Errorf("%+v", e)
		}
		time.Sleep(2 * time.Second)
		load.end()
		load.expectNoFault()
	})
}
