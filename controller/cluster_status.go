package controller

import (
	"context"
	"sync"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// statusPatience bounds what a status does at the leader. A status is most
// wanted when there is no leader, so it does not depend on one.
const statusPatience = time.Second

// ClusterStatus shows the replicas, and whether their states are equal: it has
// all of them compute a digest at one index of the log. Its answer is current
// unless it says that it is stale, as it does when there is no leader.
func (s *controlService) ClusterStatus(ctx context.Context, r *controlpb.ClusterStatusRequest) (*controlpb.ClusterStatusResponse, error) {
	answer := &controlpb.ClusterStatusResponse{Name: s.c.options.Name}
	stale := r.Stale || s.currentSoon(ctx) != nil
	if !stale {
		answer.DigestIndex = s.takeDigest(ctx)
	}
	answer.Replicas = s.replicas(ctx, answer.DigestIndex)
	answer.Term, answer.CommitIndex, answer.AppliedIndex = s.c.options.Consensus.Progress()
	answer.Freshness = s.c.readLocal(stale, func(state *fsm.State) { answer.Cluster = state.Cluster() })
	for _, replica := range answer.Replicas {
		// One that does not answer may be dead without raft having noticed.
		if replica.Leader && replica.Reachable {
			answer.Leader = replica.Name
		}
	}
	if !stale {
		answer.Policy = s.leaderLive(ctx).GetPolicy()
	}
	answer.LeaderlessNs = int64(s.c.route.leaderless())
	answer.Degraded = s.c.Degraded()
	for _, m := range s.c.options.Gossip.Members() {
		answer.Members = append(answer.Members, &controlpb.Member{Name: m.Name, Role: m.Role, Incarnation: m.Incarnation, Address: m.Gossip})
	}
	return answer, nil
}

// takeDigest has all replicas compute their digests, and returns at which
// index; 0 when there is no leader to do it.
func (s *controlService) takeDigest(ctx context.Context) uint64 {
	w, _ := s.c.route.current()
	if !w.known() {
		return 0
	}
	err := s.digests.run(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, statusPatience)
		defer cancel()
		result, err := w.propose(ctx, command(&logpb.Command{Body: &logpb.Command_TakeDigest{TakeDigest: &logpb.TakeDigest{}}}))
		if err == nil {
			s.digestIndex.Store(result.Index)
		}
		return err
	})
	if err != nil {
		return 0
	}
	return s.digestIndex.Load()
}

// currentSoon brings the state up to date if that is possible now.
func (s *controlService) currentSoon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	return s.c.current(ctx)
}

// replicas asks all replicas how they are.
func (s *controlService) replicas(ctx context.Context, digestIndex uint64) []*controlpb.Replica {
	leader, _ := s.c.options.Consensus.Leader()
	servers := s.c.options.Consensus.Servers()
	replicas := make([]*controlpb.Replica, len(servers))
	var wait sync.WaitGroup
	for i, server := range servers {
		replicas[i] = &controlpb.Replica{
			Name: nameOf(server.ID), Id: server.ID, RaftAddress: server.Address, Voter: server.Voter, Leader: server.ID == leader,
		}
		wait.Go(func() { s.ask(ctx, replicas[i], server, digestIndex) })
	}
	wait.Wait()
	return replicas
}

// ask fills in what a replica says of itself.
func (s *controlService) ask(ctx context.Context, r *controlpb.Replica, server Server, digestIndex uint64) {
	ctx, cancel := context.WithTimeout(ctx, digestWait+identifyTimeout)
	defer cancel()
	var err error
	if r.Id == s.c.options.Consensus.ID() {
		r.Reachable, r.SchemaVersion = true, s.c.options.Replica.Version()
	} else if err = s.identify(ctx, r, server); err != nil {
		r.Error = err.Error()
		return
	}
	if digestIndex == 0 {
		return
	}
	if r.Digest, err = s.c.digestOf(ctx, server, digestIndex); err != nil {
		r.Error = grpcerr.FromStatus(err).Error()
	}
}

func (s *controlService) identify(ctx context.Context, r *controlpb.Replica, server Server) error {
	client, err := s.c.peers.at(ctx, server)
	if err != nil {
		return err
	}
	who, err := client.Identify(ctx, &peerpb.IdentifyRequest{})
	if err != nil {
		s.c.peers.forget(server)
		return grpcerr.FromStatus(err)
	}
	r.Reachable, r.SchemaVersion = who.ReplicaId == r.Id, who.SchemaVersion
	return nil
}
