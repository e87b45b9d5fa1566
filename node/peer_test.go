package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// peer calls what only other replicas call.
func (c *cluster) peer(name string) peerpb.PeerClient {
	return peerpb.NewPeerClient(c.conn(name + ":8011"))
}

// join asks the leader to take a replica in.
func (c *cluster) join(leader string, r *peerpb.JoinRequest) (voter bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r.SchemaVersion = fsm.Version
	answer, err := c.peer(leader).Join(ctx, r)
	return answer.GetVoter(), grpcerr.FromStatus(err)
}

func TestNobodyJoinsInThePlaceOfALivingReplica(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		other := follower(leader, controllerNames...)
		before := c.controllers[leader].raft.Servers()
		for what, r := range map[string]*peerpb.JoinRequest{
			"a follower's address": {ReplicaId: "new-1", RaftAddress: other + ":8012"},
			"a follower's name":    {ReplicaId: other + "-1", RaftAddress: "elsewhere:8012"},
			"the leader's address": {ReplicaId: "new-1", RaftAddress: leader + ":8012"},
			"the leader's name":    {ReplicaId: leader + "-1", RaftAddress: "elsewhere:8012"},
		} {
			if _, err := c.join(leader, r); !errors.Is(err, errs.Conflict) {
				t.Errorf("%s: %v", what, err)
			}
		}
		time.Sleep(3 * time.Second)
		if after := c.controllers[leader].raft.Servers(); !slices.Equal(after, before) {
			t.Errorf("the members were %v and are %v", before, after)
		}
		if now := c.leader(controllerNames...); now != leader {
			t.Errorf("%s led, now %s leads", leader, now)
		}
	})
}

func TestAReplicaHasNoVoteBeforeItHasCaughtUp(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		var wait sync.WaitGroup
		for range 150 {
			wait.Go(func() {
				if _, err := c.control(leader).SetSettings(t.Context(), &controlpb.SetSettingsRequest{Settings: &logpb.Settings{}}); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		s, err := c.status(leader)
		if err != nil || s.AppliedIndex < 150 {
			t.Fatal(s, err)
		}
		for _, step := range []struct {
			applied uint64
			voter   bool
		}{{0, false}, {20, false}, {s.AppliedIndex, true}} {
			voter, err := c.join(leader, &peerpb.JoinRequest{ReplicaId: "c4-1", RaftAddress: "c4:8012", AppliedIndex: step.applied})
			if err != nil || voter != step.voter {
				t.Errorf("at index %d of %d: voter %v, %v", step.applied, s.AppliedIndex, voter, err)
			}
			for _, server := range c.controllers[leader].raft.Servers() {
				if strings.HasPrefix(server.ID, "c4-") && server.Voter != step.voter {
					t.Errorf("at index %d of %d it has a vote: %v", step.applied, s.AppliedIndex, server.Voter)
				}
			}
		}
	})
}

func TestACommandThatNobodyKnowsStopsNobody(t *testing.T) {
	inTunedBubble(t, 0, func(config *configs.Controller) { quick(config); calm(config) }, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		later := protowire.AppendTag(nil, 500, protowire.BytesType) // the body of a later version
		later = protowire.AppendBytes(later, []byte("what is it?"))
		for what, command := range map[string][]byte{"empty": nil, "unknown": later, "garbage": {0xff}} {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			_, err := c.peer(leader).Propose(ctx, &peerpb.ProposeRequest{Command: command})
			cancel()
			if err := grpcerr.FromStatus(err); !errors.Is(err, errs.Invalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
		time.Sleep(5 * time.Second)
		c.digestsEqual()
	})
}
