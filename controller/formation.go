package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/proto/peerpb"
)

// formationInterval is the pause between two looks at the configured peers.
const formationInterval = 300 * time.Millisecond

// formation brings an empty replica into its cluster. An empty replica asks
// its configured peers who they are. If one belongs to a formed cluster, it
// asks to join that, as a non-voter that is promoted once it has caught up, and
// never bootstraps. Only when all configured peers are there and empty does the
// one with the lowest id found a cluster of them all. So a wiped disk comes
// back as a new replica, and can never found a second cluster beside the first.
type formation struct {
	c *Controller
}

func newFormation(c *Controller) *formation { return &formation{c: c} }

// run returns when this replica is a voter, or ctx ends.
func (f *formation) run(ctx context.Context) {
	log := f.c.log.Named("formation")
	said := ""
	for !f.member() {
		if doing := f.step(ctx); doing != said {
			said = doing
			log.Info("not a voter yet", "state", doing)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(formationInterval):
		}
	}
	log.Info("this replica is a voter", "id", f.c.options.Consensus.ID())
}

// member says whether this replica is a voter of a formed cluster.
func (f *formation) member() bool {
	return slices.ContainsFunc(f.c.options.Consensus.Servers(), func(s Server) bool {
		return s.ID == f.c.options.Consensus.ID() && s.Voter
	})
}

// step does what can be done now, and says what is being waited for.
func (f *formation) step(ctx context.Context) string {
	answers := f.c.peers.identify(ctx)
	for address, a := range answers {
		if a.Name == f.c.options.Name {
			return fmt.Sprintf("the name %s is also that of the controller at %s: give one of them another", a.Name, address)
		}
	}
	formed := false
	for _, a := range answers {
		if a.Formed {
			formed = true
			if f.join(ctx, a) {
				return "joining the cluster"
			}
		}
	}
	own := f.c.options.Consensus
	switch {
	case formed || len(own.Servers()) > 0:
		return "waiting for the cluster's leader"
	case len(answers) < len(f.c.peers.others()):
		return "waiting for all configured replicas: " + strings.Join(f.missing(answers), ", ")
	}
	servers := []Server{{ID: own.ID(), Address: own.Address(), Voter: true}}
	for _, a := range answers {
		servers = append(servers, Server{ID: a.ReplicaId, Address: a.RaftAddress, Voter: true})
	}
	slices.SortFunc(servers, func(a, b Server) int { return cmp.Compare(a.ID, b.ID) })
	if servers[0].ID != own.ID() {
		return "waiting for " + servers[0].ID + " to found the cluster"
	}
	if err := own.Bootstrap(servers); err != nil {
		return "founding the cluster failed: " + err.Error()
	}
	return "founding the cluster"
}

// join asks the leader that a formed peer knows to take this replica in.
func (f *formation) join(ctx context.Context, formed *peerpb.IdentifyResponse) bool {
	if formed.LeaderPeerAddress == "" || formed.LeaderPeerAddress == f.c.options.PeerAddress {
		return false
	}
	client, err := f.c.peers.client(formed.LeaderPeerAddress)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, _, applied := f.c.options.Consensus.Progress()
	_, err = client.Join(ctx, &peerpb.JoinRequest{
		ReplicaId: f.c.options.Consensus.ID(), RaftAddress: f.c.options.Consensus.Address(), AppliedIndex: applied,
	})
	if err != nil {
		f.c.log.Named("formation").Warn("the leader did not take this replica in", "leader", formed.LeaderPeerAddress, "error", err)
	}
	return err == nil
}

// missing are the configured peers that did not answer.
func (f *formation) missing(answers map[string]*peerpb.IdentifyResponse) []string {
	return slices.DeleteFunc(f.c.peers.others(), func(a string) bool { return answers[a] != nil })
}
