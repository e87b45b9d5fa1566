//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"path/filepath"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

const (
	// pictureBytes are those of one row: FP32 pixels.
	pictureBytes = 4 * models.Side * models.Side
	classes      = 10
)

// picture is a row that a request may have.
type picture struct {
	pixels []byte
	class  int // what the model answers
}

func readPictures(dir, model string) (all []picture, err error) {
	expected, err := models.LoadExpected(dir)
	if err != nil {
		return nil, err
	}
	for _, image := range expected.Images {
		class, ok := image.Predictions[model]
		if !ok {
			return nil, fmt.Errorf("-model %s: it is not one whose answers are known", model)
		}
		pixels, err := models.LoadImage(filepath.Join(dir, "images", image.File))
		if err != nil {
			return nil, err
		}
		p := picture{class: class}
		for _, x := range pixels {
			p.pixels = binary.LittleEndian.AppendUint32(p.pixels, math.Float32bits(x))
		}
		all = append(all, p)
	}
	return all, nil
}

// request asks a model about some pictures.
func (t target) request(rows []picture) *inferencepb.ModelInferRequest {
	tensor := &inferencepb.ModelInferRequest_InferInputTensor{Name: "image", Datatype: "FP32", Shape: []int64{int64(len(rows)), models.Side, models.Side}}
	if t.emulated {
		tensor = &inferencepb.ModelInferRequest_InferInputTensor{Name: "input", Datatype: "UINT8", Shape: []int64{int64(len(rows)), pictureBytes}}
	}
	var data []byte
	for _, p := range rows {
		data = append(data, p.pixels...)
	}
	return &inferencepb.ModelInferRequest{
		ModelName: t.model, Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{tensor}, RawInputContents: [][]byte{data},
	}
}

// check compares an answer with what the model makes of the rows.
func (t target) check(answer *inferencepb.ModelInferResponse, rows []picture) error {
	if len(answer.RawOutputContents) != 1 || len(answer.RawOutputContents[0]) != 4*classes*len(rows) {
		return fmt.Errorf("%w: %d outputs", bench.ErrWrong, len(answer.RawOutputContents))
	}
	for i, p := range rows {
		row := answer.RawOutputContents[0][4*classes*i:][:4*classes]
		if t.emulated {
			want := fnv.New64a()
			want.Write(p.pixels)
			if binary.LittleEndian.Uint64(row) != want.Sum64() {
				return fmt.Errorf("%w: row %d", bench.ErrWrong, i)
			}
			continue
		}
		if got := largest(row); got != p.class {
			return fmt.Errorf("%w: row %d is of class %d, not %d", bench.ErrWrong, i, got, p.class)
		}
	}
	return nil
}

// largest is the index of the largest of some FP32.
func largest(row []byte) (at int) {
	best := float32(math.Inf(-1))
	for i := range len(row) / 4 {
		if x := math.Float32frombits(binary.LittleEndian.Uint32(row[4*i:])); x > best {
			best, at = x, i
		}
	}
	return at
}
