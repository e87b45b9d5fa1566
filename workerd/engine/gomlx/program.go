package gomlx

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"
	mlcontext "github.com/gomlx/gomlx/pkg/ml/context"
	"github.com/gomlx/onnx-gomlx/onnx"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/workerd/engine"
)

// program is a model compiled for certain shapes of its inputs.
type program struct {
	signature tensor.Signature
	// rows are the first dimension of every tensor, if there is a batch.
	rows   int
	shapes [][]int64
	graph  *graph.Graph
	// inputs live as long as the program: every run writes into the same memory.
	inputs []*tensors.Tensor
	// arguments are the buffers of inputs and weights in the graph's order, of
	// which none is donated.
	arguments []backends.Buffer
	donated   []bool
}

// compile builds the program for inputs of the given shapes.
func (w *weights) compile(inputShapes [][]int64) (p *program, err error) {
	defer catch(&err)
	m := w.model
	m.mu.Lock()
	defer m.mu.Unlock()
	p = &program{signature: m.signature, rows: 1, shapes: inputShapes, graph: graph.NewGraph(w.backend, m.source)}
	if m.signature.Batched {
		p.rows = int(inputShapes[0][0])
	}
	buffers := make(map[string]backends.Buffer)

	// A context for each program: it would remember the graph forever.
	variables := mlcontext.New()
	scope := variables.In(onnx.ModelScope).Checked(false)
	for _, v := range w.values {
		scope.VariableWithValue(v.variable, v.value)
		if buffers[v.parameter], err = v.value.Buffer(w.backend, 0); err != nil {
			return nil, err
		}
	}
	nodes := make(map[string]*graph.Node)
	for i, spec := range m.signature.Inputs {
		shape := shapes.Make(dtypeOf(spec.Type))
		for _, n := range inputShapes[i] {
			shape.Dimensions = append(shape.Dimensions, int(n))
		}
		input := tensors.FromShape(shape)
		p.inputs = append(p.inputs, input)
		parameter := fmt.Sprintf("input %d", i)
		nodes[spec.Name] = graph.Parameter(p.graph, parameter, shape)
		if buffers[parameter], err = input.Buffer(w.backend, 0); err != nil {
			return nil, err
		}
	}

	outputs := m.parsed.CallGraph(variables, p.graph, nodes)
	if err := p.checkOutputs(outputs); err != nil {
		return nil, err
	}
	p.graph.Compile(outputs...)
	for i := range p.graph.NumParameters() {
		parameter := p.graph.GetParameterByHandle(graph.ParameterHandle(i)).GetParameterName()
		p.arguments = append(p.arguments, buffers[parameter])
	}
	p.donated = make([]bool, len(p.arguments))
	return p, nil
}

// checkOutputs compares what the graph computes with what the file declares.
func (p *program) checkOutputs(outputs []*graph.Node) error {
	for i, spec := range p.signature.Outputs {
		want := slices.Clone(spec.Shape)
		if p.signature.Batched {
			want[0] = int64(p.rows)
		}
		got := outputs[i].Shape()
		fits := got.DType == dtypeOf(spec.Type) && got.Rank() == len(want)
		for axis := 0; fits && axis < len(want); axis++ {
			fits = want[axis] == -1 || int(want[axis]) == got.Dimensions[axis]
		}
		if !fits {
			return fmt.Errorf("output %q is %s and the file declares %s %v; export the model again", spec.Name, got, spec.Type, want)
		}
	}
	return nil
}

// takes says whether the program is for inputs of these shapes, apart from
// the batch, and for so many rows.
func (p *program) takes(inputs []tensor.Tensor, rows int) bool {
	skip := 0
	if p.signature.Batched {
		if p.rows != rows {
			return false
		}
		skip = 1
	}
	for i, shape := range p.shapes {
		if !slices.Equal(shape[skip:], inputs[i].Shape[skip:]) {
			return false
		}
	}
	return true
}

// run executes the program on a batch that it takes. Rows, and inputs, that
// the batch lacks are zero.
func (p *program) run(batch engine.Batch) ([]tensor.Tensor, error) {
	for i, input := range p.inputs {
		var data []byte
		if i < len(batch.Inputs) {
			data = batch.Inputs[i].Data
		}
		isBool := p.signature.Inputs[i].Type == tensor.Bool
		err := input.MutableBytes(func(memory []byte) {
			n := copy(memory, data)
			clear(memory[n:])
			for i := 0; isBool && i < n; i++ {
				memory[i] = min(memory[i], 1) // Go knows no other true
			}
		})
		if err != nil {
			return nil, err
		}
	}
	results := p.graph.RunWithBuffers(p.arguments, p.donated, 0)
	outputs := make([]tensor.Tensor, len(results))
	var failures []error
	for i, result := range results {
		var err error
		if outputs[i], err = p.output(i, result, batch.Rows); err != nil {
			failures = append(failures, err)
		}
	}
	for _, result := range results {
		failures = append(failures, result.FinalizeAll())
	}
	if err := errors.Join(failures...); err != nil {
		return nil, err
	}
	return outputs, nil
}

// output copies a result, without the rows that were padded.
func (p *program) output(i int, result *tensors.Tensor, rows int) (tensor.Tensor, error) {
	spec := p.signature.Outputs[i]
	out := tensor.Tensor{Name: spec.Name, Type: spec.Type, Shape: []int64{}, Data: []byte{}}
	for _, n := range result.Shape().Dimensions {
		out.Shape = append(out.Shape, int64(n))
	}
	if p.signature.Batched {
		out.Shape[0] = int64(rows)
	}
	count, err := tensor.Elements(out.Shape)
	if err != nil || count == 0 {
		return out, err
	}
	err = result.ConstBytes(func(memory []byte) {
		out.Data = slices.Clone(memory[:count*int64(spec.Type.Size())])
	})
	return out, err
}

// free gives the memory of the program back.
func (p *program) free() error {
	var failures []error
	for _, input := range p.inputs {
		failures = append(failures, input.FinalizeAll())
	}
	p.graph.Finalize()
	return errors.Join(failures...)
}
