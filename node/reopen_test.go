package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// reopen has a cluster accept loads again, or ends that.
func (c *cluster) reopen(at string, shut bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := c.control(at).ReopenStartup(ctx, &controlpb.ReopenStartupRequest{Close: shut})
	return grpcerr.FromStatus(err)
}

func threeSeconds(config *configs.Controller) { config.Startup.LoadIdle = 3 * time.Second }

// The same countdown and profiling as the first time, and nobody who is served
// notices.
func TestAReopenedStartupTakesLoadsWhileItServes(t *testing.T) {
	inTunedBubble(t, 2, threeSeconds, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		through := follower(leader, controllerNames...)
		c.registered(leader, 2)
		if err := c.reopen(leader, false); !errors.Is(err, errs.Precondition) {
			t.Errorf("reopened before it was closed: %v", err)
		}
		c.mustLoad(leader, "resnet18", resnet18)
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		c.awaitNewestVersion()
		traffic := c.startTraffic(100, time.Second, controllerNames...)
		time.Sleep(time.Second)

		if err := c.reopen(through, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if s, err := c.startup(through); err != nil || s.Phase != logpb.Phase_PHASE_WAITING || !s.Serving || !s.AdmitsLoads || s.CountdownNs >= 0 {
			t.Errorf("reopened, without a load: %v, %v", s, err)
		}
		if err := c.reopen(leader, true); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := c.load(t.Context(), leader, "late", resnet152); !errors.Is(grpcerr.FromStatus(err), errs.LateLoad) {
			t.Errorf("a load after it was closed: %v", err)
		}
		if err := c.reopen(through, false); err != nil {
			t.Fatal(err)
		}
		wanted := time.Now()
		c.mustLoad(through, "late", resnet152)
		if err := c.reopen(leader, true); !errors.Is(err, errs.Precondition) {
			t.Errorf("closed while a load counts down: %v", err)
		}
		time.Sleep(2 * time.Second)
		if s, err := c.startup(leader); err != nil || s.Phase != logpb.Phase_PHASE_LOADING || !s.Serving || s.CountdownNs <= 0 {
			t.Errorf("during the countdown: %v, %v", s, err)
		}
		if n := len(c.journal.find("profiling", "model=late")); n > 0 {
			t.Errorf("measured %d times before the countdown was over", n)
		}
		c.untilPhase(through, logpb.Phase_PHASE_SERVING, time.Minute)
		if idle := c.journal.phaseAt("profiling", wanted).Sub(wanted); idle < 3*time.Second || idle > 3*time.Second+tolerance {
			t.Errorf("profiling began %v after the load, not 3s", idle)
		}
		c.expectServed(map[string]string{"resnet18": resnet18, "late": resnet152}, controllerNames...)
		traffic.end()
		traffic.expectNoFault()
		if _, err := c.load(t.Context(), leader, "too-late", resnet152); !errors.Is(grpcerr.FromStatus(err), errs.LateLoad) {
			t.Errorf("a load after it closed by itself: %v", err)
		}
	})
}

// The leader dies in each phase of a startup that was reopened: the next one serves
// at once, and goes on with it.
func TestTheLeaderIsKilledWhileTheStartupIsReopened(t *testing.T) {
	for _, phase := range []logpb.Phase{logpb.Phase_PHASE_WAITING, logpb.Phase_PHASE_LOADING, logpb.Phase_PHASE_PROFILING} {
		t.Run(phase.String(), func(t *testing.T) {
			inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
				leader := c.serve(2)
				c.awaitNewestVersion()
				others := survivors(leader)
				traffic := c.startTraffic(50, 5*time.Second, others...)
				if err := c.reopen(leader, false); err != nil {
					t.Fatal(err)
				}
				if phase != logpb.Phase_PHASE_WAITING {
					c.mustLoad(leader, "late", resnet152)
				}
				c.untilPhase(others[0], phase, 10*time.Second)
				killed := time.Now()
				c.kill(leader)
				c.leader(others...)
				if phase == logpb.Phase_PHASE_WAITING {
					c.mustLoad(others[1], "late", resnet152)
				}
				c.untilPhase(others[0], logpb.Phase_PHASE_SERVING, time.Minute)
				c.expectServed(map[string]string{"resnet18": resnet18, "late": resnet152}, others...)
				time.Sleep(time.Second)
				traffic.end()
				traffic.expectNoFault()
				if gap := traffic.longestGap(); gap > 2*time.Second {
					t.Errorf("%v without an answer", gap)
				}
				c.expectNotRepeated(map[string]bool{"resnet18": true}, killed)
			})
		})
	}
}
