package node

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/orrery-project/orrery/controller"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/raftnode"
)

// consensus is a raftnode.Node as the controller sees it: the same calls, with
// the errors of internal/errs.
type consensus struct{ *raftnode.Node }

// reasoned gives raftnode's outcomes their reasons.
func reasoned(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raftnode.ErrUnknown):
		return errs.Maybe(errs.UnknownOutcome, "%v", err)
	case errors.Is(err, raftnode.ErrNotLeader), errors.Is(err, raftnode.ErrClosed):
		return errs.New(errs.NotLeader, "%v", err)
	}
	return err
}

func (c consensus) Apply(ctx context.Context, command []byte) (any, uint64, error) {
	result, index, err := c.Node.Apply(ctx, command)
	return result, index, reasoned(err)
}

func (c consensus) Barrier(ctx context.Context) error      { return reasoned(c.Node.Barrier(ctx)) }
func (c consensus) VerifyLeader(ctx context.Context) error { return reasoned(c.Node.VerifyLeader(ctx)) }

func (c consensus) AddNonvoter(ctx context.Context, id, address string) error {
	return reasoned(c.Node.AddNonvoter(ctx, id, address))
}

func (c consensus) Promote(ctx context.Context, id, address string) error {
	return reasoned(c.Node.Promote(ctx, id, address))
}

func (c consensus) Remove(ctx context.Context, id string) error {
	return reasoned(c.Node.Remove(ctx, id))
}

func (c consensus) Transfer(ctx context.Context, to string) error {
	return reasoned(c.Node.Transfer(ctx, to))
}

func (c consensus) LostState() bool { return c.MayBootstrap() != nil }

func (c consensus) Servers() []controller.Server {
	var out []controller.Server
	for _, s := range c.Node.Servers() {
		out = append(out, controller.Server{ID: s.ID, Address: s.Address, Voter: s.Voter})
	}
	return out
}

func (c consensus) Bootstrap(servers []controller.Server) error {
	in := make([]raftnode.Server, 0, len(servers))
	for _, s := range servers {
		in = append(in, raftnode.Server{ID: s.ID, Address: s.Address, Voter: s.Voter})
	}
	return c.Node.Bootstrap(in)
}

func (c consensus) Progress() (term, commit, applied uint64) {
	s := c.Node.Stats()
	return s.Term, s.CommitIndex, s.AppliedIndex
}

// stream is raft's transport on a Network.
type stream struct {
	net.Listener
	network Network
}

// openStream listens for raft.
func openStream(o Options, bind, advertise string) (raft.StreamLayer, error) {
	if o.Network == nil {
		return raftnode.ListenTCP(bind, advertise)
	}
	l, err := o.Network.Listen(bind)
	if err != nil {
		return nil, err
	}
	return stream{l, o.Network}, nil
}

// Dial implements raft.StreamLayer.
func (s stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.network.Dial(ctx, string(address))
}
