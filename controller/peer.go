package controller

import (
	"context"
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
		Formed: len(own.Servers()) > 0, LostState: own.LostState(),
		SchemaVersion: s.c.options.Replica.Version(), ClusterId: s.c.cluster().GetId(),
	}
	_, _, answer.AppliedIndex = own.Progress()
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

// Join brings a replica that wants to join one step further.
func (s *peerService) Join(ctx context.Context, r *peerpb.JoinRequest) (*peerpb.JoinResponse, error) {
	t, err := s.leading()
	if err != nil {
		return nil, err
	}
	if _, _, ok := cutLast(r.ReplicaId, "-"); !ok || r.RaftAddress == "" {
		return nil, grpcerr.Status(errs.New(errs.Invalid, "a replica that joins must name its id and its raft address"))
	}
	voter, err := t.admit(ctx, r)
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	return &peerpb.JoinResponse{Voter: voter}, nil
}

// Remove takes a replica out of the cluster.
func (s *peerService) Remove(ctx context.Context, r *peerpb.RemoveRequest) (*peerpb.RemoveResponse, error) {
	t, err := s.leading()
	if err != nil {
		return nil, err
	}
	return &peerpb.RemoveResponse{}, grpcerr.Status(t.remove(ctx, r.ReplicaId))
}

// Transfer hands the leadership over.
func (s *peerService) Transfer(ctx context.Context, r *peerpb.TransferRequest) (*peerpb.TransferResponse, error) {
	if _, err := s.leading(); err != nil {
		return nil, err
	}
	return &peerpb.TransferResponse{}, grpcerr.Status(s.c.options.Consensus.Transfer(ctx, r.ReplicaId))
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

// join asks the leader to take a replica in.
func (w way) join(ctx context.Context, r *peerpb.JoinRequest) (*peerpb.JoinResponse, error) {
	if w.term != nil {
		voter, err := w.term.admit(ctx, r)
		return &peerpb.JoinResponse{Voter: voter}, err
	}
	var answer *peerpb.JoinResponse
	err := w.ask(ctx, func(ctx context.Context) (err error) {
		answer, err = w.peer.Join(ctx, r)
		return err
	})
	return answer, err
}

// remove asks the leader to take a replica out.
func (w way) remove(ctx context.Context, id string) error {
	if w.term != nil {
		return w.term.remove(ctx, id)
	}
	return w.ask(ctx, func(ctx context.Context) error {
		_, err := w.peer.Remove(ctx, &peerpb.RemoveRequest{ReplicaId: id})
		return err
	})
}

// transfer asks the leader to hand its leadership over.
func (w way) transfer(ctx context.Context, to string) error {
	if w.term != nil {
		return w.term.c.options.Consensus.Transfer(ctx, to)
	}
	return w.ask(ctx, func(ctx context.Context) error {
		_, err := w.peer.Transfer(ctx, &peerpb.TransferRequest{ReplicaId: to})
		return err
	})
}
