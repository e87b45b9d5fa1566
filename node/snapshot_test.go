package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// save returns a snapshot of the cluster's state.
func (c *cluster) save(at string, stale bool) []byte {
	c.t.Helper()
	stream, err := c.control(at).SaveSnapshot(context.Background(), &controlpb.SaveSnapshotRequest{Stale: stale})
	if err != nil {
		c.t.Fatal(err)
	}
	var snapshot []byte
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return snapshot
		}
		if err != nil {
			c.t.Fatalf("save a snapshot at %s: %v", at, err)
		}
		snapshot = append(snapshot, chunk.Data...)
	}
}

// restore replaces the cluster's state, sending the snapshot in small chunks.
func (c *cluster) restore(at string, snapshot []byte, replace bool) (epoch uint64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := c.control(at).RestoreSnapshot(ctx)
	if err != nil {
		return 0, grpcerr.FromStatus(err)
	}
	for from := 0; from < len(snapshot); from += 100 {
		chunk := &controlpb.SnapshotChunk{Data: snapshot[from:min(from+100, len(snapshot))], ReplaceCluster: replace}
		if stream.Send(chunk) != nil {
			break // the answer says why
		}
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetEpoch(), grpcerr.FromStatus(err)
}

// modelIDs are the ids of the models that a controller shows, by name.
func (c *cluster) modelIDs(at string) map[string]uint64 {
	c.t.Helper()
	answer, err := c.list(at, false)
	if err != nil {
		c.t.Fatal(err)
	}
	ids := map[string]uint64{}
	for _, m := range answer.Models {
		ids[m.Model.Name] = m.Model.Id
	}
	return ids
}

func TestARestoredStateIsThatOfTheSnapshot(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		through := follower(leader, controllerNames...)
		if err := c.admitLate(through, true); err != nil {
			t.Fatal(err)
		}
		snapshot := c.save(through, false)
		summary, err := InspectSnapshot(bytes.NewReader(snapshot))
		if err != nil || summary.Models != 1 || summary.Workers != 2 || summary.Cluster.Epoch != 1 {
			t.Fatal(summary, err)
		}

		c.mustLoad(through, "later", resnet152)
		later := c.modelIDs(leader)["later"]
		load := c.startTraffic(100, 3*time.Second, controllerNames...)
		time.Sleep(time.Second)
		term := c.term(leader)
		epoch, err := c.restore(through, snapshot, false)
		if err != nil || epoch <= 1 {
			t.Fatal(epoch, err)
		}
		for _, name := range controllerNames {
			ids := c.modelIDs(name)
			if _, there := ids["later"]; there || ids["resnet18"] == 0 {
				t.Errorf("%s has %v", name, ids)
			}
		}
		if now := c.leader(controllerNames...); now != leader || c.term(leader) != term {
			t.Errorf("%s led in term %d, now %s leads in term %d", leader, term, now, c.term(now))
		}
		time.Sleep(2 * time.Second)
		load.end()
		load.expectNoFault()
		c.digestsEqual()

		// An id is not given twice: workers may still hold what was forgotten.
		c.mustLoad(through, "again", resnet152)
		if again := c.modelIDs(leader)["again"]; again <= later {
			t.Errorf("model id %d after %d", again, later)
		}
		c.eventually(30*time.Second, "the late model is served", func() error {
			return ask(context.Background(), c.inference("c1"), image("again", 1))
		})
	})
}

func TestABadSnapshotChangesNothing(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		snapshot := c.save(leader, false)
		damaged := bytes.Clone(snapshot)
		damaged[len(damaged)/2] ^= 4
		for what, bad := range map[string][]byte{"nothing": nil, "garbage": []byte("a snapshot?"), "half": snapshot[:len(snapshot)/2], "damaged": damaged} {
			if _, err := c.restore(leader, bad, false); !errors.Is(err, errs.Invalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
		s, err := c.status(leader)
		if err != nil || s.Cluster.Epoch != 1 {
			t.Error(s, err)
		}
		if err := ask(context.Background(), c.inference("c1"), image("resnet18", 1)); err != nil {
			t.Error(err)
		}
	})
}

// All controllers are lost with their disks; a new cluster takes the place of
// the old one, and its workers over.
func TestANewClusterReplacesOneThatWasLost(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		snapshot := c.save(c.serve(2), false)
		old, err := InspectSnapshot(bytes.NewReader(snapshot))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range controllerNames {
			c.kill(name)
		}
		time.Sleep(10 * time.Second)
		for _, name := range controllerNames {
			c.dirs[name] = t.TempDir()
			c.startController(name)
		}
		leader := c.leader(controllerNames...)
		c.awaitNewestVersion()
		if _, err := c.restore(leader, snapshot, false); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), old.Cluster.Id) {
			t.Errorf("without the operator's word: %v", err)
		}
		if _, err := c.restore(leader, snapshot, true); err != nil {
			t.Fatal(err)
		}
		c.untilPhase("c1", logpb.Phase_PHASE_SERVING, 10*time.Second)
		c.eventually(20*time.Second, "an answer", func() error {
			return ask(context.Background(), c.inference("c2"), image("resnet18", 1))
		})
		s, err := c.status("c3")
		if err != nil || s.Cluster.Id != old.Cluster.Id || s.Cluster.Epoch <= old.Cluster.Epoch {
			t.Errorf("%v, %v; the snapshot is of %v", s.GetCluster(), err, old.Cluster)
		}
		c.digestsEqual()
	})
}

// Two of three disks are lost. The third replica becomes the cluster, the
// others join it, and the workers go on.
func TestAClusterIsRecoveredFromOneReplica(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		left := follower(leader, controllerNames...)
		if err := c.admitLate(leader, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for _, name := range controllerNames {
			c.kill(name)
		}
		config := c.controllerConfig(left)
		held, err := Recover(config, false, Options{})
		if err != nil || held.LastIndex == 0 || strings.Count(held.Servers, "voter") != 3 {
			t.Fatal(held, err)
		}
		if again, err := Recover(config, true, Options{}); err != nil || again != held {
			t.Fatal(again, err)
		}
		c.startController(left)
		if now := c.leader(left); now != left {
			t.Fatal(now)
		}
		c.eventually(20*time.Second, "an answer of the one replica", func() error {
			return ask(context.Background(), c.inference(left), image("resnet18", 1))
		})
		for _, name := range survivors(left) {
			c.dirs[name] = t.TempDir()
			c.startController(name)
		}
		c.expectVoters(left, controllerNames...)
		c.digestsEqual()
		s, err := c.status("c1")
		if err != nil || s.Cluster.Epoch <= 1 || s.Cluster.Settings.LateLoads != logpb.Settings_LATE_LOADS_ADMIT {
			t.Errorf("%v, %v", s.GetCluster(), err)
		}
		c.mustLoad("c2", "another", resnet152)
	})
}
