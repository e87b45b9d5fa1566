package gomlx

import (
	"runtime"
	"sync"
	"testing"

	"github.com/orrery-project/orrery/workerd/engine"
)

// heap is what is live.
func heap() int64 {
	runtime.GC()
	runtime.GC() // sync.Pool keeps what it holds for one more collection
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func TestRunsDoNotGrowTheHeap(t *testing.T) {
	all := expected(t)
	w := place(t, load(t, newEngine(t, Options{}), modelDir, "fashion-mlp.onnx"))
	batches := []engine.Batch{images(t, all, 0, 1), images(t, all, 0, 3), images(t, all, 0, 16)}
	rounds := func(n int) {
		for range n {
			for _, batch := range batches {
				if _, err := w.Run(t.Context(), batch); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	rounds(10)
	before := heap()
	rounds(1000)
	// 3000 outputs alone are 800 kB, the padded inputs 63 MB.
	if grown := heap() - before; grown > 200<<10 {
		t.Errorf("3000 runs left %d bytes behind", grown)
	}
}

func TestEvictGivesTheMemoryBack(t *testing.T) {
	m := load(t, newEngine(t, Options{}), modelDir, "fashion-mlp.onnx")
	cycle := func() {
		w, err := m.LoadWeights(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Evict(); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	before := heap()
	for range 5 {
		cycle()
	}
	if grown := heap() - before; grown > m.Info().WeightsBytes/2 {
		t.Errorf("five loads and evictions left %d bytes behind; the weights have %d", grown, m.Info().WeightsBytes)
	}
}

// Devices load, run and evict the same model at the same time.
func TestDevicesAreIndependent(t *testing.T) {
	all := expected(t)
	m := load(t, newEngine(t, Options{BatchRows: []int{1, 2}}), modelDir, "fashion-mlp.onnx")
	batch := images(t, all, 0, 2)
	var devices sync.WaitGroup
	for device := range 3 {
		devices.Go(func() {
			for range 2 {
				w, err := m.LoadWeights(t.Context(), device)
				if err != nil {
					t.Error(err)
					return
				}
				for range 20 {
					outputs, err := w.Run(t.Context(), batch)
					if err != nil {
						t.Error(err)
						continue
					}
					for i, image := range all[:2] {
						if got, want := argmax(values(outputs[0])[10*i:10*i+10]), image.Predictions["fashion-mlp"]; got != want {
							t.Errorf("device %d, %s: class %d, want %d", device, image.File, got, want)
						}
					}
				}
				if err := w.Evict(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	devices.Wait()
}

// GoMLX reports by panicking, and so do the bugs in it.
func TestPanicsAreErrors(t *testing.T) {
	w := place(t, load(t, newEngine(t, Options{}), onnxFile(t, sum(-1, 2)), "m.onnx")).(*weights)
	w.programs[0].arguments[0] = nil
	batch := engine.Batch{Rows: 1}
	for range 2 {
		batch.Inputs = append(batch.Inputs, floats("", []int64{1, 2}, 1, 2))
	}
	outputs, err := w.Run(t.Context(), batch)
	if err == nil || outputs != nil {
		t.Errorf("got %v, %v", outputs, err)
	}
}
