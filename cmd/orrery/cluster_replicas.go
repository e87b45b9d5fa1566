package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/proto/controlpb"
)

// joinPatience covers the way of a large state to a new replica.
const joinPatience = 5 * time.Minute

func (a *app) clusterJoinCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "join PEER_ADDRESS", Short: "Take a running replica into the cluster",
		Long: `Takes the replica whose peer listener is at PEER_ADDRESS into the cluster: first
without a vote, and with one once it has caught up. Start it before, with a name
and a data_dir of its own.

A replica whose cluster.controllers names a replica of the cluster joins by
itself, and so does one whose disk was lost and that comes back under its old
name; this command is for one that waits, because of cluster.bootstrap: false.`,
		Example: "  orrery cluster join 10.0.0.4:8011",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	return a.asks(c, joinPatience, func(ctx context.Context, q *query, args []string) error {
		id, err := q.JoinReplica(ctx, args[0])
		if err != nil {
			return err
		}
		return q.show(&controlpb.JoinReplicaResponse{ReplicaId: id}, func(w io.Writer) { fmt.Fprintf(w, "%s is a voter\n", id) })
	})
}

func (a *app) clusterRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "remove REPLICA", Short: "Take a replica out of the cluster, for good",
		Long: `Takes the replica of a name or id out of the cluster: it gets no more of the log,
and has no vote. A leader hands its leadership over first. Refused when the
other replicas that answer would be no majority.

Removal is for good: what the replica holds may come apart from the cluster from
then on. Stop its process; to use the machine again, empty its data_dir, and it
joins as a new replica.`,
		Example: "  orrery cluster remove c3",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		id, err := q.RemoveReplica(ctx, args[0])
		if err != nil {
			return err
		}
		return q.show(&controlpb.RemoveReplicaResponse{ReplicaId: id}, func(w io.Writer) { fmt.Fprintf(w, "%s is removed; stop its process\n", id) })
	})
}

func (a *app) clusterTransferCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "transfer [REPLICA]", Short: "Hand the leadership to another replica",
		Long: `Hands the leadership to the replica of a name or id, or to whichever is best
prepared. Requests in hand wait for the new leader, usually for less than 50 ms.
A controller that is stopped in order does this by itself.`,
		Example: "  orrery cluster transfer c2",
		Args:    arguments(cobra.MaximumNArgs(1)),
	}
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		to := ""
		if len(args) > 0 {
			to = args[0]
		}
		leader, err := q.TransferLeadership(ctx, to)
		if err != nil {
			return err
		}
		return q.show(&controlpb.TransferLeadershipResponse{Leader: leader}, func(w io.Writer) { fmt.Fprintf(w, "%s leads\n", leader) })
	})
}
