package emulated

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/workerd/engine"
)

const table = "model,input_bytes,output_bytes,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms\n" +
	"full,4,16,100,8,2,3,7\n" +
	"gap,4,16,100,8,2,,6\n" +
	"sparse,,,,,1,,\n" +
	"tiny,2,4,12,,1,,\n" +
	"late,4,16,1,1,,3,\n" +
	"with # and space,4,16,1,1,1,,\n"

// directory makes a model directory with the files given as name, content, ….
func directory(t *testing.T, files ...string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func load(t *testing.T, options Options, root *os.Root, source string) engine.Model {
	t.Helper()
	e, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Load(t.Context(), root, source)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// onDevice loads a row of the table above onto device 0.
func onDevice(t *testing.T, options Options, name string) engine.Weights {
	t.Helper()
	w, err := load(t, options, directory(t, "p.csv", table), "p.csv#"+name).LoadWeights(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// batch makes an input for rows of width bytes, in which no two rows are equal.
func batch(rows, width int) engine.Batch {
	data := make([]byte, rows*width)
	for i := range data {
		data[i] = byte(i)
	}
	return engine.Batch{Rows: rows, Inputs: []tensor.Tensor{
		{Name: "input", Type: tensor.Uint8, Shape: []int64{int64(rows), int64(width)}, Data: data},
	}}
}

func commanded(name, value string) engine.Batch {
	b := batch(1, 4)
	b.Parameters = map[string]string{name: value, "unrelated": "x"}
	return b
}

func ms(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }

func TestSourcesAreRecognised(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]bool{
		"profiles.csv#a": true, "dir/p.csv#x/y #z": true, "profiles.csv": false, "a.onnx": false, "a#b.csv": false,
	} {
		if e.Accepts(source) != want {
			t.Errorf("Accepts(%q) = %v", source, !want)
		}
	}
}

func TestOptionsOutOfRangeAreRefused(t *testing.T) {
	for _, options := range []Options{
		{Jitter: -0.1}, {Jitter: 1.1}, {Jitter: math.NaN()},
		{FailureRate: -0.1}, {FailureRate: 1.1}, {FailureRate: math.NaN()},
	} {
		if _, err := New(options); err == nil {
			t.Errorf("New(%+v) succeeded", options)
		}
	}
}

func TestInfo(t *testing.T) {
	root := directory(t, "p.csv", table)
	for name, want := range map[string]engine.Info{
		"full":             info(4, 16, 100e6, 1, 2, 4),
		"gap":              info(4, 16, 100e6, 1, 4),
		"sparse":           info(1024, 64, 16<<20, 1),
		"with # and space": info(4, 16, 1e6, 1),
	} {
		got := load(t, Options{}, root, "p.csv#"+name).Info()
		if len(got.Digest) != 64 {
			t.Errorf("%s: digest %q", name, got.Digest)
		}
		got.Digest = ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func info(in, out, weightsBytes int64, rows ...int) engine.Info {
	return engine.Info{
		Signature: tensor.Signature{
			Inputs:  []tensor.Spec{{Name: "input", Type: tensor.Uint8, Shape: []int64{-1, in}}},
			Outputs: []tensor.Spec{{Name: "output", Type: tensor.Uint8, Shape: []int64{-1, out}}},
			Batched: true,
		},
		WeightsBytes: weightsBytes,
		HostBytes:    weightsBytes,
		ProfileRows:  rows,
		Emulated:     true,
	}
}

func TestDigestIsOfTheRow(t *testing.T) {
	root := directory(t,
		"a.csv", "model,b1_ms,b2_ms\nx,1,\nz,1,\n",
		"b.csv", "b2_ms,b4_ms,model,b1_ms\n9,9,other,9\n,,x,1\n",
		"c.csv", "model,b1_ms,b2_ms\nx,,1\n")
	digest := func(source string) string { return load(t, Options{}, root, source).Info().Digest }
	if digest("a.csv#x") != digest("b.csv#x") {
		t.Error("equal rows of two tables have different digests")
	}
	if digest("a.csv#x") == digest("c.csv#x") || digest("a.csv#x") == digest("a.csv#z") {
		t.Error("different rows have equal digests")
	}
}

func TestTimesAreThoseOfTheProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := directory(t, "p.csv", table)
		for _, c := range []struct {
			name string
			load time.Duration
			runs map[int]time.Duration
		}{
			{"full", ms(8), map[int]time.Duration{1: ms(2), 2: ms(3), 3: ms(5), 4: ms(7)}},
			{"gap", ms(8), map[int]time.Duration{1: ms(2), 2: ms(2 + 4.0/3), 3: ms(2 + 8.0/3), 4: ms(6)}},
			{"late", ms(1), map[int]time.Duration{1: ms(3), 2: ms(3)}},
			{"tiny", ms(1), nil}, // 12 MB at 12 GB/s
		} {
			m := load(t, Options{}, root, "p.csv#"+c.name)
			start := time.Now()
			w, err := m.LoadWeights(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != c.load {
				t.Errorf("%s: the weights took %v, want %v", c.name, took, c.load)
			}
			for rows, want := range c.runs {
				start := time.Now()
				if _, err := w.Run(t.Context(), batch(rows, 4)); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); (took - want).Abs() > 1 {
					t.Errorf("%s: %d rows took %v, want %v", c.name, rows, took, want)
				}
			}
		}
	})
}

func TestOutputTellsTheRowsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := batch(3, 4)
		got, err := onDevice(t, Options{}, "full").Run(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		want := tensor.Tensor{Name: "output", Type: tensor.Uint8, Shape: []int64{3, 16}, Data: make([]byte, 48)}
		for row := range 3 {
			hash := fnv.New64a()
			hash.Write(b.Inputs[0].Data[row*4 : row*4+4])
			binary.LittleEndian.PutUint64(want.Data[row*16:], hash.Sum64())
		}
		if diff := cmp.Diff([]tensor.Tensor{want}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		got, err = onDevice(t, Options{}, "tiny").Run(t.Context(), batch(1, 2))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got[0].Data, []byte{0, 0, 0, 0}) {
			t.Errorf("an output without room for a hash is %v", got[0].Data)
		}
	})
}

func TestContextEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := load(t, Options{}, directory(t, "p.csv", table), "p.csv#full")
		w, err := m.LoadWeights(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for what, act := range map[string]func(context.Context) error{
			"LoadWeights": func(ctx context.Context) error { _, err := m.LoadWeights(ctx, 0); return err },
			"Run":         func(ctx context.Context) error { _, err := w.Run(ctx, batch(1, 4)); return err },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), ms(1))
			start := time.Now()
			if err := act(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
			if took := time.Since(start); took != ms(1) {
				t.Errorf("%s returned after %v", what, took)
			}
			cancel()
		}
	})
}

// times runs a batch of one row n times on the device.
func times(t *testing.T, m engine.Model, device, n int) []time.Duration {
	t.Helper()
	w, err := m.LoadWeights(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		if _, err := w.Run(t.Context(), batch(1, 4)); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(start)
	}
	return took
}

func TestASlowDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := load(t, Options{Slowdown: 2.5}, directory(t, "p.csv", table), "p.csv#full")
		if took := times(t, m, 0, 3); slices.Min(took) != ms(5) || slices.Max(took) != ms(5) {
			t.Errorf("runs of 2 ms took %v", took)
		}
	})
	for _, wrong := range []float64{-1, math.NaN(), math.Inf(1)} {
		if _, err := New(Options{Slowdown: wrong}); err == nil {
			t.Errorf("a slowdown of %v is no error", wrong)
		}
	}
}

func TestJitterIsBoundedAndRepeatable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := directory(t, "p.csv", table)
		fresh := func(seed uint64) engine.Model {
			return load(t, Options{Jitter: 0.25, Seed: seed}, root, "p.csv#full")
		}
		m := fresh(1)
		took := times(t, m, 0, 2000)
		low, high := slices.Min(took), slices.Max(took)
		if low < ms(1.5) || high > ms(2.5) {
			t.Errorf("times from %v to %v are not within 25%% of 2 ms", low, high)
		}
		if low > ms(1.51) || high < ms(2.49) {
			t.Errorf("times from %v to %v do not use the whole range", low, high)
		}
		if !slices.Equal(took, times(t, fresh(1), 0, 2000)) {
			t.Error("the same seed gave other times")
		}
		for what, other := range map[string][]time.Duration{
			"another seed":   times(t, fresh(2), 0, 10),
			"another device": times(t, fresh(1), 1, 10),
			"a second load":  times(t, m, 0, 10),
		} {
			if slices.Equal(took[:10], other) {
				t.Errorf("%s gave the same times", what)
			}
		}
	})
}

func TestFailureRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const runs = 4000
		for rate, want := range map[float64][2]int{0: {0, 0}, 0.1: {320, 480}, 1: {runs, runs}} {
			w := onDevice(t, Options{FailureRate: rate, Seed: 7}, "full")
			failed := 0
			for range runs {
				start := time.Now()
				_, err := w.Run(t.Context(), batch(1, 4))
				if took := time.Since(start); took != ms(2) {
					t.Fatalf("a run took %v, failed or not it should take 2 ms", took)
				}
				switch {
				case errors.Is(err, ErrEmulatedFailure):
					failed++
				case err != nil:
					t.Fatal(err)
				}
			}
			if failed < want[0] || failed > want[1] {
				t.Errorf("rate %v: %d of %d runs failed, want %v", rate, failed, runs, want)
			}
		}
	})
}

func TestCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crashes := 0
		w := onDevice(t, Options{AllowCommands: true, Crash: func() { crashes++ }}, "full")

		start := time.Now()
		_, err := w.Run(t.Context(), commanded(FailParameter, "out of memory"))
		if !errors.Is(err, ErrEmulatedFailure) || !strings.Contains(err.Error(), "out of memory") {
			t.Errorf("fail: %v", err)
		}
		if took := time.Since(start); took != ms(2) {
			t.Errorf("the failed run took %v", took)
		}

		start = time.Now()
		if _, err := w.Run(t.Context(), commanded(DelayParameter, "30ms")); err != nil {
			t.Errorf("delay: %v", err)
		}
		if took := time.Since(start); took != ms(32) {
			t.Errorf("the delayed run took %v", took)
		}
		for _, value := range []string{"soon", "-1s", ""} {
			if _, err := w.Run(t.Context(), commanded(DelayParameter, value)); !errors.Is(err, engine.ErrInvalidInput) {
				t.Errorf("delay %q: %v", value, err)
			}
		}

		if _, err := w.Run(t.Context(), commanded(CrashParameter, "false")); err != nil || crashes != 0 {
			t.Errorf("crash false: %v, %d crashes", err, crashes)
		}
		if _, err := w.Run(t.Context(), commanded(CrashParameter, "true")); err == nil || crashes != 1 {
			t.Errorf("crash true: %v, %d crashes", err, crashes)
		}
	})
}

func TestCommandsNeedThePermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := onDevice(t, Options{Crash: func() { t.Error("crashed without permission") }}, "full")
		for name, value := range map[string]string{FailParameter: "x", CrashParameter: "true", DelayParameter: "1s"} {
			began := time.Now()
			if _, err := w.Run(t.Context(), commanded(name, value)); err != nil || time.Since(began) >= time.Second {
				t.Errorf("%s was obeyed without permission: %v after %v", name, err, time.Since(began))
			}
		}
	})
}

func TestInputsThatDoNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := onDevice(t, Options{}, "full")
		for what, change := range map[string]func(*engine.Batch){
			"no rows":       func(b *engine.Batch) { b.Rows = 0 },
			"too many rows": func(b *engine.Batch) { *b = batch(5, 4) },
			"no input":      func(b *engine.Batch) { b.Inputs = nil },
			"two inputs":    func(b *engine.Batch) { b.Inputs = append(b.Inputs, b.Inputs[0]) },
			"other type":    func(b *engine.Batch) { b.Inputs[0].Type = tensor.Int8 },
			"other shape":   func(b *engine.Batch) { b.Inputs[0].Shape = []int64{4, 2} },
			"short data":    func(b *engine.Batch) { b.Inputs[0].Data = b.Inputs[0].Data[1:] },
		} {
			b := batch(2, 4)
			change(&b)
			if _, err := w.Run(t.Context(), b); !errors.Is(err, engine.ErrInvalidInput) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestBadSourcesSayWhatToDo(t *testing.T) {
	header := "model,input_bytes,weights_MB,b1_ms\n"
	root := directory(t, "p.csv", table, "empty.csv", "", "headless.csv", "1,2\n",
		"untimed.csv", "model,device\nx,y\n", "ragged.csv", header+"x,1\n", "rowless.csv", header,
		"word.csv", header+"a,1,1,1\nx,1,1,fast\n", "nan.csv", header+"x,1,NaN,1\n", "minus.csv", header+"x,1,1,-3\n",
		"huge.csv", header+"x,1,1e300,1\n", "half.csv", header+"x,1.5,1,1\n", "blank.csv", header+"x,1,1,\n",
		"twice.csv", header+"x,1,1,1\nx,1,1,2\n", "columns.csv", "model,b1_ms,b1_ms\nx,1,1\n")
	outside := filepath.Join(t.TempDir(), "outside.csv")
	if err := os.WriteFile(outside, []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root.Name(), "link.csv")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root.Name(), "dir.csv"), 0o700); err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"p.csv#ful":                  `"full"`,
		"p.csv#Gap2":                 `near names: "gap"`,
		"p.csv#":                     "profiles.csv#row",
		"p.csv":                      "profiles.csv#row",
		"absent.csv#x":               "copy it there",
		"../p.csv#full":              "below the model directory",
		outside + "#full":            "below the model directory",
		"link.csv#full":              "below the model directory",
		"dir.csv#x":                  "not a regular file",
		"empty.csv#x":                "is empty",
		"headless.csv#x":             `lacks the column "model"`,
		"untimed.csv#x":              "b1_ms",
		"ragged.csv#x":               "line 2",
		"rowless.csv#x":              "no rows",
		"word.csv#x":                 `line 3, column b1_ms: "fast"`,
		"nan.csv#x":                  "line 2, column weights_MB",
		"minus.csv#x":                `column b1_ms: "-3"`,
		"huge.csv#x":                 "column weights_MB",
		"half.csv#x":                 "whole number",
		"blank.csv#x":                "no execution time",
		"twice.csv#x":                "second row",
		"columns.csv#x":              "two columns",
		"p.csv#with # and space and": `"with # and space"`,
	} {
		_, err := e.Load(t.Context(), root, source)
		if !errors.Is(err, engine.ErrBadSource) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v; want a bad source and %q", source, err, want)
		}
	}
}

func TestOversizedTableIsRefused(t *testing.T) {
	root := directory(t, "p.csv", table)
	if err := os.Truncate(filepath.Join(root.Name(), "p.csv"), maxTableBytes+1); err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Load(t.Context(), root, "p.csv#full"); !errors.Is(err, engine.ErrBadSource) {
		t.Errorf("got %v", err)
	}
}

// The published profiles must all be usable: the demo is made of them.
func TestPublishedProfiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, err := os.OpenRoot("../../../models")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		for name, want := range map[string]struct {
			b16   time.Duration
			bytes int64
		}{
			"resnet50_v2":                          {ms(21.729), 102_300_000},
			"resnet50_v2(check_model)":             {ms(17.33), 102_160_000},
			"resnet18_v2":                          {ms(11.855), 16 << 20},
			"resnet152_v2":                         {ms(61.552), 16 << 20},
			"caffe/vgg16/1":                        {ms(54.158), 949_900_000},
			"caffe/vgg_face/1":                     {ms(54.176), 977_200_000},
			"caffe/vgg_s/1":                        {ms(14.852), 645_900_000},
			"darknet/yolo9000/1/480x480":           {ms(311.602), 1_069_500_000},
			"symphony-stress-default(resnet-like)": {ms(22.516), 16 << 20},
			"symphony-example-resnet_1":            {ms(22.389), 16 << 20},
		} {
			m := load(t, Options{}, root, "profiles.csv#"+name)
			if got := m.Info().WeightsBytes; got != want.bytes {
				t.Errorf("%s has %d bytes of weights, want %d", name, got, want.bytes)
			}
			w, err := m.LoadWeights(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if _, err := w.Run(t.Context(), batch(16, int(m.Info().Signature.Inputs[0].Shape[1]))); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != want.b16 {
				t.Errorf("%s: 16 rows took %v, want %v", name, took, want.b16)
			}
		}
	})
}
