package node

import (
	"context"
	"net"
	"strconv"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/controller"
	"github.com/orrery-project/orrery/membership"
)

// openGossip joins the gossip. Run must be called on what it returns.
func openGossip(o Options, m membership.Options, bind, advertise, keyFile string, seeds []configs.Address) (*membership.Cluster, error) {
	m.Bind, m.Advertise = bind, advertise
	m.Logger = o.Logger.Named("gossip")
	for _, seed := range seeds {
		m.Seeds = append(m.Seeds, string(seed))
	}
	if keyFile != "" {
		key, err := configs.ReadGossipKey(keyFile)
		if err != nil {
			return nil, err
		}
		m.Key = key
	}
	if o.Network != nil {
		_, port, err := net.SplitHostPort(bind)
		if err != nil {
			return nil, err
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			return nil, err
		}
		if m.Transport, err = o.Network.GossipTransport(number); err != nil {
			return nil, err
		}
		m.Resolver = o.Network
	}
	return membership.Open(m)
}

// gossip is a membership.Cluster as the controller sees it.
type gossip struct{ cluster *membership.Cluster }

// Changed implements controller.Gossip.
func (g gossip) Changed() <-chan struct{} { return g.cluster.Changed() }

// Meet implements controller.Gossip.
func (g gossip) Meet(ctx context.Context, address string) error { return g.cluster.Meet(ctx, address) }

// Members implements controller.Gossip.
func (g gossip) Members() []controller.Member {
	var out []controller.Member
	for _, m := range g.cluster.Members() {
		out = append(out, controller.Member{
			Name: m.Name, Incarnation: m.Incarnation, Role: string(m.Role), Session: m.Addresses.Session, Peer: m.Addresses.Peer, Gossip: m.GossipAddress,
		})
	}
	return out
}
