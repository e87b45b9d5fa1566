package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/scheduler"
)

// setPolicy asks a controller for a policy, and for late loads as they are.
func (c *cluster) setPolicy(at, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	settings := &logpb.Settings{Policy: name, LateLoads: logpb.Settings_LATE_LOADS_ADMIT}
	_, err := c.control(at).SetSettings(ctx, &controlpb.SetSettingsRequest{Settings: settings})
	return err
}

// untilPolicy waits until all controllers know that a policy is set, and that the
// leader uses one.
func (c *cluster) untilPolicy(set, used string, among ...string) {
	c.t.Helper()
	c.eventually(20*time.Second, fmt.Sprintf("the policy %q", set), func() error {
		for _, name := range among {
			s, err := c.status(name)
			if err != nil {
				return err
			}
			if now := s.Cluster.GetSettings().GetPolicy(); now != set || s.Policy != used {
				return fmt.Errorf("%s says that %q is set, and %q used", name, now, s.Policy)
			}
		}
		return nil
	})
}

// One policy after the other takes over while requests wait and run; then leaders
// change, and all controllers are killed.
func TestThePolicyChangesUnderLoad(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		at := follower(leader, controllerNames...)
		c.awaitNewestVersion()
		load := c.startTraffic(300, 3*time.Second, survivors(leader)...)
		used, changes := scheduler.DefaultPolicy, 0
		for _, name := range append(scheduler.Policies(), "", scheduler.DefaultPolicy, slices.Max(scheduler.Policies())) {
			if err := c.setPolicy(at, name); err != nil {
				t.Fatal(err)
			}
			next := name
			if next == "" {
				next = scheduler.DefaultPolicy
			}
			if next != used {
				changes++
			}
			used = next
			c.untilPolicy(name, used, controllerNames...)
			before := load.answered()
			time.Sleep(300 * time.Millisecond)
			if load.answered() == before {
				t.Errorf("nothing was answered under the policy %q", used)
			}
		}
		if lines := c.journal.find("scheduling policy changed"); len(lines) != changes {
			t.Errorf("%d changes are logged, of %d: %v", len(lines), changes, lines)
		}
		c.kill(leader)
		others := survivors(leader)
		c.leader(others...)
		c.untilPolicy(used, used, others...)
		c.startController(leader)
		time.Sleep(time.Second)
		load.end()
		load.expectNoFault()
		c.digestsEqual()

		for _, name := range controllerNames {
			c.kill(name)
		}
		for _, name := range controllerNames {
			c.startController(name)
		}
		c.leader(controllerNames...)
		c.untilPolicy(used, used, controllerNames...)
	})
}

func TestAPolicyThatThereIsNotIsRefusedByAllControllers(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.leader(controllerNames...)
		c.awaitNewestVersion()
		for _, name := range controllerNames {
			err := c.setPolicy(name, "first come")
			if e := reasonOf(err); status.Code(err) != codes.InvalidArgument || e.Reason != errs.Invalid ||
				!strings.Contains(e.Message, `"first come"; the policies are `+strings.Join(scheduler.Policies(), ", ")) {
				t.Errorf("%s: %v", name, err)
			}
		}
		c.untilPolicy("", scheduler.DefaultPolicy, controllerNames...)
	})
}

// The setting is in snapshots, and a restored one brings it back into force.
func TestARestoredSnapshotBringsItsPolicyBack(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		c.awaitNewestVersion()
		name := slices.Max(scheduler.Policies())
		if err := c.setPolicy(leader, name); err != nil {
			t.Fatal(err)
		}
		snapshot := c.save(leader, false)
		if err := c.setPolicy(leader, ""); err != nil {
			t.Fatal(err)
		}
		c.untilPolicy("", scheduler.DefaultPolicy, controllerNames...)
		if _, err := c.restore(leader, snapshot, false); err != nil {
			t.Fatal(err)
		}
		c.untilPolicy(name, name, controllerNames...)
	})
}

// While one controller is older than the setting, nobody may rely on it.
func TestAPolicyWaitsForTheLastReplicaToBeUpdated(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		old := "c3"
		for _, name := range controllerNames {
			c.kill(name)
			c.dirs[name] = t.TempDir()
		}
		c.startOldController(old, 4)
		c.startController("c1")
		c.startController("c2")
		c.serve(1)
		time.Sleep(15 * time.Second)
		if v := c.version("c1"); v != 4 {
			t.Fatalf("version %d", v)
		}
		err := grpcerr.FromStatus(c.setPolicy("c1", scheduler.DefaultPolicy))
		if !errors.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "needs cluster version 5, the cluster is at 4: update all controllers first") {
			t.Errorf("set in a cluster with an older controller: %v", err)
		}
		c.untilPolicy("", scheduler.DefaultPolicy, "c1", "c2")
		c.digestsEqual()
		c.stop(old)
		c.startController(old)
		c.awaitNewestVersion()
		if err := c.setPolicy("c1", scheduler.DefaultPolicy); err != nil {
			t.Errorf("set when all are updated: %v", err)
		}
		c.untilPolicy(scheduler.DefaultPolicy, scheduler.DefaultPolicy, controllerNames...)
		c.digestsEqual()
	})
}
