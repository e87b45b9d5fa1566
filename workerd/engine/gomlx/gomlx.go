// Package gomlx is an engine in plain Go: it runs ONNX models by GoMLX.
//
// A source is a file *.onnx that holds the whole model, weights included. If
// the first dimension of all inputs and outputs is variable, it is the batch;
// such a model is compiled for a few numbers of rows, and a batch is padded to
// the next of them. Other variable dimensions are compiled when a shape first
// comes, on the path of that request.
//
// A run keeps to one thread, so that as many devices as there are cores don't
// disturb each other.
//
// A file is inspected before GoMLX sees it, since some files would end the
// process in ways that can't be recovered from: cycles, and tensors that claim
// to be huge. That is no sandbox. A model is a program, and one that computes
// too much or fills the memory is not found out.
package gomlx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/gomlx/onnx-gomlx/onnx"
	"github.com/gomlx/onnx-gomlx/onnx/parser"
	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/workerd/engine"
)

// version is that of the libraries, as in go.mod, and of our use of them.
const version = "gomlx v0.27.1, onnx-gomlx v0.4.1, orrery 1"

// maxFileBytes is the most that a protobuf message can hold.
const maxFileBytes = 2<<30 - 1

// Options are the settings of an Engine. Their zero value is the default.
type Options struct {
	// BatchRows are the numbers of rows that models with a batch dimension
	// are compiled for, ascending. The last is the largest batch. By default
	// 1, 2, 4, 8 and 16.
	BatchRows []int
	// Logger is told about compilations at debug level. By default nobody is.
	Logger hclog.Logger
}

// Engine brings ONNX models into memory. It implements engine.Engine.
type Engine struct {
	batchRows []int
	logger    hclog.Logger
}

// New checks the options.
func New(options Options) (*Engine, error) {
	if len(options.BatchRows) == 0 {
		options.BatchRows = []int{1, 2, 4, 8, 16}
	}
	for i, rows := range options.BatchRows {
		if rows < 1 || i > 0 && rows <= options.BatchRows[i-1] {
			return nil, fmt.Errorf("gomlx engine: batch rows are %v; give numbers from 1 on, ascending", options.BatchRows)
		}
	}
	if options.Logger == nil {
		options.Logger = hclog.NewNullLogger()
	}
	// Fail now rather than at the first model.
	backend, err := newBackend()
	if err != nil {
		return nil, fmt.Errorf("gomlx engine: %w", err)
	}
	backend.Finalize()
	return &Engine{batchRows: slices.Clone(options.BatchRows), logger: options.Logger}, nil
}

// Name is "gomlx".
func (e *Engine) Name() string { return "gomlx" }

// Version names the libraries' versions.
func (e *Engine) Version() string { return version }

// Accepts says whether source is called *.onnx.
func (e *Engine) Accepts(source string) bool { return strings.HasSuffix(source, ".onnx") }

// Load reads and parses the file, and compiles it once to find out whether
// GoMLX has all that it needs.
func (e *Engine) Load(ctx context.Context, root *os.Root, source string) (engine.Model, error) {
	content, err := engine.ReadSource(root, source, maxFileBytes)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := e.parse(source, content)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", engine.ErrBadSource, source, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !m.variable {
		if err := m.tryToCompile(); err != nil {
			return nil, fmt.Errorf("%w: %q can't be compiled by GoMLX; change the model or run it on another engine: %w",
				engine.ErrBadSource, source, err)
		}
	}
	return m, nil
}

func (e *Engine) parse(source string, content []byte) (m *model, err error) {
	defer catch(&err)
	sum := sha256.Sum256(content)
	found, err := inspect(content)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(found.content)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	m = &model{
		source:    source,
		parsed:    withoutFiles(parsed),
		signature: found.signature,
		variable:  found.variable(),
		batchRows: []int{1},
		logger:    e.logger.With("model", source),
		info: engine.Info{
			Digest:       hex.EncodeToString(sum[:]),
			Signature:    found.signature,
			WeightsBytes: found.weightsBytes,
			HostBytes:    int64(len(content)) + found.weightsBytes,
		},
	}
	if found.signature.Batched {
		m.batchRows = e.batchRows
	}
	m.info.ProfileRows = slices.Clone(m.batchRows)
	return m, nil
}

// withoutFiles keeps a model from reading further files, which its author
// could choose freely: a reader without a directory refuses all.
func withoutFiles(parsed onnx.Model) onnx.Model { return parsed.WithBaseDir("") }

// catch turns a panic into an error: it is how GoMLX reports most of them.
func catch(err *error) {
	switch reason := recover().(type) {
	case nil:
	case error:
		*err = fmt.Errorf("gomlx: %w", reason)
	default:
		*err = fmt.Errorf("gomlx: %v", reason)
	}
}
