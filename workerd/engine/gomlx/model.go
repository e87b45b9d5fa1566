package gomlx

import (
	"context"
	"errors"
	"fmt"
	"sync"

	mlcontext "github.com/gomlx/gomlx/pkg/ml/context"
	"github.com/gomlx/onnx-gomlx/onnx"
	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/workerd/engine"
)

// model is a parsed file. It implements engine.Model.
type model struct {
	source    string
	signature tensor.Signature
	info      engine.Info
	// variable says that some shapes are only known from a request.
	variable bool
	// batchRows are the rows to compile for: just 1 without a batch dimension.
	batchRows []int
	logger    hclog.Logger

	// mu guards parsed, which changes while a graph is built from it.
	mu     sync.Mutex
	parsed onnx.Model
}

func (m *model) Info() engine.Info { return m.info }

// LoadWeights copies the weights, compiles the model for all numbers of rows,
// and runs each program once. A model with further variable dimensions is
// compiled by its first runs instead.
func (m *model) LoadWeights(ctx context.Context, device int) (engine.Weights, error) {
	w, err := m.place()
	if err != nil {
		return nil, fmt.Errorf("load weights of %q: %w", m.source, err)
	}
	if m.variable {
		return w, nil
	}
	for _, rows := range m.batchRows {
		if err = ctx.Err(); err != nil {
			break
		}
		if err = w.prepare(rows); err != nil {
			err = fmt.Errorf("compile %q for %d rows: %w", m.source, rows, err)
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, w.Evict())
	}
	m.logger.Debug("compiled model", "device", device, "rows", m.batchRows)
	return w, nil
}

func (m *model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.parsed = nil }()
	return m.parsed.Close()
}

// tryToCompile finds out whether GoMLX has all that the model needs.
func (m *model) tryToCompile() error {
	w, err := m.place()
	if err != nil {
		return err
	}
	_, err = w.compile(w.fixedShapes(m.batchRows[0]))
	return errors.Join(err, w.Evict())
}

// place copies the weights to where programs find them.
func (m *model) place() (w *weights, err error) {
	defer catch(&err)
	m.mu.Lock()
	defer m.mu.Unlock()
	backend, err := newBackend()
	if err != nil {
		return nil, err
	}
	variables := mlcontext.New()
	if err := m.parsed.VariablesToContext(variables); err != nil {
		return nil, err
	}
	w = &weights{model: m, backend: backend}
	for variable := range variables.IterVariables() {
		value, err := variable.Value()
		if err != nil {
			return nil, err
		}
		if _, err := value.Buffer(backend, 0); err != nil {
			return nil, err
		}
		w.values = append(w.values, weight{variable: variable.Name(), parameter: variable.ParameterName(), value: value})
	}
	return w, nil
}
