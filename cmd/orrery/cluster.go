package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/proto/controlpb"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Show how the cluster is", a.clusterStatusCommand())
}

func (a *app) clusterStatusCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show the replicas, the leader and the startup's phase",
		Long: `Shows the replicas, the leader and the startup's phase, as one controller sees
them. All replicas compute a digest of what they know at the same point of the
log: equal digests are equal states.`,
		Args: arguments(cobra.NoArgs),
	}
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, _ []string) error {
		status, err := q.ClusterStatus(ctx)
		if err != nil {
			return err
		}
		return q.show(status, func(w io.Writer) { clusterTable(w, status) })
	})
}

func clusterTable(w io.Writer, s *controlpb.ClusterStatusResponse) {
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(w, "cluster  %s, epoch %d\n", s.Cluster.GetId(), s.Cluster.GetEpoch())
	fmt.Fprintf(w, "phase    %s\n", word(s.Cluster.GetPhase(), "PHASE_"))
	fmt.Fprintf(w, "leader   %s, term %d\n", leader, s.Term)
	fmt.Fprintf(w, "log      %d committed, %d applied at %s\n", s.CommitIndex, s.AppliedIndex, s.Name)
	fmt.Fprintf(w, "gossip   %s\n", plural(len(s.Members), "member"))
	fmt.Fprintf(w, "digests  %s\n\n", digests(s))
	t := newTable(w, "REPLICA", "ROLE", "REACHABLE", "RAFT ADDRESS", "DIGEST", "ID", "PROBLEM")
	defer t.flush()
	for _, r := range s.Replicas {
		role := "follower"
		switch {
		case r.Leader:
			role = "leader"
		case !r.Voter:
			role = "learner"
		}
		t.row(r.Name, role, yesNo(r.Reachable), r.RaftAddress, r.Digest[:min(12, len(r.Digest))], r.Id, r.Error)
	}
}

// digests compares them.
func digests(s *controlpb.ClusterStatusResponse) string {
	known := map[string]bool{}
	missing := 0
	for _, r := range s.Replicas {
		if r.Digest == "" {
			missing++
			continue
		}
		known[r.Digest] = true
	}
	switch {
	case len(known) > 1:
		return fmt.Sprintf("DIFFER at index %d: replicas have come apart, keep their data and logs for an analysis", s.DigestIndex)
	case len(known) == 0:
		return "none could be taken"
	case missing > 0:
		return fmt.Sprintf("equal at index %d, but %s gave none", s.DigestIndex, plural(missing, "replica"))
	}
	return fmt.Sprintf("all equal at index %d", s.DigestIndex)
}

// digestsEqual says whether all replicas gave the same digest.
func digestsEqual(s *controlpb.ClusterStatusResponse) bool {
	for _, r := range s.Replicas {
		if r.Digest == "" || r.Digest != s.Replicas[0].Digest {
			return false
		}
	}
	return len(s.Replicas) > 0
}
