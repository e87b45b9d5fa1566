package gomlx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/workerd/engine"
)

// onnxFile writes an ONNX graph, given as protobuf text, to a directory of its
// own as m.onnx.
func onnxFile(t testing.TB, graph string) (dir string) {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(modelMessage)
	if err != nil {
		t.Fatal(err)
	}
	model := kind.New().Interface()
	if err := prototext.Unmarshal([]byte("ir_version: 8 opset_import { version: 17 }\n"+graph), model); err != nil {
		t.Fatalf("%v in:\n%s", err, graph)
	}
	content, err := proto.Marshal(model)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "m.onnx"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// value is an input or output, with -1 for a variable dimension. The type is
// the number of onnx.TensorProto.DataType.
func value(field, name string, onnxType int, dims ...int) string {
	var shape strings.Builder
	for axis, n := range dims {
		if n < 0 {
			fmt.Fprintf(&shape, "dim { dim_param: %q } ", fmt.Sprintf("%s%d", name, axis))
		} else {
			fmt.Fprintf(&shape, "dim { dim_value: %d } ", n)
		}
	}
	return fmt.Sprintf("%s { name: %q type { tensor_type { elem_type: %d shape { %s} } } }\n", field, name, onnxType, shape.String())
}

func onnxNode(op, output string, inputs ...string) string {
	return fmt.Sprintf("node { op_type: %q output: %q input: [%s] }\n", op, output, `"`+strings.Join(inputs, `", "`)+`"`)
}

func onnxGraph(parts ...string) string { return "graph {\n" + strings.Join(parts, "") + "}" }

const (
	onnxFloat = 1
	onnxBool  = 9
)

func run(t testing.TB, w engine.Weights, rows int, inputs ...tensor.Tensor) []tensor.Tensor {
	t.Helper()
	outputs, err := w.Run(t.Context(), engine.Batch{Rows: rows, Inputs: inputs})
	if err != nil {
		t.Fatal(err)
	}
	return outputs
}

func TestMatrixProductsAreRight(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	numbers := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = random.Float32() - 0.5
		}
		return v
	}
	for _, size := range [][3]int{{1, 1, 1}, {1, 7, 3}, {2, 300, 5}, {3, 64, 64}, {4, 257, 129}, {5, 1000, 2}, {16, 31, 200}, {13, 700, 33}} {
		rows, inner, columns := size[0], size[1], size[2]
		a, b := numbers(rows*inner), numbers(inner*columns)
		dir := onnxFile(t, onnxGraph(onnxNode("MatMul", "c", "a", "b"),
			value("input", "a", onnxFloat, -1, inner), value("output", "c", onnxFloat, -1, columns),
			fmt.Sprintf("initializer { name: \"b\" data_type: 1 dims: [%d, %d] float_data: %s }\n",
				inner, columns, strings.ReplaceAll(fmt.Sprint(b), " ", ", "))))
		w := place(t, load(t, newEngine(t, Options{}), dir, "m.onnx"))
		got := values(run(t, w, rows, floats("a", []int64{int64(rows), int64(inner)}, a...))[0])
		for i := range rows {
			for j := range columns {
				want := 0.0
				for k := range inner {
					want += float64(a[i*inner+k]) * float64(b[k*columns+j])
				}
				if math.Abs(float64(got[i*columns+j])-want) > 1e-4 {
					t.Fatalf("%v: element %d,%d is %v, want %v", size, i, j, got[i*columns+j], want)
				}
			}
		}
	}
}

// Every type must arrive and leave as the bytes that it came as.
func TestAllTypesKeepTheirBytes(t *testing.T) {
	for onnxType := range int32(30) {
		elements, ok := typeOf(onnxType)
		if !ok {
			continue
		}
		if !elements.Known() || dtypeOf(elements).Size() != elements.Size() {
			t.Errorf("ONNX type %d is %s of %d bytes, in GoMLX %s", onnxType, elements, elements.Size(), dtypeOf(elements))
		}
		dir := onnxFile(t, onnxGraph(onnxNode("Identity", "y", "x"),
			value("input", "x", int(onnxType), -1, 2), value("output", "y", int(onnxType), -1, 2)))
		w := place(t, load(t, newEngine(t, Options{}), dir, "m.onnx"))
		data := make([]byte, 3*2*elements.Size())
		for i := range data {
			data[i] = byte(i % 2)
		}
		in := tensor.Tensor{Name: "x", Type: elements, Shape: []int64{3, 2}, Data: data}
		got := run(t, w, 3, in)[0]
		if got.Name != "y" || got.Type != elements || !slices.Equal(got.Shape, in.Shape) || !slices.Equal(got.Data, data) {
			t.Errorf("%s came back as %+v, want %v", elements, got, data)
		}
	}
}

func TestAnyByteButZeroIsTrue(t *testing.T) {
	dir := onnxFile(t, onnxGraph(onnxNode("Not", "y", "x"), value("input", "x", onnxBool, -1), value("output", "y", onnxBool, -1)))
	w := place(t, load(t, newEngine(t, Options{}), dir, "m.onnx"))
	got := run(t, w, 3, tensor.Tensor{Name: "x", Type: tensor.Bool, Shape: []int64{3}, Data: []byte{0, 1, 200}})
	if !slices.Equal(got[0].Data, []byte{1, 0, 0}) {
		t.Errorf("not (0, 1, 200) is %v", got[0].Data)
	}
}

// sum adds two inputs of the shape.
func sum(dims ...int) string {
	return onnxGraph(onnxNode("Add", "c", "a", "b"),
		value("input", "a", onnxFloat, dims...), value("input", "b", onnxFloat, dims...), value("output", "c", onnxFloat, dims...))
}

func TestModelWithoutBatchDimension(t *testing.T) {
	m := load(t, newEngine(t, Options{}), onnxFile(t, sum(2, 2)), "m.onnx")
	if info := m.Info(); info.Signature.Batched || !slices.Equal(info.ProfileRows, []int{1}) {
		t.Errorf("info is %+v", info)
	}
	w, shape := place(t, m), []int64{2, 2}
	got := run(t, w, 1, floats("a", shape, 1, 2, 3, 4), floats("b", shape, 10, 20, 30, 40))[0]
	if !slices.Equal(values(got), []float32{11, 22, 33, 44}) || !slices.Equal(got.Shape, shape) {
		t.Errorf("got %v %v", got.Shape, values(got))
	}
	_, err := w.Run(t.Context(), engine.Batch{Rows: 2, Inputs: []tensor.Tensor{
		floats("a", shape, 1, 2, 3, 4), floats("b", shape, 1, 2, 3, 4)}})
	if !errors.Is(err, engine.ErrInvalidInput) {
		t.Errorf("two rows: %v", err)
	}
}

func TestScalars(t *testing.T) {
	m := load(t, newEngine(t, Options{}), onnxFile(t, sum()), "m.onnx")
	got := run(t, place(t, m), 1, floats("a", []int64{}, 1), floats("b", []int64{}, 2))[0]
	if m.Info().Signature.Batched || !slices.Equal(values(got), []float32{3}) || len(got.Shape) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestVariableShapesCompileWhenTheyCome(t *testing.T) {
	m := load(t, newEngine(t, Options{BatchRows: []int{2, 4}}), onnxFile(t, sum(-1, -1)), "m.onnx")
	if info := m.Info(); !info.Signature.Batched || !slices.Equal(info.Signature.Inputs[0].Shape, []int64{-1, -1}) {
		t.Errorf("info is %+v", info)
	}
	w := place(t, m).(*weights)
	for length := 1; length <= maxShapes+3; length++ {
		for range 2 {
			ones := slices.Repeat([]float32{1}, 3*length)
			shape := []int64{3, int64(length)}
			got := run(t, w, 3, floats("a", shape, ones...), floats("b", shape, ones...))[0]
			if !slices.Equal(got.Shape, shape) || !slices.Equal(values(got), slices.Repeat([]float32{2}, 3*length)) {
				t.Fatalf("shape %v gave %v %v", shape, got.Shape, values(got))
			}
		}
		if len(w.programs) != min(length, maxShapes) {
			t.Fatalf("%d programs after %d shapes", len(w.programs), length)
		}
	}
	// Shapes that don't go together are the client's mistake.
	_, err := w.Run(t.Context(), engine.Batch{Rows: 1, Inputs: []tensor.Tensor{
		floats("a", []int64{1, 2}, 1, 2), floats("b", []int64{1, 3}, 1, 2, 3)}})
	if !errors.Is(err, engine.ErrInvalidInput) {
		t.Errorf("shapes that don't go together: %v", err)
	}
	// It leaves later runs alone.
	run(t, w, 1, floats("a", []int64{1, 2}, 1, 2), floats("b", []int64{1, 2}, 1, 2))
}

// Old files list their weights among the inputs, as defaults.
func TestInitializersAreNotInputs(t *testing.T) {
	dir := onnxFile(t, onnxGraph(onnxNode("Add", "c", "a", "b"),
		value("input", "a", onnxFloat, -1, 2), value("input", "b", onnxFloat, 2), value("output", "c", onnxFloat, -1, 2),
		`initializer { name: "b" data_type: 1 dims: 2 float_data: [10, 20] }`))
	m := load(t, newEngine(t, Options{}), dir, "m.onnx")
	info := m.Info()
	if len(info.Signature.Inputs) != 1 || info.Signature.Inputs[0].Name != "a" || info.WeightsBytes != 8 {
		t.Errorf("info is %+v", info)
	}
	got := run(t, place(t, m), 1, floats("a", []int64{1, 2}, 1, 2))[0]
	if !slices.Equal(values(got), []float32{11, 22}) {
		t.Errorf("got %v", values(got))
	}
}

func TestInputsThatDoNotFit(t *testing.T) {
	w := place(t, load(t, newEngine(t, Options{}), onnxFile(t, sum(-1, 2)), "m.onnx"))
	fitting := func() engine.Batch {
		return engine.Batch{Rows: 2, Inputs: []tensor.Tensor{
			floats("a", []int64{2, 2}, 1, 2, 3, 4), floats("b", []int64{2, 2}, 1, 2, 3, 4)}}
	}
	if _, err := w.Run(t.Context(), fitting()); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*engine.Batch){
		"no rows":            func(b *engine.Batch) { b.Rows = 0 },
		"negative rows":      func(b *engine.Batch) { b.Rows = -1 },
		"too many rows":      func(b *engine.Batch) { b.Rows = 17 },
		"other rows":         func(b *engine.Batch) { b.Rows = 1 },
		"too few inputs":     func(b *engine.Batch) { b.Inputs = b.Inputs[:1] },
		"too many inputs":    func(b *engine.Batch) { b.Inputs = append(b.Inputs, b.Inputs[0]) },
		"other type":         func(b *engine.Batch) { b.Inputs[1].Type = tensor.Int32 },
		"other rank":         func(b *engine.Batch) { b.Inputs[1].Shape = []int64{4} },
		"other dimension":    func(b *engine.Batch) { b.Inputs[1].Shape = []int64{2, 3} },
		"negative dimension": func(b *engine.Batch) { b.Inputs[1].Shape = []int64{2, -1} },
		"short data":         func(b *engine.Batch) { b.Inputs[1].Data = b.Inputs[1].Data[:15] },
		"long data":          func(b *engine.Batch) { b.Inputs[1].Data = binary.LittleEndian.AppendUint32(b.Inputs[1].Data, 0) },
	} {
		batch := fitting()
		change(&batch)
		if _, err := w.Run(t.Context(), batch); !errors.Is(err, engine.ErrInvalidInput) {
			t.Errorf("%s: %v", what, err)
		}
	}
	variable := place(t, load(t, newEngine(t, Options{}), onnxFile(t, sum(-1, -1)), "m.onnx"))
	for _, shape := range [][]int64{{1, 0}, {1, 1 << 41}, {1, -4}} {
		_, err := variable.Run(t.Context(), engine.Batch{Rows: 1, Inputs: []tensor.Tensor{floats("a", shape), floats("b", shape)}})
		if !errors.Is(err, engine.ErrInvalidInput) {
			t.Errorf("shape %v: %v", shape, err)
		}
	}
}
