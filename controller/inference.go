package controller

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/oip"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// tenantKey is the metadata key that names the tenant of a request.
const tenantKey = "orrery-tenant"

// inferenceService is the Open Inference Protocol.
type inferenceService struct {
	inferencepb.UnimplementedGRPCInferenceServiceServer
	c *Controller
}

// ServerLive says that this process answers.
func (s *inferenceService) ServerLive(context.Context, *inferencepb.ServerLiveRequest) (*inferencepb.ServerLiveResponse, error) {
	return &inferencepb.ServerLiveResponse{Live: true}, nil
}

// ServerReady says that the cluster serves and that its leader can be reached
// from here, or that there is none and workers serve without.
func (s *inferenceService) ServerReady(context.Context, *inferencepb.ServerReadyRequest) (*inferencepb.ServerReadyResponse, error) {
	return &inferencepb.ServerReadyResponse{Ready: s.c.Ready()}, nil
}

// Ready says whether a request that comes in here can be served, by the leader
// or without one.
func (c *Controller) Ready() bool {
	w, _ := c.route.current()
	select {
	case <-c.stopping:
		return false
	default:
	}
	serving := false
	c.options.Replica.Read(func(s *fsm.State) { serving = s.Serving() })
	return serving && (w.known() || c.Degraded())
}

// ModelReady says that the model can be served.
func (s *inferenceService) ModelReady(_ context.Context, r *inferencepb.ModelReadyRequest) (*inferencepb.ModelReadyResponse, error) {
	ready := false
	s.c.options.Replica.Read(func(state *fsm.State) {
		if m := state.Resolve(r.Name, r.Version); m != nil {
			ready = !obstacleTo(state, m, nil).exists()
		}
	})
	return &inferencepb.ModelReadyResponse{Ready: ready && s.c.Ready()}, nil
}

// ServerMetadata names the server. No extension of the protocol is implemented.
func (s *inferenceService) ServerMetadata(context.Context, *inferencepb.ServerMetadataRequest) (*inferencepb.ServerMetadataResponse, error) {
	return &inferencepb.ServerMetadataResponse{Name: "orrery", Version: s.c.options.Version}, nil
}

// ModelMetadata describes a model that has been loaded. Before it says that
// there is none it asks the leader: the state here may be older.
func (s *inferenceService) ModelMetadata(ctx context.Context, r *inferencepb.ModelMetadataRequest) (*inferencepb.ModelMetadataResponse, error) {
	var model *logpb.Model
	var versions []string
	s.c.options.Replica.Read(func(state *fsm.State) {
		model = state.Resolve(r.Name, r.Version)
		for _, m := range state.Models() {
			if m.Name == r.Name && !m.Retiring {
				versions = append(versions, m.Version)
			}
		}
	})
	if model.GetInfo() == nil {
		w, err := s.c.waitForLeader(ctx)
		if err == nil {
			model, err = w.resolve(ctx, r.Name, r.Version)
		}
		if err != nil {
			return nil, grpcerr.Status(err)
		}
	}
	if model.Info == nil {
		return nil, grpcerr.Status(errs.New(errs.NotLoaded, "model %s version %s has not been loaded by any worker yet", model.Name, model.Version))
	}
	return oip.Metadata(model.Name, versions, platform(model.Info), oip.Signature(model.Info.Signature)), nil
}

// platform is what clients are told that a model runs on.
func platform(info *logpb.ModelInfo) string {
	if info.Emulated {
		return "emulated"
	}
	return "onnx_" + info.Engine
}

// ModelInfer answers one request.
func (s *inferenceService) ModelInfer(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, error) {
	payload, err := proto.Marshal(r)
	if err != nil {
		return nil, grpcerr.Status(errs.New(errs.Invalid, "the request can't be serialised: %v", err))
	}
	tenant := ""
	if values := metadata.ValueFromIncomingContext(ctx, tenantKey); len(values) > 0 {
		tenant = values[0]
	}
	answer, err := s.c.entry.infer(ctx, r, payload, tenant)
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	_ = grpc.SetTrailer(ctx, trailer(answer.Answer))
	response := &inferencepb.ModelInferResponse{}
	if err := proto.Unmarshal(answer.Payload, response); err != nil {
		return nil, grpcerr.Status(errs.Maybe(errs.Internal, "the worker's answer can't be read: %v", err))
	}
	return response, nil
}

// Keys of the trailer of a successful answer.
const (
	workerTrailer = "orrery-worker"
	// degradedTrailer is there, and true, when there was no leader.
	degradedTrailer = "orrery-degraded"
	timingTrailer   = "orrery-timing"
)

// trailer says which worker computed an answer, and how long each stage took:
// entry is the whole time here, of which queue was spent waiting for a device,
// worker between leader and worker, and of that engine executing the batch, for
// which predicted is what the scheduler expected. Rows are those of the batch.
func trailer(a *exchangepb.Answer) metadata.MD {
	var stages []string
	for _, s := range a.Stages {
		stages = append(stages, fmt.Sprintf("%s=%v", s.Name, time.Duration(s.DurationNs)))
	}
	if a.BatchRows > 0 {
		stages = append(stages, fmt.Sprintf("rows=%d", a.BatchRows))
	}
	md := metadata.Pairs(workerTrailer, a.Worker, timingTrailer, strings.Join(stages, " "))
	if a.Degraded {
		md.Set(degradedTrailer, "true")
	}
	return md
}
