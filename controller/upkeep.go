package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

const (
	// versionInterval is the pause between two looks at whether the cluster's
	// version can be raised.
	versionInterval = 5 * time.Second
	// versionSoon is when the first look is: a new cluster's version can be raised
	// as soon as its members know each other.
	versionSoon = 500 * time.Millisecond
)

// upkeep is what a leader does for the replicated state itself: it raises the
// cluster's version once all replicas can follow, and has them compare their
// states.
func (t *term) upkeep(ctx context.Context, log hclog.Logger) {
	compared, wait := time.Now(), versionSoon
	for pause(ctx, wait) == nil {
		wait = versionInterval
		t.raiseVersion(ctx, log)
		if time.Since(compared) >= t.c.tunables.Load().DigestInterval {
			t.compareDigests(ctx, log)
			compared = time.Now()
		}
	}
}

// raiseVersion lets newer kinds of commands be proposed once every member
// answers that it can apply them.
func (t *term) raiseVersion(ctx context.Context, log hclog.Logger) {
	replica := t.c.options.Replica
	can, has := replica.Version(), uint32(0)
	replica.Read(func(s *fsm.State) { has = s.Cluster().GetVersion() })
	if can <= has {
		return
	}
	versions := map[string]uint32{t.c.options.Consensus.ID(): can}
	for _, who := range t.c.peers.identify(ctx) {
		versions[who.ReplicaId] = who.SchemaVersion
	}
	for _, server := range t.c.options.Consensus.Servers() {
		can = min(can, versions[server.ID]) // 0 for one that does not answer
	}
	if can <= has {
		return
	}
	result, err := t.c.propose(ctx, command(&logpb.Command{Body: &logpb.Command_RaiseVersion{RaiseVersion: &logpb.RaiseVersion{To: can}}}))
	if err == nil {
		err = refused(result)
	}
	if err != nil {
		log.Warn("the cluster's version was not raised", "to", can, "error", err)
		return
	}
	log.Info("the cluster's version was raised", "from", has, "to", can)
}

// compareDigests has all replicas compute a digest of their state at one index,
// and commits the one that a majority came to: whoever came to another stops.
// Without a majority nobody can know who is right, and an operator is called.
func (t *term) compareDigests(ctx context.Context, log hclog.Logger) {
	result, err := t.c.propose(ctx, command(&logpb.Command{Body: &logpb.Command_TakeDigest{TakeDigest: &logpb.TakeDigest{}}}))
	if err != nil {
		return // another leader will do it
	}
	digests := t.voterDigests(ctx, result.Index)
	votes := map[string]int{}
	for _, digest := range digests {
		votes[digest]++
	}
	majority := t.voters()/2 + 1
	for digest, n := range votes {
		if n < majority {
			continue
		}
		if len(votes) > 1 {
			log.Error("replicas have come apart; those that differ from the majority stop", "index", result.Index, "digests", digests)
		}
		check := command(&logpb.Command{Body: &logpb.Command_CheckDigest{CheckDigest: &logpb.CheckDigest{Index: result.Index, Digest: digest}}})
		if t.c.cluster().GetVersion() >= check.Version {
			_, _ = t.c.propose(ctx, check)
		}
		return
	}
	if len(votes) > 1 {
		log.Error("replicas have come apart and no majority agrees: keep their data, and restore a snapshot from before",
			"index", result.Index, "digests", digests)
	}
}

func (t *term) voters() (n int) {
	for _, server := range t.c.options.Consensus.Servers() {
		if server.Voter {
			n++
		}
	}
	return n
}

// voterDigests are the digests at an index of the voters that answer, by
// replica id.
func (t *term) voterDigests(ctx context.Context, index uint64) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, digestWait+identifyTimeout)
	defer cancel()
	own := t.c.options.Consensus
	var (
		wait    sync.WaitGroup
		mu      sync.Mutex
		digests = map[string]string{}
	)
	for _, server := range own.Servers() {
		if !server.Voter {
			continue
		}
		wait.Go(func() {
			digest, err := t.c.digestOf(ctx, server, index)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			digests[server.ID] = digest
		})
	}
	wait.Wait()
	return digests
}

// digestOf asks a replica for its digest at an index.
func (c *Controller) digestOf(ctx context.Context, server Server, index uint64) (string, error) {
	if server.ID == c.options.Consensus.ID() {
		return c.digestAt(ctx, index)
	}
	client, err := c.peers.at(ctx, server)
	if err != nil {
		return "", err
	}
	answer, err := client.Digest(ctx, &peerpb.DigestRequest{Index: index})
	if err != nil && errors.Is(grpcerr.FromStatus(err), errs.Unreachable) {
		c.peers.forget(server)
	}
	return answer.GetDigest(), err
}
