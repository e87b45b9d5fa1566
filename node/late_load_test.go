package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func TestLateLoadsAreServedOnceTheyAreAdmitted(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		at := follower(leader, controllerNames...)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := c.load(ctx, at, "late", resnet152); !errors.Is(grpcerr.FromStatus(err), errs.LateLoad) {
			t.Fatalf("a late load: %v", err)
		}
		if _, err := c.control(at).SetSettings(ctx, &controlpb.SetSettingsRequest{}); !errors.Is(grpcerr.FromStatus(err), errs.Invalid) {
			t.Errorf("a change of settings without settings: %v", err)
		}
		admit := &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}
		if _, err := c.control(at).SetSettings(ctx, &controlpb.SetSettingsRequest{Settings: admit}); err != nil {
			t.Fatal(err)
		}
		load := c.startTraffic(100, time.Second, controllerNames...)
		if _, err := c.load(ctx, at, "late", resnet152); err != nil {
			t.Fatalf("an admitted late load: %v", err)
		}
		request := image("late", 7)
		c.eventually(time.Minute, "the late model served", func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := c.inference(at).ModelInfer(ctx, request)
			return err
		})
		load.end()
		load.expectNoFault()
		if s, err := c.status(at); err != nil || s.Cluster.Phase != logpb.Phase_PHASE_SERVING {
			t.Errorf("status %v: %v", s, err)
		}
	})
}
