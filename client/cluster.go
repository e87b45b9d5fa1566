package client

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
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
// that is gone for good, and replaced by this one. It asks one controller,
// once: an error that is errs.UnknownOutcome leaves open whether it was done.
func (c *Client) RestoreSnapshot(ctx context.Context, snapshot io.Reader, replaceCluster bool) (epoch uint64, err error) {
	began := false
	err = c.control.call(ctx, 0, func(ctx context.Context, conn *rpc.Conn) error {
		stream, err := controlpb.NewControlClient(conn).RestoreSnapshot(ctx)
		if err != nil {
			return err
		}
		if began {
			return errs.Maybe(errs.UnknownOutcome, "the controller was lost while it restored; `orrery cluster status` shows a higher epoch if it did")
		}
		began = true
		if err := send(stream, snapshot, replaceCluster); err != nil {
			return err
		}
		answer, err := stream.CloseAndRecv()
		epoch = answer.GetEpoch()
		return err
	})
	return epoch, grpcerr.FromStatus(err)
}

// send sends a snapshot in chunks. A stream that the other side has ended is no
// error: its answer says more.
func send(stream grpc.ClientStreamingClient[controlpb.SnapshotChunk, controlpb.RestoreSnapshotResponse], snapshot io.Reader, replaceCluster bool) error {
	buffer := make([]byte, chunkBytes)
	for {
		n, err := io.ReadFull(snapshot, buffer)
		if n > 0 {
			if sent := stream.Send(&controlpb.SnapshotChunk{Data: buffer[:n], ReplaceCluster: replaceCluster}); errors.Is(sent, io.EOF) {
				return nil
			} else if sent != nil {
				return sent
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return errs.New(errs.Invalid, "the snapshot can't be read: %v", err)
		}
	}
}
