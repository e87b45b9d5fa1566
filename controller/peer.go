package controller

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// digestWait bounds the wait for a replica to reach an index.
const digestWait = time.Second

// peerService is what other replicas call.
type peerService struct {
	peerpb.UnimplementedPeerServer
	c *Controller
}

// Identify says who this replica is.
func (s *peerService) Identify(ctx context.Context, _ *peerpb.IdentifyRequest) (*peerpb.IdentifyResponse, error) {
	own := s.c.options.Consensus
	answer := &peerpb.IdentifyResponse{
		Name: s.c.options.Name, ReplicaId: own.ID(), RaftAddress: own.Address(), PeerAddress: s.c.options.PeerAddress, GossipAddress: s.c.options.GossipAddress,
		Formed: len(own.Servers()) > 0,
	}
	if id, address := own.Leader(); id == own.ID() {
		answer.LeaderPeerAddress = s.c.options.PeerAddress
	} else if address != "" {
		answer.LeaderPeerAddress = s.c.peers.known(address)
	}
	return answer, nil
}

// leading returns the term, or the error that sends the caller elsewhere.
func (s *peerService) leading() (*term, error) {
	if t := s.c.term.Load(); t != nil {
		return t, nil
	}
	return nil, grpcerr.Status(errs.New(errs.NotLeader, "%s does not lead", s.c.options.Name))
}

// promotionLag is how many entries behind the commit index a replica may be
// when it gets a vote.
const promotionLag = 100

// Join takes a replica in, first as a non-voter; once it has caught up it gets
// a vote. A dead replica at its address, or of its name, is a disk that was
// lost, and is removed; a living one is a mistake of configuration.
func (s *peerService) Join(ctx context.Context, r *peerpb.JoinRequest) (*peerpb.JoinResponse, error) {
	if _, err := s.leading(); err != nil {
		return nil, err
	}
	name, _, ok := cutLast(r.ReplicaId, "-")
	if !ok || r.RaftAddress == "" {
		return nil, grpcerr.Status(errs.New(errs.Invalid, "a replica that joins must name its id and its raft address"))
	}
	own := s.c.options.Consensus
	for _, server := range own.Servers() {
		other, _, _ := cutLast(server.ID, "-")
		if server.ID == r.ReplicaId || server.Address != r.RaftAddress && other != name {
			continue
		}
		if err := s.replace(ctx, server, r); err != nil {
			return nil, grpcerr.Status(err)
		}
	}
	if err := own.AddNonvoter(ctx, r.ReplicaId, r.RaftAddress); err != nil {
		return nil, grpcerr.Status(err)
	}
	if _, commit, _ := own.Progress(); r.AppliedIndex+promotionLag < commit || r.AppliedIndex == 0 {
		return &peerpb.JoinResponse{}, nil
	}
	if err := own.Promote(ctx, r.ReplicaId, r.RaftAddress); err != nil {
		return nil, grpcerr.Status(err)
	}
	s.c.log.Info("a replica joined", "id", r.ReplicaId, "address", r.RaftAddress)
	return &peerpb.JoinResponse{Voter: true}, nil
}

// cutLast cuts s at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

// replace removes a member in whose place another replica joins, unless it
// lives.
func (s *peerService) replace(ctx context.Context, old Server, r *peerpb.JoinRequest) error {
	own := s.c.options.Consensus
	alive := old.ID == own.ID()
	for _, who := range s.c.peers.identify(ctx) {
		alive = alive || who.ReplicaId == old.ID
	}
	if alive {
		return errs.New(errs.Conflict, "replica %s at %s lives, so %s can't join at %s: give it a name and a raft address of its own",
			old.ID, old.Address, r.ReplicaId, r.RaftAddress)
	}
	s.c.log.Warn("a dead replica is replaced", "old", old.ID, "new", r.ReplicaId, "address", r.RaftAddress)
	return own.Remove(ctx, old.ID)
}

// Propose commits a command for a follower.
func (s *peerService) Propose(ctx context.Context, r *peerpb.ProposeRequest) (*peerpb.ProposeResponse, error) {
	if _, err := s.leading(); err != nil {
		return nil, err
	}
	cmd := &logpb.Command{}
	if err := proto.Unmarshal(r.Command, cmd); err != nil {
		return nil, grpcerr.Status(errs.New(errs.Invalid, "the command can't be read: %v", err))
	}
	if cmd.Body == nil {
		// In the log it would stop every replica.
		return nil, grpcerr.Status(errs.New(errs.Invalid, "this is no command that this controller knows; do all controllers run the same version?"))
	}
	result, err := s.c.propose(ctx, cmd)
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	return &peerpb.ProposeResponse{Result: result}, nil
}

// Resolve finds a model for a follower.
func (s *peerService) Resolve(ctx context.Context, r *peerpb.ResolveRequest) (*peerpb.ResolveResponse, error) {
	t, err := s.leading()
	if err != nil {
		return nil, err
	}
	model, err := t.resolve(ctx, r.Name, r.Version)
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	return &peerpb.ResolveResponse{Model: model}, nil
}

// Live tells a follower what is not replicated.
func (s *peerService) Live(ctx context.Context, _ *peerpb.LiveRequest) (*peerpb.LiveResponse, error) {
	t, err := s.leading()
	if err != nil {
		return nil, err
	}
	return t.coordinator.live(ctx)
}

// Digest is this replica's digest at an index, once it has got there.
func (s *peerService) Digest(ctx context.Context, r *peerpb.DigestRequest) (*peerpb.DigestResponse, error) {
	digest, err := s.c.digestAt(ctx, r.Index)
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	return &peerpb.DigestResponse{Name: s.c.options.Name, Index: r.Index, Digest: digest}, nil
}

func (c *Controller) digestAt(ctx context.Context, index uint64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, digestWait)
	defer cancel()
	if err := c.options.Replica.WaitIndex(ctx, index); err != nil {
		return "", errs.New(errs.DeadlinePassed, "%s has not reached index %d", c.options.Name, index)
	}
	digest, ok := c.options.Replica.DigestAt(index)
	if !ok {
		return "", errs.New(errs.Precondition, "%s has no digest of index %d: it restored a later snapshot", c.options.Name, index)
	}
	return digest, nil
}

// live asks the leader for what is not replicated.
func (w way) live(ctx context.Context) (*peerpb.LiveResponse, error) {
	if w.term != nil {
		return w.term.coordinator.live(ctx)
	}
	answer, err := w.peer.Live(ctx, &peerpb.LiveRequest{}, grpc.WaitForReady(true))
	return answer, grpcerr.FromStatus(err)
}
