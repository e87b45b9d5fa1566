// Package engine is the border between a worker and what executes its models.
//
// A model passes through three hands: Engine.Load brings it from the model
// directory into host memory, Model.LoadWeights from there to a device, and
// Weights.Run executes it. The worker owns the accounting of memory; an engine
// only says how much there is to account for.
package engine

import (
	"context"
	"errors"
	"os"

	"github.com/orrery-project/orrery/internal/tensor"
)

// Errors that a worker tells apart. Engines wrap them.
var (
	// ErrBadSource says that the source does not exist, escapes the model
	// directory, or is not a model that the engine can run.
	ErrBadSource = errors.New("bad model source")
	// ErrInvalidInput says that the inputs do not fit the model.
	ErrInvalidInput = errors.New("invalid input")
)

// Engine brings models into host memory. It is safe for concurrent use.
type Engine interface {
	// Name is the word that configurations and requests use.
	Name() string
	// Version changes whenever measured times may change with it.
	Version() string
	// Accepts says whether source has the form of this engine's models; used
	// when a load does not name an engine. It does no I/O.
	Accepts(source string) bool
	// Load reads the model at source, a path below root, into host memory.
	// It fails with ErrBadSource.
	Load(ctx context.Context, root *os.Root, source string) (Model, error)
}

// Info is what loading a model found out about it.
type Info struct {
	// Digest is the hex sha256 of all that the source consists of.
	Digest    string
	Signature tensor.Signature
	// WeightsBytes is the room that the weights need on a device.
	WeightsBytes int64
	// HostBytes is the room that the model takes in host memory.
	HostBytes int64
	// ProfileRows are the numbers of rows to measure, ascending. A batch
	// between two of them takes about as long as the larger; the last is the
	// largest batch. A model without a batch dimension has just 1.
	ProfileRows []int
	// Emulated says that nothing is computed.
	Emulated bool
}

// Model is a model in host memory. LoadWeights may be called once for each
// device, concurrently.
type Model interface {
	Info() Info
	// LoadWeights makes the model ready to run on a device: what follows is
	// as fast as it will ever be.
	LoadWeights(ctx context.Context, device int) (Weights, error)
	// Close gives the host memory back. All weights have been evicted.
	Close() error
}

// Batch is the input of one run.
type Batch struct {
	Rows int
	// Inputs are in the signature's order; the rows of all requests stand one
	// after the other.
	Inputs []tensor.Tensor
	// Parameters are the custom parameters of the requests in the batch, last
	// one wins; engines ignore what they don't know.
	Parameters map[string]string
}

// Weights is a model on a device. Run is called by one goroutine at a time.
type Weights interface {
	// Run executes a batch and returns the outputs in the signature's order.
	// It fails with ErrInvalidInput, the context's error, or an error of the
	// engine.
	Run(ctx context.Context, batch Batch) ([]tensor.Tensor, error)
	// Evict gives the room on the device back.
	Evict() error
}
