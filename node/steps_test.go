package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// Sources in ../models. Each has a digest, and so a profile, of its own.
const (
	resnet18  = "profiles.csv#resnet18_v2"
	resnet152 = "profiles.csv#resnet152_v2"
)

// imageBytes is the input size of an emulated model whose profile names none.
const imageBytes = 1024

// quick shortens the countdown, for tests that are not about it.
func quick(config *configs.Controller) { config.Startup.LoadIdle = time.Second }

// table makes a model directory with profiles of its own. A row is the name,
// the weights in MB, the ms to load them, and the ms of 1, 2, 4 and 8 rows.
func (c *cluster) table(rows ...string) (dir string) {
	c.t.Helper()
	dir = c.t.TempDir()
	text := "model,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms,b8_ms\n" + strings.Join(rows, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "table.csv"), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return dir
}

// registered waits until a controller knows so many workers.
func (c *cluster) registered(at string, workers int) {
	c.t.Helper()
	control := c.control(at)
	c.eventually(30*time.Second, "all workers registered", func() error {
		r, err := control.ListWorkers(context.Background(), &controlpb.ListWorkersRequest{})
		if err == nil && len(r.Workers) != workers {
			err = fmt.Errorf("%d workers", len(r.Workers))
		}
		return err
	})
}

// load asks a controller for a model and waits for the answer.
func (c *cluster) load(ctx context.Context, at, name, source string) (*controlpb.ModelStatus, error) {
	r, err := c.control(at).LoadModel(ctx, &controlpb.LoadModelRequest{Model: &logpb.LoadModel{Name: name, Source: source}})
	if err != nil {
		return nil, err
	}
	return r.Models[0], nil
}

// mustLoad is load where it has to succeed within a minute.
func (c *cluster) mustLoad(at, name, source string) *controlpb.ModelStatus {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := c.load(ctx, at, name, source)
	if err != nil {
		c.t.Fatalf("load %s through %s: %v", name, at, err)
	}
	return m
}

// pendingLoad is a load in the background.
type pendingLoad struct {
	done chan struct{} // closed when the rest is valid
	at   time.Time
	m    *controlpb.ModelStatus
	err  error
}

// startLoad begins a load that ends with ctx at the latest.
func (c *cluster) startLoad(ctx context.Context, at, name, source string) *pendingLoad {
	p := &pendingLoad{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.m, p.err = c.load(ctx, at, name, source)
		p.at = time.Now()
	}()
	return p
}

// answered says whether the load has been answered.
func (p *pendingLoad) answered() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// copyAt is a model's copy at a worker, nil if there is none.
func copyAt(m *controlpb.ModelStatus, worker string) *controlpb.Copy {
	for _, c := range m.Copies {
		if c.Worker == worker {
			return c
		}
	}
	return nil
}

// loadedAt says whether a worker has the model in its host memory.
func loadedAt(m *controlpb.ModelStatus, worker string) bool {
	return copyAt(m, worker) != nil && copyAt(m, worker).Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED
}

// startup is the startup as a controller shows it.
func (c *cluster) startup(at string) (*controlpb.StartupStatus, error) {
	return c.control(at).Startup(context.Background(), &controlpb.StartupRequest{})
}

// untilPhase waits until a controller shows a phase.
func (c *cluster) untilPhase(at string, phase logpb.Phase, within time.Duration) {
	c.t.Helper()
	control := c.control(at)
	c.eventually(within, fmt.Sprint(at, " in ", phase), func() error {
		s, err := control.Startup(context.Background(), &controlpb.StartupRequest{})
		if err == nil && s.Phase != phase {
			err = fmt.Errorf("%v", s)
		}
		return err
	})
}

// image is a request for an emulated model. Answers tell seeds apart.
func image(model string, seed int) *inferencepb.ModelInferRequest {
	data := make([]byte, imageBytes)
	binary.LittleEndian.PutUint32(data, uint32(seed))
	return &inferencepb.ModelInferRequest{
		ModelName: model, Id: fmt.Sprint(seed),
		Inputs:           []*inferencepb.ModelInferRequest_InferInputTensor{{Name: "input", Datatype: "UINT8", Shape: []int64{1, imageBytes}}},
		RawInputContents: [][]byte{data},
	}
}

// within gives a request a deadline that the server alone watches, so that it
// is the server whose error is seen.
func within(r *inferencepb.ModelInferRequest, timeout time.Duration) *inferencepb.ModelInferRequest {
	r.Parameters = map[string]*inferencepb.InferParameter{
		"timeout": {ParameterChoice: &inferencepb.InferParameter_Int64Param{Int64Param: timeout.Microseconds()}},
	}
	return r
}

// ask sends a request and checks that the answer is its own.
func ask(ctx context.Context, to inferencepb.GRPCInferenceServiceClient, r *inferencepb.ModelInferRequest) error {
	answer, err := to.ModelInfer(ctx, r)
	if err == nil {
		err = checkAnswer(r, answer)
	}
	return err
}

// checkAnswer compares an answer with what the emulated engine makes of the
// request.
func checkAnswer(r *inferencepb.ModelInferRequest, answer *inferencepb.ModelInferResponse) error {
	hash := fnv.New64a()
	hash.Write(r.RawInputContents[0])
	want := binary.LittleEndian.AppendUint64(nil, hash.Sum64())
	if answer.Id != r.Id || len(answer.RawOutputContents) != 1 || string(answer.RawOutputContents[0][:8]) != string(want) {
		return fmt.Errorf("the answer of request %s is another's: %v", r.Id, answer)
	}
	return nil
}

// reasonOf is a gRPC error as the server meant it.
func reasonOf(err error) *errs.Error { return errs.From(grpcerr.FromStatus(err)) }
