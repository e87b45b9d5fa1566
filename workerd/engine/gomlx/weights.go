package gomlx

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/workerd/engine"
)

// maxShapes bounds the programs of a model with variable dimensions: the
// oldest makes room.
const maxShapes = 32

// weights is a model on a device. It implements engine.Weights.
type weights struct {
	model   *model
	backend backends.Backend
	values  []weight
	// programs are in the order of their compilation: ascending rows, if only
	// the batch varies.
	programs []*program
}

// weight is one variable of the model.
type weight struct {
	// variable and parameter are its names in a context and in a graph.
	variable, parameter string
	value               *tensors.Tensor
}

// Run pads the batch with rows of zeros to the next number of rows that there
// is a program for.
func (w *weights) Run(ctx context.Context, batch engine.Batch) (outputs []tensor.Tensor, err error) {
	defer catch(&err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkBatch(w.model.signature, w.model.largestBatch(), batch); err != nil {
		return nil, err
	}
	p, err := w.programFor(batch)
	if err != nil {
		return nil, err
	}
	return p.run(batch)
}

// Evict frees everything at once, rather than when the garbage is collected.
func (w *weights) Evict() (err error) {
	defer catch(&err)
	var failures []error
	for _, p := range w.programs {
		failures = append(failures, p.free())
	}
	for _, v := range w.values {
		failures = append(failures, v.value.FinalizeAll())
	}
	w.programs, w.values = nil, nil
	w.backend.Finalize()
	return errors.Join(failures...)
}

// prepare compiles a program of fixed shapes and runs it once.
func (w *weights) prepare(rows int) (err error) {
	defer catch(&err)
	p, err := w.compile(w.fixedShapes(rows))
	if err != nil {
		return err
	}
	w.programs = append(w.programs, p)
	_, err = p.run(engine.Batch{Rows: rows})
	return err
}

// fixedShapes are the inputs' shapes when nothing but the batch varies.
func (w *weights) fixedShapes(rows int) [][]int64 {
	shapes := make([][]int64, len(w.model.signature.Inputs))
	for i, spec := range w.model.signature.Inputs {
		shapes[i] = slices.Clone(spec.Shape)
		if w.model.signature.Batched {
			shapes[i][0] = int64(rows)
		}
	}
	return shapes
}

// programFor finds the program for a batch that has been checked, or, for a
// model with variable dimensions, compiles it.
func (w *weights) programFor(batch engine.Batch) (*program, error) {
	padded := w.model.paddedRows(batch.Rows)
	for _, p := range w.programs {
		if p.takes(batch.Inputs, padded) {
			return p, nil
		}
	}
	shapes := make([][]int64, len(batch.Inputs))
	for i, input := range batch.Inputs {
		shapes[i] = slices.Clone(input.Shape)
		if w.model.signature.Batched {
			shapes[i][0] = int64(padded)
		}
	}
	p, err := w.compile(shapes)
	if err != nil {
		// That the model compiles at all is not known before; most likely the
		// dimensions don't go together.
		return nil, fmt.Errorf("%w: %q can't be compiled for inputs of shapes %v: %w", engine.ErrInvalidInput, w.model.source, shapes, err)
	}
	w.model.logger.Debug("compiled model for a new shape", "shapes", shapes)
	if len(w.programs) == maxShapes {
		if err := w.programs[0].free(); err != nil {
			return nil, err
		}
		w.programs = slices.Delete(w.programs, 0, 1)
	}
	w.programs = append(w.programs, p)
	return p, nil
}

func (m *model) largestBatch() int { return m.batchRows[len(m.batchRows)-1] }

// paddedRows is the next number of rows, from an allowed one on, that programs
// are compiled for.
func (m *model) paddedRows(rows int) int {
	i, _ := slices.BinarySearch(m.batchRows, rows)
	return m.batchRows[i]
}

// checkBatch says whether a batch fits a model of up to maxRows rows.
func checkBatch(signature tensor.Signature, maxRows int, batch engine.Batch) error {
	if batch.Rows < 1 || batch.Rows > maxRows {
		return fmt.Errorf("%w: a batch of %d rows; the model takes 1 to %d", engine.ErrInvalidInput, batch.Rows, maxRows)
	}
	if len(batch.Inputs) != len(signature.Inputs) {
		return fmt.Errorf("%w: %d inputs; the model takes %d", engine.ErrInvalidInput, len(batch.Inputs), len(signature.Inputs))
	}
	for i, spec := range signature.Inputs {
		if err := checkInput(spec, signature.Batched, batch.Rows, batch.Inputs[i]); err != nil {
			return fmt.Errorf("%w: input %q: %w", engine.ErrInvalidInput, spec.Name, err)
		}
	}
	return nil
}

func checkInput(spec tensor.Spec, batched bool, rows int, input tensor.Tensor) error {
	if input.Type != spec.Type {
		return fmt.Errorf("it has elements of %s; the model takes %s", input.Type, spec.Type)
	}
	want := spec.Shape
	if batched {
		want = slices.Clone(want)
		want[0] = int64(rows)
	}
	fits := len(input.Shape) == len(want)
	for axis := 0; fits && axis < len(want); axis++ {
		fits = input.Shape[axis] == want[axis] || want[axis] == -1 && input.Shape[axis] > 0
	}
	if !fits {
		return fmt.Errorf("it has the shape %v; the model takes %v, where -1 is any size from 1 on", input.Shape, want)
	}
	count, err := tensor.Elements(input.Shape)
	if err != nil {
		return err
	}
	if size := count * int64(spec.Type.Size()); int64(len(input.Data)) != size {
		return fmt.Errorf("it has %d bytes; %s %v takes %d", len(input.Data), spec.Type, input.Shape, size)
	}
	return nil
}
