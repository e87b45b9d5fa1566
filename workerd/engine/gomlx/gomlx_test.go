package gomlx

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/workerd/engine"
)

const modelDir = "../../../models"

// trained are the models that the repository trains, by the names that
// expected.json knows them by.
var trained = []string{"fashion-mlp", "fashion-cnn"}

func newEngine(t testing.TB, options Options) *Engine {
	t.Helper()
	e, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func load(t testing.TB, e *Engine, dir, source string) engine.Model {
	t.Helper()
	m, err := e.Load(t.Context(), openRoot(t, dir), source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func place(t testing.TB, m engine.Model) engine.Weights {
	t.Helper()
	w, err := m.LoadWeights(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Evict(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// floats makes a tensor of FP32.
func floats(name string, shape []int64, values ...float32) tensor.Tensor {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return tensor.Tensor{Name: name, Type: tensor.FP32, Shape: shape, Data: data}
}

// values reads a tensor of FP32.
func values(t tensor.Tensor) []float32 {
	v := make([]float32, len(t.Data)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return v
}

// images makes a batch of test images, starting over after the last.
func images(t testing.TB, all []models.Image, first, rows int) engine.Batch {
	t.Helper()
	var pixels []float32
	for i := range rows {
		p, err := models.LoadImage(filepath.Join(modelDir, "images", all[(first+i)%len(all)].File))
		if err != nil {
			t.Fatal(err)
		}
		pixels = append(pixels, p...)
	}
	shape := []int64{int64(rows), models.Side, models.Side}
	return engine.Batch{Rows: rows, Inputs: []tensor.Tensor{floats("image", shape, pixels...)}}
}

func expected(t testing.TB) []models.Image {
	t.Helper()
	e, err := models.LoadExpected(modelDir)
	if err != nil {
		t.Fatal(err)
	}
	return e.Images
}

func argmax(values []float32) int {
	best := 0
	for i, v := range values {
		if v > values[best] {
			best = i
		}
	}
	return best
}

func TestTrainedModelsPredictAsTheyWereTrained(t *testing.T) {
	all := expected(t)
	for _, name := range trained {
		t.Run(name, func(t *testing.T) {
			w := place(t, load(t, newEngine(t, Options{}), modelDir, name+".onnx"))
			for _, rows := range []int{1, 3, 16} {
				for first := 0; first < len(all); first += rows {
					outputs, err := w.Run(t.Context(), images(t, all, first, rows))
					if err != nil {
						t.Fatal(err)
					}
					if len(outputs) != 1 || outputs[0].Name != "logits" || !slices.Equal(outputs[0].Shape, []int64{int64(rows), 10}) {
						t.Fatalf("%d rows gave %+v", rows, outputs)
					}
					logits := values(outputs[0])
					for i := range rows {
						image := all[(first+i)%len(all)]
						if got, want := argmax(logits[10*i:10*i+10]), image.Predictions[name]; got != want {
							t.Errorf("%s in row %d of %d: class %d, want %d", image.File, i, rows, got, want)
						}
					}
				}
			}
		})
	}
}

// A row's result must not depend on what else is in the batch, nor on what
// the padding rows held in an earlier run.
func TestRowsAreIndependent(t *testing.T) {
	all := expected(t)
	w := place(t, load(t, newEngine(t, Options{}), modelDir, "fashion-mlp.onnx"))
	logits := func(first, rows int) []float32 {
		outputs, err := w.Run(t.Context(), images(t, all, first, rows))
		if err != nil {
			t.Fatal(err)
		}
		return values(outputs[0])
	}
	together := logits(0, 4)
	alone := logits(1, 1)
	padded := logits(0, 3)
	for i := range 10 {
		if math.Abs(float64(together[10+i]-alone[i])) > 1e-3 || math.Abs(float64(together[10+i]-padded[10+i])) > 1e-3 {
			t.Errorf("logit %d is %v with others, %v alone, %v padded", i, together[10+i], alone[i], padded[10+i])
		}
	}
}

func TestInfoOfTrainedModel(t *testing.T) {
	for _, name := range trained {
		file := filepath.Join(modelDir, name+".onnx")
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		size := int64(len(content))
		got := load(t, newEngine(t, Options{}), modelDir, name+".onnx").Info()
		// Both files are little more than their weights.
		if got.WeightsBytes < size*9/10 || got.WeightsBytes > size {
			t.Errorf("%s: %d bytes of weights in a file of %d", name, got.WeightsBytes, size)
		}
		want := engine.Info{
			Digest: fmt.Sprintf("%x", sha256.Sum256(content)),
			Signature: tensor.Signature{
				Inputs:  []tensor.Spec{{Name: "image", Type: tensor.FP32, Shape: []int64{-1, 28, 28}}},
				Outputs: []tensor.Spec{{Name: "logits", Type: tensor.FP32, Shape: []int64{-1, 10}}},
				Batched: true,
			},
			WeightsBytes: got.WeightsBytes,
			HostBytes:    got.WeightsBytes + size,
			ProfileRows:  []int{1, 2, 4, 8, 16},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, rows := range [][]int{{0}, {-1, 2}, {2, 1}, {1, 1}} {
		if _, err := New(Options{BatchRows: rows}); err == nil {
			t.Errorf("batch rows %v are taken", rows)
		}
	}
	info := load(t, newEngine(t, Options{BatchRows: []int{3, 5}}), modelDir, "fashion-mlp.onnx").Info()
	if !slices.Equal(info.ProfileRows, []int{3, 5}) {
		t.Errorf("profile rows are %v", info.ProfileRows)
	}
}

func TestSourcesAreRecognised(t *testing.T) {
	e := newEngine(t, Options{})
	for source, want := range map[string]bool{"a.onnx": true, "dir/a.onnx": true, "a.onnx.txt": false, "p.csv#a": false} {
		if e.Accepts(source) != want {
			t.Errorf("Accepts(%q) = %v", source, !want)
		}
	}
}

// The version is part of the key of a profile: it must follow go.mod.
func TestVersionFollowsTheLibraries(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "github.com/gomlx/gomlx" && fields[0] != "github.com/gomlx/onnx-gomlx" {
			continue
		}
		found++
		if want := fmt.Sprintf("%s %s", filepath.Base(fields[0]), fields[1]); !strings.Contains(newEngine(t, Options{}).Version(), want) {
			t.Errorf("version %q lacks %q", version, want)
		}
	}
	if found != 2 {
		t.Errorf("%d of 2 libraries are in go.mod", found)
	}
}

func BenchmarkRun(b *testing.B) {
	all := expected(b)
	for _, name := range trained {
		m := load(b, newEngine(b, Options{}), modelDir, name+".onnx")
		w := place(b, m)
		for _, rows := range m.Info().ProfileRows {
			b.Run(fmt.Sprintf("%s/rows=%d", name, rows), func(b *testing.B) {
				batch := images(b, all, 0, rows)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := w.Run(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkLoadWeights(b *testing.B) {
	for _, name := range trained {
		b.Run(name, func(b *testing.B) {
			m := load(b, newEngine(b, Options{}), modelDir, name+".onnx")
			for b.Loop() {
				w, err := m.LoadWeights(b.Context(), 0)
				if err != nil {
					b.Fatal(err)
				}
				if err := w.Evict(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
