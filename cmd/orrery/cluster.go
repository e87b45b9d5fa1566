package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/scheduler"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Show how the cluster is, and change it", a.clusterStatusCommand(), a.clusterSetCommand(),
		a.clusterJoinCommand(), a.clusterRemoveCommand(), a.clusterTransferCommand(), a.snapshotCommand(), a.clusterRecoverCommand())
}

func (a *app) clusterSetCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "set KEY=VALUE …", Short: "Change settings of the whole cluster",
		Long: `Changes settings that the whole cluster has agreed on, on the running cluster:

  late_loads=reject   once the cluster serves it takes no further models (default)
  late_loads=admit    models are loaded and profiled beside the running schedule
  policy=NAME         requests are scheduled by this policy from now on; those that
                      wait are handed over. There are
                      ` + strings.Join(scheduler.Policies(), ", ") + `
  policy=default      each leader uses the policy of its configuration (default)

What is not named stays as it is.`,
		Example: "  orrery cluster set late_loads=admit\n  orrery cluster set policy=" + scheduler.DefaultPolicy,
		Args:    arguments(cobra.MinimumNArgs(1)),
	}
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		status, err := q.ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
		if err != nil {
			return err
		}
		settings, err := changed(status.Cluster.GetSettings(), args)
		if err != nil {
			return err
		}
		now, err := q.SetSettings(ctx, settings)
		if err != nil {
			return err
		}
		return q.show(now, func(w io.Writer) { settingsTable(w, now) })
	})
}

// changed is a copy of the settings with some changed.
func changed(settings *logpb.Settings, assignments []string) (*logpb.Settings, error) {
	out := &logpb.Settings{}
	proto.Merge(out, settings)
	for _, a := range assignments {
		policy, isPolicy := strings.CutPrefix(a, "policy=")
		switch {
		case a == "late_loads=admit":
			out.LateLoads = logpb.Settings_LATE_LOADS_ADMIT
		case a == "late_loads=reject":
			out.LateLoads = logpb.Settings_LATE_LOADS_REJECT
		case isPolicy && policy == "default":
			out.Policy = ""
		case isPolicy:
			out.Policy = policy // which there are is up to the controllers
		default:
			return nil, fmt.Errorf("%q is no setting and value; write late_loads=admit, late_loads=reject, policy=NAME or policy=default", a)
		}
	}
	return out, nil
}

func settingsTable(w io.Writer, s *logpb.Settings) {
	fmt.Fprintf(w, "late_loads  %s\n", word(s.GetLateLoads(), "LATE_LOADS_"))
	fmt.Fprintf(w, "policy      %s\n", cmp.Or(s.GetPolicy(), "default: the configured one"))
}

func (a *app) clusterStatusCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show the replicas, the leader and the startup's phase",
		Long: `Shows the replicas, the leader and the startup's phase, as one controller sees
them. All replicas compute a digest of what they know at the same point of the
log: equal digests are equal states. Fails when there is no leader, or when
digests differ.

With --stale the controller that is asked answers from what it knows itself: no
leader is asked, and no digest is computed.`,
		Args: arguments(cobra.NoArgs),
	}
	stale := staleFlag(c)
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, _ []string) error {
		status, err := q.ClusterStatus(ctx, &controlpb.ClusterStatusRequest{Stale: *stale})
		if err != nil {
			return err
		}
		if err := q.show(status, func(w io.Writer) { clusterTable(w, status) }); err != nil {
			return err
		}
		if differ(status) {
			return errors.New("replicas have come apart: those that differ from the majority will stop themselves within raft.digest_interval")
		}
		if status.Leader == "" && !*stale {
			return errors.New("there is no leader: a majority of the controllers has to run and to reach each other; their logs say what they wait for")
		}
		return nil
	})
}

func clusterTable(w io.Writer, s *controlpb.ClusterStatusResponse) {
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	if s.Cluster.GetId() == "" {
		fmt.Fprintln(w, "cluster  not formed yet")
	} else {
		fmt.Fprintf(w, "cluster  %s, epoch %d, version %d\n", s.Cluster.GetId(), s.Cluster.GetEpoch(), s.Cluster.GetVersion())
	}
	phase := word(s.Cluster.GetPhase(), "PHASE_")
	if s.Cluster.GetReopened() {
		phase += " (the startup was reopened, and serving goes on)"
	}
	fmt.Fprintf(w, "phase    %s\n", phase)
	fmt.Fprintf(w, "leader   %s, term %d\n", leader, s.Term)
	fmt.Fprintf(w, "policy   %s\n", policyText(s))
	fmt.Fprintf(w, "log      %d committed, %d applied at %s\n", s.CommitIndex, s.AppliedIndex, s.Name)
	fmt.Fprintf(w, "gossip   %s\n", plural(len(s.Members), "member"))
	if !s.Freshness.GetStale() || s.DigestIndex > 0 {
		fmt.Fprintf(w, "digests  %s\n", digests(s))
	}
	if s.LeaderlessNs > 0 {
		fmt.Fprintf(w, "MODE     %s\n", mode(s))
	}
	fmt.Fprintln(w)
	defer staleNote(w, s.Freshness)
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

// policyText says which scheduling policy is used, and who says so.
func policyText(s *controlpb.ClusterStatusResponse) string {
	set := s.Cluster.GetSettings().GetPolicy()
	switch {
	case s.Policy == "" && set == "":
		return "the configured one"
	case set == "":
		return s.Policy + ", as configured"
	case s.Policy == "" || s.Policy == set:
		return set + ", as set for the cluster"
	}
	return fmt.Sprintf("%s, although %s is set: not all controllers know that one, update them", s.Policy, set)
}

// mode is what the controller does while it has no leader.
func mode(s *controlpb.ClusterStatusResponse) string {
	since := time.Duration(s.LeaderlessNs).Round(time.Millisecond)
	if s.Degraded {
		return fmt.Sprintf("DEGRADED: %s has had no leader for %v; it serves inference over what it knew last, and nothing can be changed", s.Name, since)
	}
	return fmt.Sprintf("LEADERLESS: %s has had no leader for %v; nothing can be changed, and inference waits", s.Name, since)
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

// differ says whether two replicas gave different digests.
func differ(s *controlpb.ClusterStatusResponse) bool {
	digest := ""
	for _, r := range s.Replicas {
		if r.Digest != "" && digest != "" && r.Digest != digest {
			return true
		}
		digest = cmp.Or(r.Digest, digest)
	}
	return false
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
