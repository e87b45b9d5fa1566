package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// replace has a new version of a model take the place of the one that serves.
func (c *cluster) replace(at, name, source string) (*controlpb.ModelStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := c.control(at).LoadModel(ctx, &controlpb.LoadModelRequest{Model: &logpb.LoadModel{Name: name, Source: source, Replace: true}})
	if err != nil {
		return nil, grpcerr.FromStatus(err)
	}
	return r.Models[0], nil
}

// versions are a model's, as a controller shows them.
func (c *cluster) versions(at, name string) (versions []string) {
	c.t.Helper()
	r, err := c.control(at).ListModels(context.Background(), &controlpb.ListModelsRequest{Name: name})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range r.Models {
		versions = append(versions, m.Model.Version)
	}
	return versions
}

// Under load, through all controllers: each answer is of one version or of the other,
// the old one's never come after the new one's have begun (but for what was sent
// before), and nothing fails.
func TestAVersionReplacesAnotherUnderLoad(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		through := follower(leader, controllerNames...)
		c.awaitNewestVersion()
		if _, err := c.replace(through, "resnet18", resnet152); !errors.Is(err, errs.LateLoad) {
			t.Errorf("a replacement while loads are rejected: %v", err)
		}
		c.admitLateLoads(leader)
		traffic := c.startTraffic(200, time.Second, controllerNames...)
		time.Sleep(time.Second)

		m, err := c.replace(through, "resnet18", resnet152)
		if err != nil || m.Model.Version != "2" || !strings.Contains(m.Replacement, "version 1") {
			t.Fatalf("replace: %v, %v", m, err)
		}
		if _, err := c.replace(leader, "resnet18", resnet18); !errors.Is(err, errs.Conflict) {
			t.Errorf("a second replacement beside the first: %v", err)
		}
		c.eventually(time.Minute, "only version 2 is left", func() error {
			if now := c.versions(through, "resnet18"); fmt.Sprint(now) != "[2]" {
				return fmt.Errorf("versions %v", now)
			}
			return nil
		})
		time.Sleep(time.Second)
		traffic.end()
		traffic.expectNoFault()

		taken := c.journal.find("a model takes over")
		measured := c.journal.find("profiling", "model=resnet18")
		if len(taken) != 1 || len(measured) != 2 || !measured[1].at.Before(taken[0].at) {
			t.Errorf("taken over %v, measured %v", taken, measured)
		}
		if !strings.Contains(taken[0].text, "devices_with_weights=2 before=2") {
			t.Errorf("it was not as warm as the version before: %s", taken[0].text)
		}
		r, err := c.inference(through).ModelInfer(t.Context(), image("resnet18", 1))
		if err != nil || r.ModelVersion != "2" {
			t.Errorf("now version %q answers, %v", r.GetModelVersion(), err)
		}
		old := image("resnet18", 1)
		old.ModelVersion = "1"
		if _, err := c.inference(through).ModelInfer(t.Context(), old); reasonOf(err).Reason != errs.UnknownModel {
			t.Errorf("a request for the version that was replaced: %v", err)
		}
		c.digestsEqual()
	})
}

// The switch is one entry of the log: whichever version answers first, from then on
// it is the new one, at every controller's latest after it has heard of it.
func TestTheSwitchToANewVersionIsAtomic(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		c.awaitNewestVersion()
		c.admitLateLoads(leader)
		if _, err := c.replace(leader, "resnet18", resnet152); err != nil {
			t.Fatal(err)
		}
		to, newest := c.inference(leader), "1"
		for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
			r, err := to.ModelInfer(t.Context(), within(image("resnet18", 1), time.Second))
			if err != nil {
				t.Fatalf("%v after the replacement was wanted: %v", time.Since(began), err)
			}
			if r.ModelVersion < newest {
				t.Fatalf("version %s answers after version %s", r.ModelVersion, newest)
			}
			newest = r.ModelVersion
		}
		if newest != "2" {
			t.Errorf("version %s still answers", newest)
		}
	})
}

func TestAReplacementThatCannotBeLoadedChangesNothing(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		c.awaitNewestVersion()
		c.admitLateLoads(leader)
		m, err := c.replace(leader, "resnet18", "profiles.csv#nosuch")
		if err != nil || m.Code != string(errs.LoadFailed) {
			t.Fatalf("%v, %v", m, err)
		}
		time.Sleep(20 * time.Second)
		if err := ask(t.Context(), c.inference(leader), image("resnet18", 1)); err != nil {
			t.Error(err)
		}
		if _, err := c.control(leader).UnloadModel(t.Context(), &controlpb.UnloadModelRequest{Name: "resnet18", Version: "2"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.replace(leader, "resnet18", resnet152); err != nil {
			t.Errorf("the next try: %v", err)
		}
	})
}

// The leader dies at several moments of a replacement: the next one goes on.
func TestTheLeaderIsKilledDuringAReplacement(t *testing.T) {
	for _, message := range []string{"profiling", "a model takes over", "a replaced version"} {
		t.Run(message, func(t *testing.T) {
			inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
				leader := c.serve(2)
				c.awaitNewestVersion()
				c.admitLateLoads(leader)
				others := survivors(leader)
				traffic := c.startTraffic(50, 5*time.Second, others...)
				began := time.Now()
				if _, err := c.replace(others[0], "resnet18", resnet152); err != nil {
					t.Fatal(err)
				}
				c.eventually(time.Minute, message, func() error {
					for _, l := range c.journal.find(message) {
						if !l.at.Before(began) {
							return nil
						}
					}
					return errors.New("not yet")
				})
				c.kill(leader)
				c.eventually(time.Minute, "only version 2 is left", func() error {
					if now := c.versions(others[0], "resnet18"); fmt.Sprint(now) != "[2]" {
						return fmt.Errorf("versions %v", now)
					}
					return nil
				})
				time.Sleep(time.Second)
				traffic.end()
				traffic.expectNoFault()
			})
		})
	}
}

// What measures a model takes no more of a device than its share, and the pages that
// it needs come from models that nobody waits for.
func TestALateLoadCostsTheScheduleLittle(t *testing.T) {
	const share = 0.1
	tune := func(config *configs.Controller) {
		quick(config)
		config.Startup.ProfileShare = share
	}
	inTunedBubble(t, 0, tune, func(t *testing.T, c *cluster) {
		dir := c.table("busy,32,4,2,3,5,9", "idle,32,4,2,3,5,9", "late,32,4,5,8,12,20")
		c.tuneWorker = func(w *configs.Worker) {
			w.ModelDir = dir
			w.Devices[0].WeightsCache = 64 << 20 // for two of the three
		}
		c.startWorker("w1")
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		c.mustLoad(leader, "busy", "table.csv#busy")
		c.mustLoad(leader, "idle", "table.csv#idle")
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		c.awaitNewestVersion()
		c.admitLateLoads(leader)
		for _, model := range []string{"idle", "busy"} { // both are on the device now
			if err := ask(t.Context(), c.inference(leader), image(model, 1)); err != nil {
				t.Fatal(err)
			}
		}
		alone := c.startTrafficFor("busy", 100, time.Second, leader)
		time.Sleep(5 * time.Second)
		alone.end()
		beside := c.startTrafficFor("busy", 100, time.Second, leader)
		began := time.Now()
		c.mustLoad(leader, "late", "table.csv#late")
		c.eventually(time.Minute, "the late model is measured", func() error {
			if m := c.model(leader, "late"); len(m.Profiles) == 0 {
				return fmt.Errorf("%v", m.Reason)
			}
			return nil
		})
		took := time.Since(began)
		beside.end()
		alone.expectNoFault()
		beside.expectNoFault()
		// The late model's weights take 4 ms thrice, and each number of rows at least
		// 12 runs: 552 ms in all.
		if took < 4*time.Second {
			t.Errorf("measuring took %v: that is more than %v of the device", took, share)
		}
		// A request waits for one run at most, of 20 ms.
		if before, now := slowest(alone.took), slowest(beside.took); now > before+25*time.Millisecond {
			t.Errorf("the slowest answer took %v beside the measurement, %v without", now, before)
		}
		if before, now := median(alone.took), median(beside.took); now > before+before/10 {
			t.Errorf("the median answer took %v beside the measurement, %v without", now, before)
		}
		if err := ask(t.Context(), c.inference(leader), image("late", 1)); err != nil {
			t.Error(err)
		}
	})
}

func slowest(times []time.Duration) (most time.Duration) {
	for _, t := range times {
		most = max(most, t)
	}
	return most
}

// A worker whose kind of device is new is measured while the cluster serves, also
// when loads are rejected.
func TestANewKindOfDeviceIsMeasuredBesideTheSchedule(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		c.awaitNewestVersion()
		traffic := c.startTraffic(100, time.Second, controllerNames...)
		c.tuneWorker = func(w *configs.Worker) { w.Devices[0].Kind = "a100" }
		c.startWorker("w2")
		c.eventually(30*time.Second, "a profile of the new kind", func() error {
			if m := c.model(leader, "resnet18"); len(m.Profiles) != 2 || m.Profiles[0].Key.DeviceKind != "a100" {
				return fmt.Errorf("%v", m.Profiles)
			}
			return nil
		})
		c.setStatus(leader, "w1", cordoned, 0)
		c.expectWork("w2")
		time.Sleep(time.Second)
		traffic.end()
		traffic.expectNoFault()
	})
}
