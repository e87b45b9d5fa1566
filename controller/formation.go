package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// formationInterval is the pause between two looks at the configured peers.
const formationInterval = 300 * time.Millisecond

// joinTimeout bounds one step of a join, which waits for the cluster to commit.
const joinTimeout = 10 * time.Second

// strandedAfter is the time without a leader after which a member asks the
// others for one. An election is shorter: a member that hears of no leader for
// so long, while others do, has moved, or was removed.
const strandedAfter = 3 * time.Second

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

// run looks after this replica's membership until ctx ends.
func (f *formation) run(ctx context.Context) {
	log := f.c.log.Named("formation")
	const settled = "member"
	said := ""
	for {
		doing := settled
		if !f.member() || f.c.route.leaderless() > strandedAfter {
			doing = f.step(ctx)
		}
		if doing != said {
			if doing == settled {
				log.Info("this replica is a voter", "id", f.c.options.Consensus.ID())
			} else {
				log.Info("this replica is no voter, or hears of no leader", "state", doing)
			}
			said = doing
		}
		if pause(ctx, formationInterval) != nil {
			return
		}
	}
}

// member says whether this replica is a voter of a formed cluster, at the
// address that it has now.
func (f *formation) member() bool {
	own := f.c.options.Consensus
	return slices.Contains(own.Servers(), Server{ID: own.ID(), Address: own.Address(), Voter: true})
}

// step does what can be done now, and says what is being waited for.
func (f *formation) step(ctx context.Context) string {
	if !f.c.options.Bootstrap && len(f.c.options.Consensus.Servers()) == 0 {
		return "waiting for `orrery cluster join " + f.c.options.PeerAddress + "` (cluster.bootstrap is false)"
	}
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
			if doing := f.join(ctx, a); doing != "" {
				return doing
			}
		}
	}
	own := f.c.options.Consensus
	switch {
	case formed || len(own.Servers()) > 0:
		return "waiting for the cluster's leader"
	case len(f.missing(answers)) > 0:
		return "waiting for all configured replicas: " + strings.Join(f.missing(answers), ", ")
	case own.LostState():
		return lostState(f.c.options.Name)
	}
	servers := []Server{{ID: own.ID(), Address: own.Address(), Voter: true}}
	for _, address := range f.c.peers.configured() {
		a := answers[address]
		if a.LostState {
			return lostState(a.Name)
		}
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

// lostState is what no replica founds a cluster over.
func lostState(name string) string {
	return fmt.Sprintf("%s has lost its state, and no cluster is there to join: founding one would forget all that was agreed on; "+
		"recover another replica (`orrery cluster recover`), or empty data_dir, start anew and restore a snapshot", name)
}

// join asks the leader that a formed peer knows to take this replica in, and
// says how that goes; nothing when there is no leader.
func (f *formation) join(ctx context.Context, formed *peerpb.IdentifyResponse) string {
	if formed.LeaderPeerAddress == "" || formed.LeaderPeerAddress == f.c.options.PeerAddress {
		return ""
	}
	client, err := f.c.peers.client(formed.LeaderPeerAddress)
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	own := f.c.options.Consensus
	_, _, applied := own.Progress()
	_, err = client.Join(ctx, &peerpb.JoinRequest{
		ReplicaId: own.ID(), RaftAddress: own.Address(), AppliedIndex: applied, Formed: len(own.Servers()) > 0,
		SchemaVersion: f.c.options.Replica.Version(),
	})
	if err != nil {
		return "the leader did not take this replica in: " + grpcerr.FromStatus(err).Error()
	}
	return "joining the cluster"
}

// missing are the configured peers that did not answer.
func (f *formation) missing(answers map[string]*peerpb.IdentifyResponse) []string {
	return slices.DeleteFunc(f.c.peers.configured(), func(a string) bool { return answers[a] != nil })
}
