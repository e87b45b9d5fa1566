package controller

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// identifyTimeout bounds the question who a replica is.
const identifyTimeout = 500 * time.Millisecond

// peers knows the other replicas: how to call them and who they say they are.
type peers struct {
	self string
	// addresses are the configured ones.
	addresses  []string
	gossip     Gossip
	dial       rpc.DialFunc
	maxMessage int

	mu    sync.Mutex
	conns map[string]*rpc.Conn
	// byRaft is the peer address of each raft address that was ever told.
	byRaft map[string]string
}

func newPeers(o Options) *peers {
	return &peers{
		self: o.PeerAddress, addresses: o.Peers, gossip: o.Gossip, dial: o.Dial, maxMessage: o.MaxMessage,
		conns: map[string]*rpc.Conn{}, byRaft: map[string]string{},
	}
}

// configured are the configured peer addresses but this replica's own.
func (p *peers) configured() []string {
	return slices.DeleteFunc(slices.Clone(p.addresses), func(a string) bool { return a == p.self })
}

// others are the peer addresses of all other replicas, configured or gossiped:
// one that was added, or that has moved, is in nobody else's configuration.
func (p *peers) others() []string {
	addresses := p.configured()
	for _, m := range p.gossip.Members() {
		if m.Peer != "" && m.Peer != p.self && !slices.Contains(addresses, m.Peer) {
			addresses = append(addresses, m.Peer)
		}
	}
	return addresses
}

// client calls the replica at a peer address, over a connection that is kept.
func (p *peers) client(address string) (peerpb.PeerClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn := p.conns[address]
	if conn == nil {
		var err error
		if conn, err = rpc.Connect(address, p.dial, p.maxMessage); err != nil {
			return nil, err
		}
		p.conns[address] = conn
	}
	return peerpb.NewPeerClient(conn), nil
}

// identify asks all other replicas who they are, at once. Those that don't
// answer are missing in the result.
func (p *peers) identify(ctx context.Context) map[string]*peerpb.IdentifyResponse {
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	var (
		wait    sync.WaitGroup
		mu      sync.Mutex
		answers = map[string]*peerpb.IdentifyResponse{}
	)
	for _, address := range p.others() {
		wait.Go(func() {
			answer, err := p.who(ctx, address)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[address] = answer
		})
	}
	wait.Wait()
	return answers
}

// who asks the replica at a peer address who it is.
func (p *peers) who(ctx context.Context, address string) (*peerpb.IdentifyResponse, error) {
	client, err := p.client(address)
	if err != nil {
		return nil, err
	}
	answer, err := client.Identify(ctx, &peerpb.IdentifyRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byRaft[answer.RaftAddress] = address
	return answer, nil
}

// alive are the ids of the replicas that answer, this one among them.
func (c *Controller) alive(ctx context.Context) map[string]bool {
	ids := map[string]bool{c.options.Consensus.ID(): true}
	for _, who := range c.peers.identify(ctx) {
		ids[who.ReplicaId] = true
	}
	return ids
}

// addressOf is the peer address of the replica with a raft address; it asks
// around when it does not know.
func (p *peers) addressOf(ctx context.Context, raftAddress string) (string, bool) {
	if address := p.known(raftAddress); address != "" {
		return address, true
	}
	p.identify(ctx)
	address := p.known(raftAddress)
	return address, address != ""
}

// at calls the replica at a raft address.
func (p *peers) at(ctx context.Context, server Server) (peerpb.PeerClient, error) {
	address, ok := p.addressOf(ctx, server.Address)
	if !ok {
		return nil, errs.New(errs.Unreachable, "no controller with the raft address %s answers", server.Address)
	}
	return p.client(address)
}

// forget has a replica be looked for anew: it did not answer where it was.
func (p *peers) forget(server Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byRaft, server.Address)
}

// known is the peer address of a raft address, or empty.
func (p *peers) known(raftAddress string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byRaft[raftAddress]
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}
