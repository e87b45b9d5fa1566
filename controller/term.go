package controller

import (
	"context"
	"sync"
	"time"

	"github.com/orrery-project/orrery/fsm"
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
	// verification is shared by reads: a client that asks for unknown models in
	// a loop is no load on the consensus.
	verification *shared
}

// lead is called once for each term that this replica wins.
func (c *Controller) lead(ctx context.Context, number uint64) {
	log := c.log.With("term", number)
	began := time.Now()
	cluster, err := c.takeOver(ctx)
	for err != nil && pause(ctx, commitRetry) == nil {
		log.Warn("taking over goes on", "error", err)
		cluster, err = c.takeOver(ctx)
	}
	if err != nil {
		log.Warn("leadership ended before it began", "error", err)
		return
	}
	t := &term{c: c, verification: newShared(), leader: &sessionpb.Leader{ClusterId: cluster.Id, Epoch: cluster.Epoch, Term: number, Name: c.options.Name}}
	tunables := c.tunables.Load()
	policy := scheduler.NewEDF(scheduler.EDFOptions{ScheduleAhead: tunables.ScheduleAhead})
	t.dispatcher = newDispatcher(c.options.Replica, c.options.MaxMessage, policy, c.instant, log.Named("dispatcher"))
	t.coordinator = newCoordinator(t, log.Named("coordinator"))

	var wait sync.WaitGroup
	wait.Go(func() { t.dispatcher.run(ctx) })
	wait.Go(func() { t.coordinator.run(ctx) })
	c.term.Store(t)
	c.route.set(way{term: t})
	log.Info("leading", "after", time.Since(began), "phase", PhaseName(cluster.Phase))
	<-ctx.Done()
	c.route.clear(way{term: t})
	c.term.Store(nil)
	wait.Wait()
	log.Info("no longer leading", "cause", context.Cause(ctx))
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
		init := command("", &logpb.Command{Body: &logpb.Command_InitCluster{InitCluster: &logpb.InitCluster{ClusterId: newRequestID()}}})
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
	if err := t.verification.run(ctx, t.c.options.Consensus.VerifyLeader); err != nil {
		return nil, err
	}
	if model == nil {
		return nil, unknownModel(name, version)
	}
	return model, nil
}
