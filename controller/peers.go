package controller

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// identifyTimeout bounds the question who a replica is.
const identifyTimeout = 500 * time.Millisecond

// peers knows the other replicas: how to call them and who they say they are.
type peers struct {
	self       string
	addresses  []string
	dial       rpc.DialFunc
	maxMessage int

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
	// byRaft is the peer address of each raft address that was ever told.
	byRaft map[string]string
}

func newPeers(self string, addresses []string, dial rpc.DialFunc, maxMessage int) *peers {
	return &peers{
		self: self, addresses: addresses, dial: dial, maxMessage: maxMessage,
		conns: map[string]*grpc.ClientConn{}, byRaft: map[string]string{},
	}
}

// others are the configured peer addresses but this replica's own.
func (p *peers) others() []string {
	return slices.DeleteFunc(slices.Clone(p.addresses), func(a string) bool { return a == p.self })
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
			client, err := p.client(address)
			if err != nil {
				return
			}
			answer, err := client.Identify(ctx, &peerpb.IdentifyRequest{}, grpc.WaitForReady(true))
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[address] = answer
		})
	}
	wait.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for address, answer := range answers {
		p.byRaft[answer.RaftAddress] = address
	}
	return answers
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
