package controller

import (
	"bytes"
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/peerpb"
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
func (s *controlService) RestoreSnapshot(stream grpc.ClientStreamingServer[controlpb.SnapshotChunk, controlpb.RestoreSnapshotResponse]) error {
	request, err := s.receive(stream)
	if err != nil {
		return grpcerr.Status(err)
	}
	w, err := s.c.waitForLeader(stream.Context())
	if err != nil {
		return grpcerr.Status(err)
	}
	epoch, err := w.restore(stream.Context(), request)
	if err != nil {
		return grpcerr.Status(err)
	}
	return stream.SendAndClose(&controlpb.RestoreSnapshotResponse{Epoch: epoch})
}

// receive gathers a snapshot, which has to fit into one message between
// controllers.
func (s *controlService) receive(stream grpc.ClientStreamingServer[controlpb.SnapshotChunk, controlpb.RestoreSnapshotResponse]) (*peerpb.RestoreRequest, error) {
	request := &peerpb.RestoreRequest{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return request, nil
		}
		if err != nil {
			return nil, err
		}
		request.Snapshot = append(request.Snapshot, chunk.Data...)
		request.ReplaceCluster = request.ReplaceCluster || chunk.ReplaceCluster
		if len(request.Snapshot) > s.c.options.MaxMessage {
			return nil, errs.New(errs.Invalid, "the snapshot has more than the %d bytes that inference.max_message allows between controllers", s.c.options.MaxMessage)
		}
	}
}

// restore has the leader replace the state, and returns the epoch that begins.
// It is not tried again: a restore that was acknowledged may be followed by
// changes, which a second one would undo.
func (w way) restore(ctx context.Context, r *peerpb.RestoreRequest) (epoch uint64, err error) {
	if w.term != nil {
		return w.term.restore(ctx, r)
	}
	var answer *peerpb.RestoreResponse
	err = w.ask(ctx, func(ctx context.Context) (err error) {
		answer, err = w.peer.Restore(ctx, r)
		return err
	})
	if err != nil && errs.From(err).Execution != errs.NotExecuted {
		err = errs.Maybe(errs.UnknownOutcome, "the leader was lost while it restored (%v): `orrery cluster status` shows a higher epoch if it did", err)
	}
	return answer.GetEpoch(), err
}

// restore replaces the state of all replicas by a snapshot's, made to follow
// on the present one. Nothing is proposed meanwhile: it would be lost.
func (t *term) restore(ctx context.Context, r *peerpb.RestoreRequest) (epoch uint64, err error) {
	from, err := fsm.Restore(bytes.NewReader(r.Snapshot))
	if err != nil {
		return 0, errs.New(errs.Invalid, "this can't be restored: %v", err)
	}
	t.c.proposing.Lock()
	defer t.c.proposing.Unlock()
	// What was proposed before, and given up on, may still be on its way.
	if err := t.c.options.Consensus.Barrier(ctx); err != nil {
		return 0, err
	}
	var next *fsm.State
	t.c.options.Replica.Read(func(s *fsm.State) { next, err = from.Succeed(s, r.ReplaceCluster) })
	if err != nil {
		return 0, errs.New(errs.Precondition, "this can't be restored here: %v", err)
	}
	var encoded bytes.Buffer
	if err := next.Snapshot().Encode(&encoded); err != nil {
		return 0, err
	}
	epoch = next.Cluster().GetEpoch()
	t.c.log.Warn("the state is being replaced by a snapshot's", "epoch", epoch, "from_index", from.Index())
	return epoch, t.c.options.Consensus.Restore(ctx, int64(encoded.Len()), &encoded)
}
