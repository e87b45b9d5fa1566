package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// sequences is a request for a sequence of so many vectors.
func sequences(model string, length int64) *inferencepb.ModelInferRequest {
	return &inferencepb.ModelInferRequest{
		ModelName: model,
		Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{{
			Name: "x", Datatype: "FP32", Shape: []int64{1, length, 64},
		}},
		RawInputContents: [][]byte{make([]byte, length*64*4)},
	}
}

// A model with a variable dimension is measured at the largest shape that was
// declared, and takes nothing larger.
func TestVariableDimensions(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	c := startCluster(t, devcluster.Options{Workers: 1, ModelDir: dir})
	cl := clientOf(t, c.Controllers...)
	load := func(name string, largest ...int64) *controlpb.ModelStatus {
		models, err := cl.LoadModel(within(t, serveTimeout), &logpb.LoadModel{
			Name: name, Source: "sequences.onnx", Largest: []*logpb.TensorShape{{Name: "x", Shape: largest}},
		})
		if err != nil {
			t.Fatalf("load %s: %v", name, err)
		}
		return models[0]
	}
	eventually(t, startTimeout, "a version of the cluster that knows shapes", func() error {
		_, err := cl.LoadModel(within(t, callTimeout), &logpb.LoadModel{
			Name: "long", Source: "sequences.onnx", Largest: []*logpb.TensorShape{{Name: "x", Shape: []int64{2000, 64}}},
		})
		return err
	})
	load("short", 10, 64)
	for name, c := range map[string]struct {
		largest []int64
		words   string
	}{
		"other-rank":  {[]int64{10}, "does not fit"},
		"other-width": {[]int64{10, 65}, "does not fit"},
	} {
		m := load(name, c.largest...)
		if at := m.Copies[0]; at.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED || !strings.Contains(at.Error, c.words) || !strings.Contains(at.Error, `"x"`) {
			t.Errorf("load with the largest shape %v: %v", c.largest, at)
		}
	}
	c.awaitServing(t)

	times := map[string]int64{}
	answer, err := cl.ListModels(within(t, callTimeout), &controlpb.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range answer.Models {
		if len(m.Profiles) == 1 {
			rows := m.Profiles[0].Execution
			times[m.Model.Name] = rows[len(rows)-1].P50Ns
			t.Logf("%s (%s): %d rows take %v", m.Model.Name, m.Profiles[0].Key.Shapes, rows[len(rows)-1].Rows, time.Duration(rows[len(rows)-1].P50Ns))
		}
	}
	// 200 times as much to compute.
	if len(times) != 2 || times["long"] < 5*times["short"] {
		t.Errorf("measured times %v", times)
	}
	if _, _, err := cl.Infer(within(t, callTimeout), sequences("long", 1500)); err != nil {
		t.Errorf("a sequence within the declared shape: %v", err)
	}
	if _, _, err := cl.Infer(within(t, callTimeout), sequences("short", 11)); errs.From(err).Reason != errs.Invalid || !strings.Contains(err.Error(), "largest that was declared") {
		t.Errorf("a sequence that is longer than declared: %v", err)
	}
}
