package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

func TestTwoControllersOfOneNameDoNotFormACluster(t *testing.T) {
	sameName := func(config *configs.Controller) {
		if strings.HasPrefix(string(config.Listen.Peer), "c2:") {
			config.Name = "c1"
		}
	}
	inTunedBubble(t, 0, sameName, func(t *testing.T, c *cluster) {
		time.Sleep(20 * time.Second)
		for _, name := range controllerNames {
			if s, err := c.status(name); err != nil || s.Leader != "" || len(s.Replicas) != 0 {
				t.Errorf("%s: %v, %v", name, s, err)
			}
		}
	})
}

func TestNobodySaysThatThereIsNoModelWithoutAskingTheLeader(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		name := follower(leader, controllerNames...)
		ask := func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := c.inference(name).ModelMetadata(ctx, &inferencepb.ModelMetadataRequest{Name: "nothing"})
			return grpcerr.FromStatus(err)
		}
		if err := ask(); !errors.Is(err, errs.UnknownModel) {
			t.Errorf("with a leader: %v", err)
		}
		for _, other := range controllerNames {
			if other != name {
				c.net.Cut(name, other)
			}
		}
		time.Sleep(time.Second)
		if err := ask(); !errors.Is(err, errs.NoLeader) {
			t.Errorf("without a leader: %v", err)
		}
	})
}
