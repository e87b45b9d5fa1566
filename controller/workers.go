package controller

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// This file is what operators do with workers, and with models that workers died
// with.

func unknownWorker(name string) error {
	return errs.New(errs.UnknownWorker, "no worker %q is registered; `orrery worker list` shows the workers", name)
}

// SetWorkerStatus cordons, drains, evicts or resumes a worker.
func (s *controlService) SetWorkerStatus(ctx context.Context, r *controlpb.SetWorkerStatusRequest) (*controlpb.SetWorkerStatusResponse, error) {
	set := &logpb.SetWorkerStatus{Name: r.Name, Status: r.Status}
	switch {
	case r.Name == "":
		return nil, grpcerr.Status(errs.New(errs.Invalid, "the request names no worker; `orrery worker list` shows the workers"))
	case r.Status == logpb.WorkerStatus_WORKER_STATUS_LOST:
		return nil, grpcerr.Status(errs.New(errs.Invalid, "that worker %q is lost is for the leader to find out; cordon, drain or remove it", r.Name))
	case r.DrainForNs < 0:
		return nil, grpcerr.Status(errs.New(errs.Invalid, "a drain of %v: it can't be negative", time.Duration(r.DrainForNs)))
	case r.Status == logpb.WorkerStatus_WORKER_STATUS_DRAINING && r.DrainForNs > 0:
		set.DrainUntilUnixNs = time.Now().Add(time.Duration(r.DrainForNs)).UnixNano()
	}
	if r.Status == logpb.WorkerStatus_WORKER_STATUS_DRAINING {
		if err := s.mayDrain(ctx, r.Name); err != nil {
			return nil, grpcerr.Status(err)
		}
	}
	cmd := requested(r.RequestId, time.Duration(r.RequestedAgoNs), &logpb.Command{Body: &logpb.Command_SetWorkerStatus{SetWorkerStatus: set}})
	result, err := s.c.commit(ctx, cmd)
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	_ = s.c.options.Replica.WaitIndex(ctx, result.Index)
	if r.Status == logpb.WorkerStatus_WORKER_STATUS_READY {
		if err := s.release(ctx, r.Name); err != nil {
			return nil, grpcerr.Status(err)
		}
	}
	answer := &controlpb.SetWorkerStatusResponse{}
	s.c.options.Replica.Read(func(state *fsm.State) {
		if w := state.Worker(r.Name); w != nil {
			answer.Worker = proto.CloneOf(w)
		}
	})
	return answer, nil
}

// mayDrain refuses to drain a worker that is away: nobody could ask it to leave.
func (s *controlService) mayDrain(ctx context.Context, name string) error {
	drains := false
	s.c.options.Replica.Read(func(state *fsm.State) {
		drains = state.Worker(name).GetStatus() == logpb.WorkerStatus_WORKER_STATUS_DRAINING
	})
	if drains {
		return nil // the first answer may have been lost
	}
	if live := s.liveWorkers(ctx); live != nil && live[name] != nil && !live[name].Connected {
		return errs.New(errs.Precondition, "worker %q is away and can't be drained: `orrery worker remove %s` takes it out of the registry", name, name)
	}
	return nil
}

// RemoveWorker forgets a worker that is away.
func (s *controlService) RemoveWorker(ctx context.Context, r *controlpb.RemoveWorkerRequest) (*controlpb.RemoveWorkerResponse, error) {
	if live := s.liveWorkers(ctx); live != nil && live[r.Name].GetConnected() {
		return nil, grpcerr.Status(errs.New(errs.Precondition,
			"worker %q is connected and would be registered again at once; `orrery worker drain %s` has it leave, or stop its process", r.Name, r.Name))
	}
	cmd := requested(r.RequestId, time.Duration(r.RequestedAgoNs), &logpb.Command{Body: &logpb.Command_RemoveWorker{RemoveWorker: &logpb.RemoveWorker{Name: r.Name}}})
	result, err := s.c.commit(ctx, cmd)
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	_ = s.c.options.Replica.WaitIndex(ctx, result.Index)
	return &controlpb.RemoveWorkerResponse{}, nil
}

// ResumeModel has models served again that workers died with.
func (s *controlService) ResumeModel(ctx context.Context, r *controlpb.ResumeModelRequest) (*controlpb.ResumeModelResponse, error) {
	if err := s.c.current(ctx); err != nil {
		return nil, grpcerr.Status(err)
	}
	var stopped []uint64
	found := false
	s.c.options.Replica.Read(func(state *fsm.State) {
		for _, m := range state.Models() {
			if m.Name != r.Name || r.Version != "" && r.Version != m.Version {
				continue
			}
			found = true
			if m.Blame != "" {
				stopped = append(stopped, m.Id)
			}
		}
	})
	if !found {
		return nil, grpcerr.Status(unknownModel(r.Name, r.Version))
	}
	answer := &controlpb.ResumeModelResponse{}
	for _, id := range stopped {
		// Each is a change of its own, and to repeat one does no harm.
		result, err := s.c.commit(ctx, command(&logpb.Command{Body: &logpb.Command_SetModelBlame{SetModelBlame: &logpb.SetModelBlame{ModelId: id}}}))
		if err != nil {
			return nil, grpcerr.Status(err)
		}
		_ = s.c.options.Replica.WaitIndex(ctx, result.Index)
		answer.ModelIds = append(answer.ModelIds, id)
	}
	return answer, nil
}

// release has the leader end a worker's quarantine.
func (s *controlService) release(ctx context.Context, name string) error {
	for {
		w, err := s.c.waitForLeader(ctx)
		if err != nil {
			return err
		}
		if err = w.release(ctx, name); err == nil || !passing(err) {
			return err
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// release asks the leader to end a worker's quarantine.
func (w way) release(ctx context.Context, name string) error {
	if w.term != nil {
		w.term.coordinator.release(name)
		return nil
	}
	return w.ask(ctx, func(ctx context.Context) error {
		_, err := w.peer.Release(ctx, &peerpb.ReleaseRequest{Worker: name})
		if status.Code(err) == codes.Unimplemented {
			return nil // a leader of an older release has no quarantine
		}
		return err
	})
}

// release ends a worker's quarantine, and what was held against it.
func (k *coordinator) release(name string) {
	k.mailbox.post(func() {
		if w := k.connections[name]; w != nil {
			w.health.release()
		}
	})
}

// Release ends a worker's quarantine for a follower.
func (s *peerService) Release(_ context.Context, r *peerpb.ReleaseRequest) (*peerpb.ReleaseResponse, error) {
	t, err := s.leading()
	if err != nil {
		return nil, err
	}
	t.coordinator.release(r.Worker)
	return &peerpb.ReleaseResponse{}, nil
}
