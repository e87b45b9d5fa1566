package client

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// chunkBytes is how much of a snapshot one message carries.
const chunkBytes = 1 << 20

// JoinReplica takes the running replica at a peer address into the cluster, and
// returns its id once it has a vote.
func (c *Client) JoinReplica(ctx context.Context, peerAddress string) (id string, err error) {
	answer, err := ask(ctx, c, controlpb.ControlClient.JoinReplica, &controlpb.JoinReplicaRequest{PeerAddress: peerAddress})
	return answer.GetReplicaId(), err
}

// RemoveReplica takes the replica of a name or id out of the cluster, and
// returns its id.
func (c *Client) RemoveReplica(ctx context.Context, replica string) (id string, err error) {
	answer, err := ask(ctx, c, controlpb.ControlClient.RemoveReplica, &controlpb.RemoveReplicaRequest{Replica: replica})
	return answer.GetReplicaId(), err
}

// TransferLeadership has the replica of a name or id lead, or any other than
// now, and returns the name of the new leader.
func (c *Client) TransferLeadership(ctx context.Context, replica string) (leader string, err error) {
	answer, err := ask(ctx, c, controlpb.ControlClient.TransferLeadership, &controlpb.TransferLeadershipRequest{Replica: replica})
	return answer.GetLeader(), err
}

// SaveSnapshot writes the whole replicated state to w.
func (c *Client) SaveSnapshot(ctx context.Context, request *controlpb.SaveSnapshotRequest, w io.Writer) error {
	var failed error
	err := c.control.call(ctx, 0, func(ctx context.Context, conn *rpc.Conn) error {
		stream, err := controlpb.NewControlClient(conn).SaveSnapshot(ctx, request)
		for written := false; err == nil; written = true {
			var chunk *controlpb.SnapshotChunk
			if chunk, err = stream.Recv(); err != nil {
				if written && !errors.Is(err, io.EOF) {
					failed = err // a second attempt would go behind the first
					return nil
				}
				break
			}
			if _, failed = w.Write(chunk.Data); failed != nil {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	return errors.Join(err, failed)
}

// RestoreSnapshot replaces the whole replicated state by that of a snapshot,
// and returns the epoch that begins. One of another cluster is refused unless
// that is gone for good, and replaced by this one.
func (c *Client) RestoreSnapshot(ctx context.Context, snapshot []byte, replaceCluster bool) (epoch uint64, err error) {
	first := &controlpb.SnapshotChunk{ReplaceCluster: replaceCluster, RequestId: rand.Text()}
	var began time.Time
	err = c.control.call(ctx, 0, func(ctx context.Context, conn *rpc.Conn) error {
		if began.IsZero() {
			began = time.Now()
		} else {
			first.RequestedAgoNs = int64(time.Since(began))
		}
		stream, err := controlpb.NewControlClient(conn).RestoreSnapshot(ctx)
		if err != nil {
			return err
		}
		chunk := first
		for from := 0; from == 0 || from < len(snapshot); from += chunkBytes {
			chunk.Data = snapshot[from:min(from+chunkBytes, len(snapshot))]
			if err := stream.Send(chunk); errors.Is(err, io.EOF) {
				break // the answer says why
			} else if err != nil {
				return err
			}
			chunk = &controlpb.SnapshotChunk{}
		}
		answer, err := stream.CloseAndRecv()
		epoch = answer.GetEpoch()
		return err
	})
	return epoch, err
}
