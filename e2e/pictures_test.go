package e2e

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// The models that come with Orrery.
const (
	mlp = "fashion-mlp"
	cnn = "fashion-cnn"
)

// classes is the number of scores that both models give for a picture.
const classes = 10

// picture is a test image.
type picture struct {
	models.Image
	// raw is its pixels as they are sent.
	raw []byte
}

// pictures are all test images.
func pictures(t *testing.T) []picture {
	t.Helper()
	expected, err := models.LoadExpected(modelDir)
	if err != nil {
		t.Fatal(err)
	}
	var all []picture
	for _, image := range expected.Images {
		pixels, err := models.LoadImage(filepath.Join(modelDir, "images", image.File))
		if err != nil {
			t.Fatal(err)
		}
		p := picture{Image: image}
		for _, grey := range pixels {
			p.raw = binary.LittleEndian.AppendUint32(p.raw, math.Float32bits(grey))
		}
		all = append(all, p)
	}
	return all
}

// request asks a model about some pictures.
func request(model string, of ...picture) *inferencepb.ModelInferRequest {
	var raw []byte
	for _, p := range of {
		raw = append(raw, p.raw...)
	}
	return &inferencepb.ModelInferRequest{
		ModelName: model,
		Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{{
			Name: "image", Datatype: "FP32", Shape: []int64{int64(len(of)), models.Side, models.Side},
		}},
		RawInputContents: [][]byte{raw},
	}
}

// wrongAnswer is an answer that differs from the training run's.
type wrongAnswer struct{ message string }

func (w wrongAnswer) Error() string { return w.message }

// compare says whether an answer about some pictures is what the training run
// said of them.
func compare(response *inferencepb.ModelInferResponse, model string, of ...picture) error {
	if response.ModelName != model || len(response.RawOutputContents) != 1 || len(response.RawOutputContents[0]) != len(of)*classes*4 {
		return wrongAnswer{fmt.Sprintf("the answer about %d pictures is %v", len(of), response)}
	}
	raw := response.RawOutputContents[0]
	for i, p := range of {
		best, top := 0, float32(math.Inf(-1))
		for class := range classes {
			score := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*(i*classes+class):]))
			if score > top {
				best, top = class, score
			}
		}
		if best != p.Predictions[model] {
			return wrongAnswer{fmt.Sprintf("%s takes %s for class %d; in the training run it was %d", model, p.File, best, p.Predictions[model])}
		}
	}
	return nil
}
