package gomlx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/orrery-project/orrery/workerd/engine"
)

func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	whole, err := os.ReadFile(filepath.Join(modelDir, "fashion-mlp.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	images, err := filepath.Glob(filepath.Join(modelDir, "images", "*.png"))
	if err != nil || len(images) == 0 {
		t.Fatalf("no images: %v", err)
	}
	png, err := os.ReadFile(images[0])
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside.onnx")
	for path, content := range map[string][]byte{
		filepath.Join(dir, "empty.onnx"):     nil,
		filepath.Join(dir, "junk.onnx"):      []byte("it is not the model you are looking for"),
		filepath.Join(dir, "truncated.onnx"): whole[:len(whole)/2],
		filepath.Join(dir, "half.onnx"):      append(append([]byte{}, whole[:len(whole)/2]...), make([]byte, len(whole)/2)...),
		filepath.Join(dir, "image.onnx"):     png,
		filepath.Join(dir, "large.onnx"):     nil,
		outside:                              whole,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Truncate(filepath.Join(dir, "large.onnx"), maxFileBytes+1),
		os.Symlink(outside, filepath.Join(dir, "link.onnx")),
		os.Mkdir(filepath.Join(dir, "dir.onnx"), 0o700),
		syscall.Mkfifo(filepath.Join(dir, "pipe.onnx"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	e, root := newEngine(t, Options{}), openRoot(t, dir)
	for source, want := range map[string]string{
		"absent.onnx":    "copy it there",
		"empty.onnx":     "not an ONNX model",
		"junk.onnx":      "not an ONNX model",
		"truncated.onnx": "not an ONNX model",
		"half.onnx":      "half.onnx",
		"image.onnx":     "not an ONNX model",
		"large.onnx":     "the most is",
		"dir.onnx":       "not a regular file",
		"pipe.onnx":      "not a regular file",
		"link.onnx":      "below the model directory",
		"../" + filepath.Base(filepath.Dir(outside)) + "/outside.onnx": "below the model directory",
		"../x.onnx": "below the model directory",
		outside:     "below the model directory",
		"":          "",
	} {
		_, err := e.Load(t.Context(), root, source)
		if !errors.Is(err, engine.ErrBadSource) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v; want a bad source and %q", source, err, want)
		}
	}
}

func TestBadGraphs(t *testing.T) {
	x, y := value("input", "x", onnxFloat, -1, 2), value("output", "y", onnxFloat, -1, 2)
	identity := onnxNode("Identity", "y", "x")
	// A graph within a node.
	within := func(inner string) string {
		return fmt.Sprintf("node { op_type: \"If\" output: \"y\" input: \"x\" attribute { name: \"then_branch\" type: GRAPH g { %s } } }\n", inner)
	}
	constant := func(tensor string) string {
		return fmt.Sprintf("node { op_type: \"Constant\" output: \"k\" attribute { name: \"value\" type: TENSOR t { %s } } }\n", tensor)
	}
	weight := func(tensor string) string { return fmt.Sprintf("initializer { name: \"w\" %s }\n", tensor) }
	for what, c := range map[string]struct{ graph, want string }{
		"no graph":                 {"", "no graph"},
		"no inputs":                {onnxGraph(y, "initializer { name: \"x\" data_type: 1 dims: 1 float_data: 1 }", identity), "at least one"},
		"no outputs":               {onnxGraph(x, identity), "at least one"},
		"sequence as input":        {onnxGraph(`input { name: "x" type { sequence_type { } } }`, y, identity), "not a tensor"},
		"input of no type":         {onnxGraph(`input { name: "x" }`, y, identity), "not a tensor"},
		"input of no shape":        {onnxGraph(`input { name: "x" type { tensor_type { elem_type: 1 } } }`, y, identity), "no shape"},
		"strings":                  {onnxGraph(value("input", "x", 8, -1), y, identity), "STRING"},
		"complex output":           {onnxGraph(x, value("output", "y", 14, -1), identity), "COMPLEX64"},
		"type from the future":     {onnxGraph(value("input", "x", 99, -1), y, identity), "unknown type 99"},
		"operator of our own":      {onnxGraph(x, y, onnxNode("Levitate", "y", "x")), "Levitate"},
		"undefined output":         {onnxGraph(x, y), "compiled"},
		"undefined input":          {onnxGraph(x, y, onnxNode("Add", "y", "x", "z")), `reads "z"`},
		"cycle":                    {onnxGraph(x, y, onnxNode("Add", "y", "x", "z"), onnxNode("Identity", "z", "y")), `reads "z"`},
		"node reads itself":        {onnxGraph(x, y, onnxNode("Add", "y", "x", "y")), `reads "y"`},
		"wrong order":              {onnxGraph(x, y, onnxNode("Identity", "y", "z"), onnxNode("Identity", "z", "x")), "topological"},
		"two writers":              {onnxGraph(x, y, identity, identity), "already defined"},
		"cycle within a node":      {onnxGraph(x, y, within(onnxNode("Add", "p", "q", "x")+onnxNode("Identity", "q", "p"))), `reads "q"`},
		"inner reads its node":     {onnxGraph(x, y, within(onnxNode("Identity", "p", "y"))), `reads "y"`},
		"inner hides outer":        {onnxGraph(x, y, onnxNode("Identity", "z", "x"), within(onnxNode("Identity", "z", "z"))), "already defined"},
		"output of other shape":    {onnxGraph(x, value("output", "y", onnxFloat, -1, 3), identity), "declares"},
		"output of other type":     {onnxGraph(x, value("output", "y", onnxBool, -1, 2), identity), "declares"},
		"output without the batch": {onnxGraph(x, y, onnxNode("ReduceSum", "y", "x")), "declares"},
		"huge weight":              {onnxGraph(x, y, identity, weight("data_type: 1 dims: [1000000, 100000]")), "claims"},
		"huge raw weight":          {onnxGraph(x, y, identity, weight(`data_type: 1 dims: [1000000, 100000] raw_data: "abcd"`)), "claims"},
		"weight too large":         {onnxGraph(x, y, identity, weight("data_type: 1 dims: [10000000000, 10000000000]")), "elements"},
		"negative weight":          {onnxGraph(x, y, identity, weight("data_type: 1 dims: -4")), "negative"},
		"weight of strings":        {onnxGraph(x, y, identity, weight(`data_type: 8 dims: 1 string_data: "s"`)), "STRING"},
		"huge constant":            {onnxGraph(x, y, identity, constant("data_type: 1 dims: [1000000, 100000]")), "claims"},
		"huge inner weight":        {onnxGraph(x, y, within(weight("data_type: 1 dims: [1000000, 100000]"))), "claims"},
		"weight in a file": {onnxGraph(x, y, identity, weight(
			`data_type: 1 dims: 1 data_location: EXTERNAL external_data { key: "location" value: "../secret" }`)), "single file"},
		"sparse weight": {onnxGraph(x, y, identity, `sparse_initializer { dims: 4 }`), "sparse"},
		"functions":     {"functions { name: \"f\" }" + onnxGraph(x, y, identity), "functions"},
	} {
		_, err := newEngine(t, Options{}).Load(t.Context(), openRoot(t, onnxFile(t, c.graph)), "m.onnx")
		if !errors.Is(err, engine.ErrBadSource) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v; want a bad source and %q", what, err, c.want)
		}
	}
}

func TestTooManyNodesAreRefused(t *testing.T) {
	i := &inspector{nodes: maxNodes}
	kind := onnxFile(t, onnxGraph(value("input", "x", onnxFloat, -1), value("output", "y", onnxFloat, -1), onnxNode("Identity", "y", "x")))
	content, err := os.ReadFile(filepath.Join(kind, "m.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	model, err := unmarshal(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.graph(message(model, "graph"), &scope{names: make(map[string]bool)}); err == nil {
		t.Error("one node more than the limit is taken")
	}
}

func TestEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := newEngine(t, Options{})
	m := load(t, e, modelDir, "fashion-mlp.onnx")
	w := place(t, m)
	cancel()
	if _, err := e.Load(ctx, openRoot(t, modelDir), "fashion-mlp.onnx"); !errors.Is(err, context.Canceled) {
		t.Errorf("Load: %v", err)
	}
	if _, err := m.LoadWeights(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("LoadWeights: %v", err)
	}
	if _, err := w.Run(ctx, engine.Batch{Rows: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}
