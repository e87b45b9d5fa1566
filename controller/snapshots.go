package controller

import (
	"bytes"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// chunkBytes is how much of a snapshot one message carries.
const chunkBytes = 1 << 20

// SaveSnapshot sends the whole replicated state.
func (s *controlService) SaveSnapshot(r *controlpb.SaveSnapshotRequest, stream grpc.ServerStreamingServer[controlpb.SnapshotChunk]) error {
	if !r.Stale {
		if err := s.c.current(stream.Context()); err != nil {
			return grpcerr.Status(err)
		}
	}
	var snapshot bytes.Buffer
	if _, err := s.c.options.Replica.WriteSnapshot(&snapshot); err != nil {
		return grpcerr.Status(err)
	}
	for snapshot.Len() > 0 {
		if err := stream.Send(&controlpb.SnapshotChunk{Data: snapshot.Next(chunkBytes)}); err != nil {
			return err
		}
	}
	return nil
}

// RestoreSnapshot replaces the whole replicated state by that of a snapshot.
// That is a command like any other: all replicas do it at one index of the log,
// and a retry has no second effect.
func (s *controlService) RestoreSnapshot(stream grpc.ClientStreamingServer[controlpb.SnapshotChunk, controlpb.RestoreSnapshotResponse]) error {
	if !s.c.restoring.TryLock() {
		return grpcerr.Status(errs.New(errs.Overloaded, "%s is busy with another restore", s.c.options.Name).After(time.Second))
	}
	defer s.c.restoring.Unlock()
	cmd, err := s.receive(stream)
	if err != nil {
		return grpcerr.Status(err)
	}
	// Replicas refuse a bad one too, but can't say as exactly what is wrong.
	if _, err := fsm.Restore(bytes.NewReader(cmd.GetRestoreState().Snapshot)); err != nil {
		return grpcerr.Status(errs.New(errs.Invalid, "this can't be restored: %v", err))
	}
	result, err := s.c.commit(stream.Context(), cmd)
	if err != nil {
		return grpcerr.Status(err)
	}
	_ = s.c.options.Replica.WaitIndex(stream.Context(), result.Index)
	return stream.SendAndClose(&controlpb.RestoreSnapshotResponse{Epoch: s.c.cluster().GetEpoch()})
}

// receive gathers a snapshot, which has to fit into one message between
// controllers.
func (s *controlService) receive(stream grpc.ClientStreamingServer[controlpb.SnapshotChunk, controlpb.RestoreSnapshotResponse]) (*logpb.Command, error) {
	body := &logpb.RestoreState{}
	id, ago := "", time.Duration(0)
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return requested(id, ago, &logpb.Command{Body: &logpb.Command_RestoreState{RestoreState: body}}), nil
		}
		if err != nil {
			return nil, err
		}
		if body.Snapshot == nil {
			body.ReplaceCluster, id, ago = chunk.ReplaceCluster, chunk.RequestId, time.Duration(chunk.RequestedAgoNs)
		}
		body.Snapshot = append(body.Snapshot, chunk.Data...)
		if len(body.Snapshot) > s.c.options.MaxMessage {
			return nil, errs.New(errs.Invalid, "the snapshot has more than the %d bytes that inference.max_message allows between controllers: raise that on all of them", s.c.options.MaxMessage)
		}
	}
}
