package client

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// LoadModel wants a model, and returns when every chosen worker has loaded it
// or failed to: which of the two is in each status's copies. There is one
// status for each instance.
func (c *Client) LoadModel(ctx context.Context, model *logpb.LoadModel) ([]*controlpb.ModelStatus, error) {
	request := &controlpb.LoadModelRequest{RequestId: rand.Text(), Model: model}
	answer, err := change(ctx, c, controlpb.ControlClient.LoadModel, request, &request.RequestedAgoNs)
	return answer.GetModels(), err
}

// UnloadModel gives a model up, and returns the ids of what is no longer
// wanted. An empty version means all versions.
func (c *Client) UnloadModel(ctx context.Context, name, version string) ([]uint64, error) {
	request := &controlpb.UnloadModelRequest{RequestId: rand.Text(), Name: name, Version: version}
	answer, err := change(ctx, c, controlpb.ControlClient.UnloadModel, request, &request.RequestedAgoNs)
	return answer.GetModelIds(), err
}

// SetWorkerStatus cordons, drains, evicts or resumes a worker. A drain ends after
// drainFor at the latest; 0: when all is handed over.
func (c *Client) SetWorkerStatus(ctx context.Context, name string, status logpb.WorkerStatus, drainFor time.Duration) (*logpb.Worker, error) {
	request := &controlpb.SetWorkerStatusRequest{RequestId: rand.Text(), Name: name, Status: status, DrainForNs: int64(drainFor)}
	answer, err := change(ctx, c, controlpb.ControlClient.SetWorkerStatus, request, &request.RequestedAgoNs)
	return answer.GetWorker(), err
}

// RemoveWorker takes a worker that is away out of the registry.
func (c *Client) RemoveWorker(ctx context.Context, name string) error {
	request := &controlpb.RemoveWorkerRequest{RequestId: rand.Text(), Name: name}
	_, err := change(ctx, c, controlpb.ControlClient.RemoveWorker, request, &request.RequestedAgoNs)
	return err
}

// ResumeModel has a model served again that workers died with, and returns the
// ids of those versions that were stopped. An empty version means all.
func (c *Client) ResumeModel(ctx context.Context, name, version string) ([]uint64, error) {
	request := &controlpb.ResumeModelRequest{RequestId: rand.Text(), Name: name, Version: version}
	answer, err := change(ctx, c, controlpb.ControlClient.ResumeModel, request, &request.RequestedAgoNs)
	return answer.GetModelIds(), err
}

// PinModel has the weights of a model stay on so many devices, or, with 0, ends
// that; it returns the ids of the versions concerned. An empty version means all.
func (c *Client) PinModel(ctx context.Context, name, version string, devices uint32) ([]uint64, error) {
	request := &controlpb.PinModelRequest{RequestId: rand.Text(), Name: name, Version: version, Devices: devices}
	answer, err := change(ctx, c, controlpb.ControlClient.PinModel, request, &request.RequestedAgoNs)
	return answer.GetModelIds(), err
}

// SetSettings replaces the cluster's settings.
func (c *Client) SetSettings(ctx context.Context, settings *logpb.Settings) (*logpb.Settings, error) {
	request := &controlpb.SetSettingsRequest{RequestId: rand.Text(), Settings: settings}
	answer, err := change(ctx, c, controlpb.ControlClient.SetSettings, request, &request.RequestedAgoNs)
	return answer.GetSettings(), err
}

// ListModels returns the wanted models of a name and version; empty means all.
func (c *Client) ListModels(ctx context.Context, request *controlpb.ListModelsRequest) (*controlpb.ListModelsResponse, error) {
	return ask(ctx, c, controlpb.ControlClient.ListModels, request)
}

// ListWorkers returns the registered workers.
func (c *Client) ListWorkers(ctx context.Context, request *controlpb.ListWorkersRequest) (*controlpb.ListWorkersResponse, error) {
	return ask(ctx, c, controlpb.ControlClient.ListWorkers, request)
}

// ClusterStatus returns how the cluster looks from one controller, which is
// named in it.
func (c *Client) ClusterStatus(ctx context.Context, request *controlpb.ClusterStatusRequest) (*controlpb.ClusterStatusResponse, error) {
	return ask(ctx, c, controlpb.ControlClient.ClusterStatus, request)
}

// Startup returns how far the cluster's startup has come.
func (c *Client) Startup(ctx context.Context) (*controlpb.StartupStatus, error) {
	return ask(ctx, c, controlpb.ControlClient.Startup, &controlpb.StartupRequest{})
}

// ReopenStartup has a cluster that serves accept loads again, with the same
// countdown and profiling, while serving goes on. shut ends that, when no load has
// come.
func (c *Client) ReopenStartup(ctx context.Context, shut bool) (*controlpb.StartupStatus, error) {
	request := &controlpb.ReopenStartupRequest{RequestId: rand.Text(), Close: shut}
	answer, err := change(ctx, c, controlpb.ControlClient.ReopenStartup, request, &request.RequestedAgoNs)
	return answer.GetStatus(), err
}

// change is ask for a request with an id: each attempt says how long ago the
// first was made.
func change[Request, Answer any](ctx context.Context, c *Client,
	method func(controlpb.ControlClient, context.Context, *Request, ...grpc.CallOption) (*Answer, error), request *Request, ago *int64,
) (*Answer, error) {
	var first time.Time
	return ask(ctx, c, func(cl controlpb.ControlClient, ctx context.Context, r *Request, o ...grpc.CallOption) (*Answer, error) {
		if first.IsZero() {
			first = time.Now()
		} else {
			*ago = int64(time.Since(first))
		}
		return method(cl, ctx, r, o...)
	}, request)
}

// ask makes one control call that may be repeated.
func ask[Request, Answer any](ctx context.Context, c *Client,
	method func(controlpb.ControlClient, context.Context, *Request, ...grpc.CallOption) (*Answer, error), request *Request,
) (*Answer, error) {
	var answer *Answer
	err := c.control.call(ctx, patience, func(ctx context.Context, conn *rpc.Conn) (err error) {
		answer, err = method(controlpb.NewControlClient(conn), ctx, request)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// WatchStartup calls see with the startup's status now and after each change,
// also when it has to go on at another controller, until ctx ends or see
// returns an error, which it passes on.
func (c *Client) WatchStartup(ctx context.Context, see func(*controlpb.StartupStatus) error) error {
	var last *controlpb.StartupStatus
	var stopped error
	err := c.control.call(ctx, 0, func(ctx context.Context, conn *rpc.Conn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := controlpb.NewControlClient(conn).WatchStartup(ctx, &controlpb.StartupRequest{})
		if err != nil {
			return err
		}
		for {
			status, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return &moveOn{errors.New("the controller has ended the watch")}
			}
			if err != nil {
				return err
			}
			if proto.Equal(status, last) {
				continue
			}
			last = status
			if stopped = see(status); stopped != nil {
				return nil
			}
		}
	})
	if stopped != nil {
		return stopped
	}
	return err
}
