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

// admitLate has late loads admitted, or not.
func (c *cluster) admitLate(at string, admit bool) error {
	s := &logpb.Settings{}
	if admit {
		s.LateLoads = logpb.Settings_LATE_LOADS_ADMIT
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := c.control(at).SetSettings(ctx, &controlpb.SetSettingsRequest{Settings: s})
	return grpcerr.FromStatus(err)
}

func (c *cluster) list(at string, stale bool) (*controlpb.ListModelsResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := c.control(at).ListModels(ctx, &controlpb.ListModelsRequest{Stale: stale})
	return r, grpcerr.FromStatus(err)
}

// A follower that is cut off from the others, but not from clients, knows an old
// state. It may tell that only when it is asked to, and has to say how old it is.
func TestAFollowerThatIsCutOffTellsNothingOldUnasked(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		others := survivors(leader)
		for _, name := range []string{leader, others[1], "w1"} {
			c.net.Cut(others[0], name)
		}
		began := time.Now()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := c.control(leader).UnloadModel(ctx, &controlpb.UnloadModelRequest{Name: "resnet18"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.list(others[0], false); !errors.Is(err, errs.NoLeader) {
			t.Errorf("a current read: %v", err)
		}
		if took := time.Since(began); took < 2*time.Second || took > 2600*time.Millisecond {
			t.Errorf("refused %v after the cut, not after the 2s of control.no_leader_timeout", took)
		}
		again := time.Now()
		if _, err := c.list(others[0], false); !errors.Is(err, errs.NoLeader) || errs.From(err).RetryAfter == 0 {
			t.Errorf("a second current read: %v", err)
		}
		if took := time.Since(again); took > 300*time.Millisecond {
			t.Errorf("refused only after %v", took)
		}
		old, err := c.list(others[0], true)
		if err != nil || len(old.Models) != 1 {
			t.Errorf("a stale read: %v, %v", old, err)
		}
		age, since := time.Duration(old.GetFreshness().GetAgeNs()), time.Since(began)
		if !old.GetFreshness().GetStale() || age < since-time.Second || age > since+time.Second {
			t.Errorf("it says %v, and was cut off %v ago", old.GetFreshness(), since)
		}
		for _, name := range []string{leader, others[1]} {
			if now, err := c.list(name, false); err != nil || len(now.Models) != 0 || now.Freshness.Stale {
				t.Errorf("through %s: %v, %v", name, now, err)
			}
		}
		c.net.HealAll()
		c.eventually(10*time.Second, "it answers again", func() error {
			now, err := c.list(others[0], false)
			if err == nil && len(now.Models) != 0 {
				t.Errorf("an old answer: %v", now)
			}
			return err
		})
	})
}

// What one replica has acknowledged, every other one has to show at once.
func TestReadsShowWhatWasAcknowledgedElsewhere(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.leader(controllerNames...)
		c.net.SetLatency(30 * time.Millisecond)
		admit := false
		for i := range 60 {
			admit = !admit
			if err := c.admitLate(controllerNames[i%3], admit); err != nil {
				t.Fatal(err)
			}
			at := controllerNames[(i/3)%3]
			s, err := c.status(at)
			if err != nil || s.Freshness.Stale {
				t.Fatal(s, err)
			}
			if got := s.Cluster.Settings.LateLoads == logpb.Settings_LATE_LOADS_ADMIT; got != admit {
				t.Fatalf("round %d: %s shows %v, after %v was acknowledged", i, at, got, admit)
			}
		}
	})
}

// A leader that is cut off goes on believing that it leads for a moment.
func TestALeaderThatIsCutOffTellsNothingOld(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		others := survivors(leader)
		for _, name := range others {
			c.net.Cut(leader, name)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				r, err := c.control(leader).ListModels(ctx, &controlpb.ListModelsRequest{})
				cancel()
				if err == nil {
					t.Errorf("an answer: %v", r)
					return
				}
			}
		}()
		<-done
		c.net.HealAll()
	})
}

// A request that is tried again for longer than its id is remembered must not
// take effect a second time.
func TestARetryThatComesTooLateIsRefused(t *testing.T) {
	inTunedBubble(t, 0, func(config *configs.Controller) { quick(config); calm(config) }, func(t *testing.T, c *cluster) {
		c.leader(controllerNames...)
		request := &controlpb.SetSettingsRequest{RequestId: "once", Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}}
		try := func(at string, ago time.Duration) error {
			request.RequestedAgoNs = int64(ago)
			_, err := c.control(at).SetSettings(context.Background(), request)
			return grpcerr.FromStatus(err)
		}
		if err := try("c1", 0); err != nil {
			t.Fatal(err)
		}
		if err := c.admitLate("c2", false); err != nil {
			t.Fatal(err)
		}
		if err := try("c3", time.Second); err != nil {
			t.Errorf("a retry that comes soon: %v", err)
		}
		time.Sleep(11 * time.Minute)
		if err := c.admitLate("c2", false); err != nil { // the table ages with the log
			t.Fatal(err)
		}
		if err := try("c3", 11*time.Minute); !errors.Is(err, errs.TooOld) || errs.From(err).Execution != errs.MaybeExecuted {
			t.Errorf("a retry that comes late: %v", err)
		}
		s, err := c.status("c1")
		if err != nil || s.Cluster.Settings.LateLoads != logpb.Settings_LATE_LOADS_REJECT {
			t.Errorf("%v, %v: the request took effect again", s.GetCluster(), err)
		}
	})
}
