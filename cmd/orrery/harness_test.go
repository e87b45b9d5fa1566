package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

var update = flag.Bool("update", false, "write the golden files again")

// golden compares a text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (go test -update writes it again):\n%s", path, diff)
	}
}

// outcome is what a command line did.
type outcome struct {
	status   int
	out, err string
}

// execute runs a command line against the network, if there is one.
func execute(t *testing.T, n *testnet.Network, environ []string, args ...string) outcome {
	t.Helper()
	return executeOn(t, n, nil, environ, args...)
}

// executeOn is execute on a terminal of a size, if there is one.
func executeOn(t *testing.T, n *testnet.Network, size func(io.Writer) (int, int, bool), environ []string, args ...string) outcome {
	t.Helper()
	var out, err bytes.Buffer
	a := &app{out: &out, err: &err, environ: environ, size: size}
	if n != nil {
		a.dial = n.Host("operator").Dial
	}
	status := run(t.Context(), args, a)
	return outcome{status, out.String(), err.String()}
}

// fake is a controller with fixed answers.
type fake struct {
	controlpb.UnimplementedControlServer
	inferencepb.UnimplementedGRPCInferenceServiceServer
	status  *controlpb.ClusterStatusResponse
	workers []*controlpb.WorkerInfo
	models  []*controlpb.ModelStatus
	startup []*controlpb.StartupStatus
	// now is what Startup answers.
	now *controlpb.StartupStatus
	// replacing answers a load that replaces; each list of models takes its next
	// status, as long as there is one.
	replacing []*controlpb.ModelStatus
	// reopens are the calls of ReopenStartup, and refusal their result.
	reopens []bool
	refusal error
	// loading is how long a load takes; only for tests in virtual time.
	loading time.Duration
	// scores are the output of every model.
	scores []float32

	mu     sync.Mutex
	loaded *logpb.LoadModel
	// statuses are the changes of workers that were asked for.
	statuses []string
	asked    int
	// held are the replies to requests that came while hold was set.
	held []func()
	hold bool
}

// start serves a fake controller at "c:1" until the test ends.
func (f *fake) start(t *testing.T, n *testnet.Network) {
	links := link.NewServer(f, link.Options{}, 10_000, 1<<30)
	server := rpc.NewServer(64 << 20)
	controlpb.RegisterControlServer(server, f)
	inferencepb.RegisterGRPCInferenceServiceServer(server, f)
	exchangepb.RegisterExchangeServer(server, links)
	l, err := n.Host("c").Listen("c:1")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		links.Close()
		served.Wait()
	})
}

func (f *fake) ClusterStatus(context.Context, *controlpb.ClusterStatusRequest) (*controlpb.ClusterStatusResponse, error) {
	return f.status, nil
}

func (f *fake) SetSettings(_ context.Context, r *controlpb.SetSettingsRequest) (*controlpb.SetSettingsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = proto.CloneOf(f.status)
	f.status.Cluster.Settings = r.Settings
	return &controlpb.SetSettingsResponse{Settings: r.Settings}, nil
}

// ListWorkers forgets a worker that drains once it has been shown.
func (f *fake) ListWorkers(_ context.Context, r *controlpb.ListWorkersRequest) (*controlpb.ListWorkersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &controlpb.ListWorkersResponse{}
	for _, w := range f.workers {
		if r.Name == "" || r.Name == w.Worker.Name {
			answer.Workers = append(answer.Workers, proto.CloneOf(w))
		}
	}
	f.workers = slices.DeleteFunc(f.workers, func(w *controlpb.WorkerInfo) bool {
		return w.Worker.Status == logpb.WorkerStatus_WORKER_STATUS_DRAINING
	})
	return answer, nil
}

func (f *fake) SetWorkerStatus(_ context.Context, r *controlpb.SetWorkerStatusRequest) (*controlpb.SetWorkerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses = append(f.statuses, fmt.Sprintf("%s %v %v", r.Name, r.Status, time.Duration(r.DrainForNs)))
	for _, w := range f.workers {
		if w.Worker.Name == r.Name {
			w.Worker.Status = r.Status
			return &controlpb.SetWorkerStatusResponse{Worker: proto.CloneOf(w.Worker)}, nil
		}
	}
	return nil, grpcerr.Status(errs.New(errs.UnknownWorker, "no worker %q is registered", r.Name))
}

func (f *fake) RemoveWorker(_ context.Context, r *controlpb.RemoveWorkerRequest) (*controlpb.RemoveWorkerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses = append(f.statuses, r.Name+" removed")
	return &controlpb.RemoveWorkerResponse{}, nil
}

func (f *fake) ResumeModel(_ context.Context, r *controlpb.ResumeModelRequest) (*controlpb.ResumeModelResponse, error) {
	return &controlpb.ResumeModelResponse{ModelIds: map[string][]uint64{"fashion-mlp": {1}}[r.Name]}, nil
}

// PinModel has the weights of what it pins on one device.
func (f *fake) PinModel(_ context.Context, r *controlpb.PinModelRequest) (*controlpb.PinModelResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &controlpb.PinModelResponse{}
	for i, m := range f.models {
		if m.Model.Name != r.Name || r.Version != "" && r.Version != m.Model.Version {
			continue
		}
		m = proto.CloneOf(m)
		m.Model.Pinned, m.PinnedNow = r.Devices, proto.Uint32(1)
		f.models[i] = m
		answer.ModelIds = append(answer.ModelIds, m.Model.Id)
	}
	if len(answer.ModelIds) == 0 {
		return nil, grpcerr.Status(errs.New(errs.UnknownModel, "no model %q is wanted", r.Name))
	}
	return answer, nil
}

func (f *fake) ListModels(_ context.Context, r *controlpb.ListModelsRequest) (*controlpb.ListModelsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	models := f.models
	if f.loaded.GetReplace() {
		if len(f.replacing) > 1 {
			f.replacing = f.replacing[1:]
		}
		models = append(slices.Clone(models), f.replacing[0])
	}
	answer := &controlpb.ListModelsResponse{}
	for _, m := range models {
		if (r.Name == "" || r.Name == m.Model.Name) && (r.Version == "" || r.Version == m.Model.Version) {
			answer.Models = append(answer.Models, m)
		}
	}
	if r.Name != "" && len(answer.Models) == 0 {
		return nil, grpcerr.Status(errs.New(errs.UnknownModel, "there is no model %q; `orrery model list` shows the models", r.Name))
	}
	return answer, nil
}

func (f *fake) UnloadModel(context.Context, *controlpb.UnloadModelRequest) (*controlpb.UnloadModelResponse, error) {
	return &controlpb.UnloadModelResponse{ModelIds: []uint64{1, 2}}, nil
}

func (f *fake) LoadModel(_ context.Context, r *controlpb.LoadModelRequest) (*controlpb.LoadModelResponse, error) {
	time.Sleep(f.loading)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loaded = r.Model
	if r.Model.Replace {
		return &controlpb.LoadModelResponse{Models: f.replacing[:1]}, nil
	}
	return &controlpb.LoadModelResponse{Models: f.models[:1]}, nil
}

func (f *fake) Startup(context.Context, *controlpb.StartupRequest) (*controlpb.StartupStatus, error) {
	return f.now, nil
}

func (f *fake) ReopenStartup(_ context.Context, r *controlpb.ReopenStartupRequest) (*controlpb.ReopenStartupResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reopens = append(f.reopens, r.Close)
	if f.refusal != nil {
		return nil, grpcerr.Status(f.refusal)
	}
	return &controlpb.ReopenStartupResponse{Status: &controlpb.StartupStatus{
		Phase: logpb.Phase_PHASE_WAITING, CountdownNs: -1, Serving: true, LoadIdleNs: int64(10 * time.Second), AdmitsLoads: !r.Close,
	}}, nil
}

func (f *fake) WatchStartup(_ *controlpb.StartupRequest, s controlpb.Control_WatchStartupServer) error {
	for _, status := range f.startup {
		if err := s.Send(status); err != nil {
			return err
		}
	}
	<-s.Context().Done()
	return nil
}

func (f *fake) ModelMetadata(_ context.Context, r *inferencepb.ModelMetadataRequest) (*inferencepb.ModelMetadataResponse, error) {
	return &inferencepb.ModelMetadataResponse{Name: r.Name, Inputs: []*inferencepb.ModelMetadataResponse_TensorMetadata{
		{Name: "image", Datatype: "FP32", Shape: []int64{-1, 28, 28}},
	}}, nil
}

// Handle implements link.Handler.
func (f *fake) Handle(_ context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	asked := &inferencepb.ModelInferRequest{}
	if err := proto.Unmarshal(request.Payload, asked); err != nil {
		panic(err)
	}
	payload, err := proto.Marshal(&inferencepb.ModelInferResponse{
		ModelName: asked.ModelName, ModelVersion: "1",
		Outputs:           []*inferencepb.ModelInferResponse_InferOutputTensor{{Name: "logits", Datatype: "FP32", Shape: []int64{1, int64(len(f.scores))}}},
		RawOutputContents: [][]byte{float32s(f.scores)},
	})
	if err != nil {
		panic(err)
	}
	answer := func() { reply(&exchangepb.Envelope{Payload: payload, Answer: &exchangepb.Answer{Worker: "w1"}}) }
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.hold {
		f.held = append(f.held, answer)
		return
	}
	answer()
}

// letGo answers what was held.
func (f *fake) letGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = false
	for _, answer := range f.held {
		answer()
	}
}

// answers is a controller of a small cluster, not all of which is well.
func answers() *fake {
	ms := int64(time.Millisecond)
	model := &logpb.Model{
		Id: 1, Name: "fashion-mlp", Version: "1", Source: "fashion-mlp.onnx", SloNs: 100 * ms,
		Largest: []*logpb.TensorShape{{Name: "image", Shape: []int64{28, 28}}},
		Info:    &logpb.ModelInfo{Engine: "gomlx", Digest: "7ae6beedcc990000"},
	}
	return &fake{
		scores: []float32{-1, 2.5, 0},
		status: &controlpb.ClusterStatusResponse{
			Cluster: &logpb.Cluster{Id: "K7", Epoch: 1, Phase: logpb.Phase_PHASE_SERVING},
			Name:    "c2", Leader: "c1", Policy: "edf", Term: 3, CommitIndex: 41, AppliedIndex: 41, DigestIndex: 41,
			Replicas: []*controlpb.Replica{
				{Name: "c1", Id: "c1-51b3", RaftAddress: "10.0.0.1:8012", Voter: true, Leader: true, Reachable: true, Digest: "5a95680329281111"},
				{Name: "c2", Id: "c2-4f8e", RaftAddress: "10.0.0.2:8012", Voter: true, Reachable: true, Digest: "5a95680329281111"},
				{Name: "c3", Id: "c3-0467", RaftAddress: "10.0.0.3:8012", Error: "connection refused"},
			},
			Members: []*controlpb.Member{{Name: "c1"}, {Name: "c2"}},
		},
		workers: []*controlpb.WorkerInfo{
			{
				Worker: &logpb.Worker{
					Name: "w1", Incarnation: "A1", SessionAddress: "10.0.0.11:8020", Speed: 1.5, RegisteredUnixNs: 1_800_000_000_000_000_000,
					Devices: []*logpb.Device{{Kind: "cpu"}}, Engines: []*logpb.Engine{{Name: "gomlx", Version: "0.27"}},
					Labels: []*logpb.Label{{Key: "zone", Value: "a"}}, Checks: []*logpb.DeviceCheck{{Ratio: 1.52, Runs: 5}},
				},
				Live: &controlpb.WorkerLive{
					Connected: true, LastHeartbeatAgoNs: 12 * ms, QueueLength: 3, FreePages: 30, Pages: 32, RoundTripNs: ms / 5, ClockOffsetNs: -90 * 60_000 * ms,
					Devices: []*controlpb.DeviceLive{{
						Kind: "cpu", Queued: 3, FreePages: 30, Pages: 32, Executing: "fashion-mlp", ExecutingNs: 2 * ms, Resident: []string{"fashion-mlp"},
					}},
				},
				Models: []string{"a", "b", "c", "d", "fashion-mlp"}, State: "ready",
			},
			{Worker: &logpb.Worker{Name: "w2", Status: logpb.WorkerStatus_WORKER_STATUS_LOST}, Live: &controlpb.WorkerLive{Error: "connection refused"}, State: "lost"},
			{
				Worker: &logpb.Worker{Name: "w3"}, State: "quarantined",
				Live: &controlpb.WorkerLive{Connected: true, QuarantinedNs: 7000 * ms, QuarantineReason: "its sessions break"},
			},
			{Worker: &logpb.Worker{Name: "w4"}, State: "ready", Live: &controlpb.WorkerLive{Connected: true, Twin: "10.0.0.99:8020 (incarnation B2)"}},
			{Worker: &logpb.Worker{Name: "w5"}, State: "ready", Live: &controlpb.WorkerLive{
				Connected: true, Devices: []*controlpb.DeviceLive{{Index: 1, Executing: "slow", ExecutingNs: 90_000 * ms}},
			}},
		},
		models: []*controlpb.ModelStatus{{
			Model: model,
			Copies: []*controlpb.Copy{
				{Worker: "w1", Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED, LoadNs: 23 * ms},
				{Worker: "w2", Status: logpb.HoldingStatus_HOLDING_STATUS_FAILED, Error: "no such file"},
			},
			Profiles: []*logpb.Profile{{
				Key:       &logpb.ProfileKey{DeviceKind: "cpu"},
				Execution: []*logpb.RowsTime{{Rows: 1, P50Ns: 81_000, P99Ns: 168_000, Runs: 30}, {Rows: 16, P50Ns: 5 * ms, P99Ns: 1500 * ms, Runs: 3, Outliers: 1}},
				Worker:    "w1", MeasuredUnixNs: time.Now().Add(-200 * time.Second).UnixNano(), DriftedUnixNs: time.Now().Add(-90 * time.Second).UnixNano(),
				WeightsLoadP50Ns: 2 * ms, WeightsLoadP99Ns: 3 * ms, OutputBytesPerRow: 40,
			}},
			ProfileRows: []uint32{1, 8, 16},
			Checks: []*controlpb.DeviceRatio{
				{Worker: "w2", Check: &logpb.DeviceCheck{Profile: &logpb.ProfileKey{DeviceKind: "cpu"}, Ratio: 1.02, Runs: 5}},
				{Worker: "w2", Check: &logpb.DeviceCheck{Device: 1, Profile: &logpb.ProfileKey{DeviceKind: "cpu"}, Ratio: 1.52, Runs: 5}},
				{Worker: "w3", Check: &logpb.DeviceCheck{Profile: &logpb.ProfileKey{DeviceKind: "gpu"}, Ratio: 9, Runs: 5}},
			},
		}, {
			Model:  &logpb.Model{Id: 2, Name: "retiree", Version: "1", Retiring: true},
			Reason: "another version has taken its place, and it only ends what it has", Advice: "ask without a version", Code: "UNKNOWN_MODEL",
		}, {
			Model:  &logpb.Model{Id: 3, Name: "retiree", Version: "2", Replaces: 9},
			Reason: "its times have not been measured yet", Advice: "wait until the cluster serves", Code: "NOT_PROFILED",
			Replacement: "it is to take the place of version 1, which serves until it can",
		}},
		now: &controlpb.StartupStatus{
			Phase: logpb.Phase_PHASE_LOADING, CountdownNs: 7000 * ms, WaitingFor: "no new load request for 10s", Workers: 3, LoadIdleNs: 10_000 * ms, AdmitsLoads: true,
			Models: []*controlpb.ModelProgress{{Name: "fashion-mlp", Version: "1", Copies: 2, Loaded: 1, Failed: 1, ProfilesWanted: 1}},
		},
		startup: []*controlpb.StartupStatus{
			{Phase: logpb.Phase_PHASE_WAITING, WaitingFor: "the first load"},
			{Phase: logpb.Phase_PHASE_LOADING, Models: []*controlpb.ModelProgress{{Name: "fashion-mlp", Copies: 2, Loaded: 1}}},
		},
	}
}
