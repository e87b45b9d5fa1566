package controller

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

const (
	// liveTimeout bounds the question for live figures: a list without them is
	// better than no list.
	liveTimeout = 500 * time.Millisecond
	// watchInterval is how often a watched status is looked at.
	watchInterval = 100 * time.Millisecond
)

// controlService is what operators call. It works on every replica: changes
// are committed wherever the leader is, and answered by watching this
// replica's own state, so that a change of leader in between does not matter.
type controlService struct {
	controlpb.UnimplementedControlServer
	c *Controller
	// digests has many who ask for a status at once share the digests of all
	// replicas' states, the last of which were taken at digestIndex.
	digests     *shared
	digestIndex atomic.Uint64
}

// LoadModel wants a model, and answers when every worker that shall hold it
// has loaded it or failed to.
func (s *controlService) LoadModel(ctx context.Context, r *controlpb.LoadModelRequest) (*controlpb.LoadModelResponse, error) {
	if r.Model == nil {
		return nil, grpcerr.Status(errs.New(errs.Invalid, "the request names no model"))
	}
	result, err := s.c.commit(ctx, requested(r.RequestId, time.Duration(r.RequestedAgoNs), &logpb.Command{Body: &logpb.Command_LoadModel{LoadModel: r.Model}}))
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	if err := s.c.options.Replica.WaitIndex(ctx, result.Index); err != nil {
		return nil, grpcerr.Status(err)
	}
	for {
		changed := s.c.options.Replica.Changed(fsm.Workers | fsm.Models | fsm.Holdings)
		var answer *controlpb.LoadModelResponse
		var err error
		s.c.options.Replica.Read(func(state *fsm.State) { answer, err = loaded(state, result.ModelIds) })
		if answer != nil || err != nil {
			return answer, grpcerr.Status(err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, grpcerr.Status(errs.Maybe(errs.DeadlinePassed,
				"the model is wanted, but not all workers had answered when the call's time ran out; `orrery model status %s` tells how it goes on", r.Model.Name))
		}
	}
}

// loaded is the answer to a load once all its models are settled, else nil.
func loaded(s *fsm.State, ids []uint64) (*controlpb.LoadModelResponse, error) {
	answer := &controlpb.LoadModelResponse{}
	for _, id := range ids {
		m := s.Model(id)
		if m == nil {
			return nil, &errs.Error{Reason: errs.UnknownModel, Message: "the model was unloaded while it was being loaded", Execution: errs.Executed}
		}
		if !settled(s, m) {
			return nil, nil
		}
		answer.Models = append(answer.Models, modelStatus(s, m, nil))
	}
	return answer, nil
}

// UnloadModel ends a model, or all versions of it.
func (s *controlService) UnloadModel(ctx context.Context, r *controlpb.UnloadModelRequest) (*controlpb.UnloadModelResponse, error) {
	result, err := s.c.commit(ctx, requested(r.RequestId, time.Duration(r.RequestedAgoNs), &logpb.Command{Body: &logpb.Command_UnloadModel{
		UnloadModel: &logpb.UnloadModel{Name: r.Name, Version: r.Version},
	}}))
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	_ = s.c.options.Replica.WaitIndex(ctx, result.Index)
	return &controlpb.UnloadModelResponse{ModelIds: result.ModelIds}, nil
}

// SetSettings replaces the cluster's settings.
func (s *controlService) SetSettings(ctx context.Context, r *controlpb.SetSettingsRequest) (*controlpb.SetSettingsResponse, error) {
	if r.Settings == nil {
		return nil, grpcerr.Status(errs.New(errs.Invalid, "the request has no settings; send all of them, as ClusterStatus shows them"))
	}
	if err := s.c.checkPolicy(r.Settings.Policy); err != nil {
		return nil, grpcerr.Status(err)
	}
	result, err := s.c.commit(ctx, requested(r.RequestId, time.Duration(r.RequestedAgoNs), &logpb.Command{Body: &logpb.Command_SetSettings{
		SetSettings: &logpb.SetSettings{Settings: r.Settings},
	}}))
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	_ = s.c.options.Replica.WaitIndex(ctx, result.Index)
	return &controlpb.SetSettingsResponse{Settings: r.Settings}, nil
}

// ListModels shows the models that are wanted.
func (s *controlService) ListModels(ctx context.Context, r *controlpb.ListModelsRequest) (*controlpb.ListModelsResponse, error) {
	answer := &controlpb.ListModelsResponse{}
	var err error
	answer.Freshness, err = s.readLive(ctx, r.Stale, func(state *fsm.State, live liveWorkers) {
		for _, m := range state.Models() {
			if (r.Name == "" || r.Name == m.Name) && (r.Version == "" || r.Version == m.Version) {
				answer.Models = append(answer.Models, modelStatus(state, m, live))
			}
		}
	})
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	if r.Name != "" && len(answer.Models) == 0 {
		return nil, grpcerr.Status(unknownModel(r.Name, r.Version))
	}
	return answer, nil
}

// leaderLive asks the leader for live figures; nil when it can't be asked.
func (s *controlService) leaderLive(ctx context.Context) *peerpb.LiveResponse {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	w, err := s.c.route.wait(ctx)
	if err != nil {
		return nil
	}
	live, err := w.live(ctx)
	if err != nil {
		return nil
	}
	return live
}

// ListWorkers shows the registry, with live figures from the leader.
func (s *controlService) ListWorkers(ctx context.Context, r *controlpb.ListWorkersRequest) (*controlpb.ListWorkersResponse, error) {
	answer := &controlpb.ListWorkersResponse{}
	var err error
	answer.Freshness, err = s.readLive(ctx, r.Stale, func(state *fsm.State, live liveWorkers) {
		for _, w := range state.Workers() {
			if r.Name != "" && r.Name != w.Name {
				continue
			}
			info := &controlpb.WorkerInfo{Worker: w, Live: live[w.Name], State: workerState(w, live)}
			if info.Live == nil {
				info.Live = &controlpb.WorkerLive{Name: w.Name, Error: "the leader was not asked"}
			}
			for _, h := range state.HoldingsOf(w.Name) {
				if h.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
					info.Models = append(info.Models, state.Model(h.ModelId).GetName())
				}
			}
			slices.Sort(info.Models)
			answer.Workers = append(answer.Workers, info)
		}
	})
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	if r.Name != "" && len(answer.Workers) == 0 {
		return nil, grpcerr.Status(unknownWorker(r.Name))
	}
	return answer, nil
}

// readLive is Controller.read for those who also want to know what the leader
// knows of its workers.
func (s *controlService) readLive(ctx context.Context, stale bool, f func(*fsm.State, liveWorkers)) (*controlpb.Freshness, error) {
	var live liveWorkers
	if !stale {
		if err := s.c.current(ctx); err != nil {
			return nil, err
		}
		live = s.liveWorkers(ctx)
	}
	return s.c.readLocal(stale, func(state *fsm.State) { f(state, live) }), nil
}

// liveWorkers asks the leader for what it knows of its workers; nil when it can't
// be asked.
func (s *controlService) liveWorkers(ctx context.Context) liveWorkers {
	answer := s.leaderLive(ctx)
	if answer == nil {
		return nil
	}
	live := liveWorkers{}
	for _, l := range answer.Workers {
		live[l.Name] = l
	}
	return live
}

// Startup shows how far the startup has come.
func (s *controlService) Startup(ctx context.Context, _ *controlpb.StartupRequest) (*controlpb.StartupStatus, error) {
	return s.startup(ctx), nil
}

// startup is the leader's view, or this replica's own without the countdown.
func (s *controlService) startup(ctx context.Context) *controlpb.StartupStatus {
	if live := s.leaderLive(ctx); live.GetStartup() != nil {
		return live.Startup
	}
	var status *controlpb.StartupStatus
	s.c.options.Replica.Read(func(state *fsm.State) { status = startupStatus(state, nil) })
	status.WaitingFor = "a leader"
	return status
}

// ReopenStartup has a cluster that serves accept loads again, or ends that.
func (s *controlService) ReopenStartup(ctx context.Context, r *controlpb.ReopenStartupRequest) (*controlpb.ReopenStartupResponse, error) {
	result, err := s.c.commit(ctx, requested(r.RequestId, time.Duration(r.RequestedAgoNs), &logpb.Command{Body: &logpb.Command_ReopenStartup{
		ReopenStartup: &logpb.ReopenStartup{Close: r.Close},
	}}))
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	_ = s.c.options.Replica.WaitIndex(ctx, result.Index)
	return &controlpb.ReopenStartupResponse{Status: s.startup(ctx)}, nil
}

// WatchStartup sends the status now and at each change.
func (s *controlService) WatchStartup(_ *controlpb.StartupRequest, stream grpc.ServerStreamingServer[controlpb.StartupStatus]) error {
	var last *controlpb.StartupStatus
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		if status := s.startup(stream.Context()); !proto.Equal(status, last) {
			if err := stream.Send(status); err != nil {
				return err
			}
			last = status
		}
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return nil
		case <-s.c.stopping:
			return grpcerr.Status(errs.New(errs.ShuttingDown, "this controller is shutting down; watch another one"))
		}
	}
}
