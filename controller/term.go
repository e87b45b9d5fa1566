package controller

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// term is this replica's time as the leader. All that only a leader may do
// hangs from its context, and has ended before the next term begins.
type term struct {
	c           *Controller
	leader      *sessionpb.Leader
	dispatcher  *dispatcher
	coordinator *coordinator
	// policy is the one that the dispatcher uses, or has been told to; policies are
	// those that there are.
	policy   atomic.Pointer[policyChoice]
	policies []string
	// verification is shared by reads: a client that asks for unknown models in
	// a loop is no load on the consensus.
	verification *shared
	// membership is filled by whoever looks at the members and changes them: of
	// two changes that are each harmless, both may not be.
	membership chan struct{}
}

// lead is called once for each term that this replica wins. A restored state
// begins a new epoch within the term: all that leads is then made anew.
func (c *Controller) lead(ctx context.Context, number uint64) {
	log := c.log.With("term", number)
	for ctx.Err() == nil {
		began := time.Now()
		cluster, err := c.takeOver(ctx)
		if err != nil {
			log.Warn("taking over goes on", "error", err)
			_ = pause(ctx, commitRetry)
			continue
		}
		log.Info("leading", "after", time.Since(began), "epoch", cluster.Epoch, "phase", PhaseName(cluster.Phase))
		c.reign(ctx, number, cluster, log)
	}
	log.Info("no longer leading", "cause", context.Cause(ctx))
}

// reign leads until ctx ends or another epoch begins.
func (c *Controller) reign(ctx context.Context, number uint64, cluster *logpb.Cluster, log hclog.Logger) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &term{
		c: c, policies: scheduler.Policies(), verification: newShared(), membership: make(chan struct{}, 1),
		leader: &sessionpb.Leader{ClusterId: cluster.Id, Epoch: cluster.Epoch, Term: number, Name: c.options.Name},
	}
	policy, choice := c.newPolicy(log)
	t.policy.Store(&choice)
	t.dispatcher = newDispatcher(c.options.Replica, c.options.MaxMessage, policy, c.instant, log.Named("dispatcher"))
	t.coordinator = newCoordinator(t, log.Named("coordinator"))
	t.dispatcher.watch(watch{t.coordinator}, c.workerMetrics)

	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() { t.dispatcher.run(ctx) })
	wait.Go(func() { t.coordinator.run(ctx) })
	wait.Go(func() { t.upkeep(ctx, log.Named("upkeep")) })
	c.term.Store(t)
	c.route.set(way{term: t})
	c.awaitEpoch(ctx, cluster.Epoch)
	c.route.clear(way{term: t})
	c.term.Store(nil)
	cancel()
}

// awaitEpoch returns when the state is of another epoch, or ctx ends.
func (c *Controller) awaitEpoch(ctx context.Context, epoch uint64) {
	for {
		changed := c.options.Replica.Changed(fsm.Cluster)
		now := epoch
		c.options.Replica.Read(func(s *fsm.State) { now = s.Cluster().GetEpoch() })
		if now != epoch {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// takeOver makes the state current, and names the cluster if nobody has yet.
func (c *Controller) takeOver(ctx context.Context) (*logpb.Cluster, error) {
	if err := c.options.Consensus.Barrier(ctx); err != nil {
		return nil, err
	}
	for {
		var cluster *logpb.Cluster
		c.options.Replica.Read(func(s *fsm.State) { cluster = s.Cluster() })
		if cluster.GetId() != "" {
			return cluster, nil
		}
		init := command(&logpb.Command{Body: &logpb.Command_InitCluster{InitCluster: &logpb.InitCluster{ClusterId: newRequestID()}}})
		if _, err := c.propose(ctx, init); err != nil {
			return nil, err
		}
	}
}

// instant is this process's clock for schedulers.
func (c *Controller) instant() scheduler.Instant { return scheduler.Instant(time.Since(c.epoch)) + 1 }

// resolve finds a model for a follower whose own state did not suffice.
func (t *term) resolve(ctx context.Context, name, version string) (*logpb.Model, error) {
	var model *logpb.Model
	t.c.options.Replica.Read(func(s *fsm.State) { model = s.Resolve(name, version) })
	// What was read is current if this replica still led afterwards.
	if err := t.verify(ctx); err != nil {
		return nil, err
	}
	if model == nil {
		return nil, unknownModel(name, version)
	}
	if model.Info == nil {
		return nil, refuse(t.c.options.Replica, model.Id, model.Name, t.coordinator.workers(),
			obstacle{errs.NotLoaded, "no worker has loaded it yet", "ask again in a moment"})
	}
	return model, nil
}
