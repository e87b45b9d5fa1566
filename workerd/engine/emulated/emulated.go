// Package emulated is an engine for rehearsals: time passes as a table of
// measured profiles says, and nothing is computed. A cluster of hundreds of
// devices can be tried on one machine with it.
//
// A source names a row of a CSV file: everything after the first '#' is the
// name in the column "model", as in
//
//	profiles.csv#resnet50_v2
//
// The columns are found by their titles: model, input_bytes, output_bytes,
// weights_MB, disk_load_ms, weights_load_ms, crash_on and, for any number of
// rows N, bN_ms. Only model and one bN_ms must be filled. What is missing is
// taken as 1024 bytes of input and 64 bytes of output a row, 16 MiB of weights,
// no time to load the model into host memory, 12 GB/s to load the weights onto
// a device, and no crash.
//
// A model with something in crash_on kills its worker: on "load" when it is
// loaded into host memory, on "weights" when its weights are loaded, on "run"
// in each run, and on "run N" in the Nth run and all later ones, counted from
// 1 over the life of the process, those that measure it included. Such a model
// is loaded only if Options.AllowCommands is set. A model that hangs is made by
// a request with a DelayParameter of, say, 1000h.
//
// Outputs are zero, but for the first eight bytes of each row of eight bytes
// or more: the FNV-64a hash of that row's input, little-endian, so that tests
// notice when the requests of a batch are mixed up.
package emulated

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/workerd/engine"
)

// The custom parameters of a request that are commands to this engine.
const (
	// FailParameter makes the run fail, after its time, with the value as the
	// message.
	FailParameter = "emulated_fail"
	// CrashParameter ends the process when the value is "true".
	CrashParameter = "emulated_crash"
	// DelayParameter prolongs the run by a Go duration.
	DelayParameter = "emulated_delay"
)

// ErrEmulatedFailure is the failure of a run that was asked to fail, or that
// failed by Options.FailureRate.
var ErrEmulatedFailure = errors.New("emulated failure")

const (
	// crashCode is the exit code of a crash on command: EX_SOFTWARE.
	crashCode = 70
	// maxSlowdown keeps times inside their type.
	maxSlowdown = 1000
	// maxTableBytes bounds a table of profiles.
	maxTableBytes = 16 << 20
)

// Options are the settings of an Engine. Their zero value is an engine that
// keeps exactly to its profiles.
type Options struct {
	// Jitter is the share, from 0 to 1, by which execution times vary at most
	// to either side; they are distributed uniformly.
	Jitter float64
	// Slowdown is how many times longer everything on a device takes than its profile
	// says, above 0: a device may be slower than its kind. By default 1.
	Slowdown float64
	// FailureRate is the share of the runs that fail, from 0 to 1.
	FailureRate float64
	// AllowCommands lets requests command the engine by their parameters, and
	// tables have models that kill the worker.
	AllowCommands bool
	// Seed makes jitter and failures repeatable.
	Seed uint64
	// Crash obeys CrashParameter and crash_on; by default it exits with code 70.
	Crash func()
}

// Engine brings profiles into memory. It implements engine.Engine.
type Engine struct {
	options Options
	crashes *crashes
}

// New checks the options.
func New(options Options) (*Engine, error) {
	// The comparisons are false for NaN, too.
	if !(options.Jitter >= 0 && options.Jitter <= 1) {
		return nil, fmt.Errorf("emulated engine: jitter is %v; give a share from 0 to 1", options.Jitter)
	}
	if !(options.FailureRate >= 0 && options.FailureRate <= 1) {
		return nil, fmt.Errorf("emulated engine: failure rate is %v; give a share from 0 to 1", options.FailureRate)
	}
	if options.Slowdown == 0 {
		options.Slowdown = 1
	}
	if !(options.Slowdown > 0 && options.Slowdown <= maxSlowdown) {
		return nil, fmt.Errorf("emulated engine: slowdown is %v; give a number above 0, at most %d", options.Slowdown, maxSlowdown)
	}
	if options.Crash == nil {
		options.Crash = func() { os.Exit(crashCode) }
	}
	return &Engine{options: options, crashes: &crashes{kill: options.Crash, runs: make(map[string]int)}}, nil
}

// Name is "emulated".
func (e *Engine) Name() string { return "emulated" }

// Version changes with the meaning of the tables.
func (e *Engine) Version() string { return "1" }

// Accepts says whether source names a row of a CSV file.
func (e *Engine) Accepts(source string) bool { return strings.Contains(source, ".csv#") }

// Load reads the row that source names.
func (e *Engine) Load(ctx context.Context, root *os.Root, source string) (engine.Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, name, _ := strings.Cut(source, "#")
	if file == "" || name == "" {
		return nil, fmt.Errorf("%w: %q does not name a row; write it as profiles.csv#row", engine.ErrBadSource, source)
	}
	table, err := engine.ReadSource(root, file, maxTableBytes)
	if err != nil {
		return nil, err
	}
	profile, err := readProfile(bytes.NewReader(table), file, name)
	if err != nil {
		return nil, err
	}
	if profile.crash.on != "" && !e.options.AllowCommands {
		return nil, fmt.Errorf("%w: %s would crash this worker (column crash_on of %s); set engines.emulated.allow_commands if that is meant",
			engine.ErrBadSource, name, file)
	}
	if err := wait(ctx, profile.diskTime); err != nil {
		return nil, err
	}
	if err := e.crashes.reached(crashOnLoad, profile); err != nil {
		return nil, err
	}
	return &model{options: e.options, crashes: e.crashes, profile: profile, loads: make(map[int]uint64)}, nil
}

// model is a profile in memory. It implements engine.Model.
type model struct {
	options Options
	crashes *crashes
	profile *profile

	mu sync.Mutex
	// loads counts LoadWeights by device, so that each load has random
	// numbers of its own and the same ones in a repetition.
	loads map[int]uint64
}

func (m *model) Info() engine.Info {
	rows := make([]int, len(m.profile.batches))
	for i, batch := range m.profile.batches {
		rows[i] = batch.rows
	}
	return engine.Info{
		Digest: m.profile.digest,
		Signature: tensor.Signature{
			Inputs:  []tensor.Spec{{Name: "input", Type: tensor.Uint8, Shape: []int64{-1, m.profile.inputBytes}}},
			Outputs: []tensor.Spec{{Name: "output", Type: tensor.Uint8, Shape: []int64{-1, m.profile.outputBytes}}},
			Batched: true,
		},
		WeightsBytes: m.profile.weightsBytes,
		// The weights are emulated, but a rehearsal has to account for them.
		HostBytes:   m.profile.weightsBytes,
		ProfileRows: rows,
		Emulated:    true,
	}
}

// LoadWeights takes the time of the profile, whatever the device.
func (m *model) LoadWeights(ctx context.Context, device int) (engine.Weights, error) {
	if err := wait(ctx, m.options.slowed(m.profile.loadTime)); err != nil {
		return nil, err
	}
	if err := m.crashes.reached(crashOnWeights, m.profile); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads[device]++
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%s %d %d", m.profile.digest, device, m.loads[device])
	return &weights{
		options: m.options,
		crashes: m.crashes,
		profile: m.profile,
		random:  rand.New(rand.NewPCG(m.options.Seed, hash.Sum64())),
	}, nil
}

func (m *model) Close() error { return nil }

// weights is a profile on a device. It implements engine.Weights.
type weights struct {
	options Options
	crashes *crashes
	profile *profile
	random  *rand.Rand
}

// Run takes the time of the batch. The time that the hashes take is part of
// it, as long as it is shorter.
func (w *weights) Run(ctx context.Context, batch engine.Batch) ([]tensor.Tensor, error) {
	start := time.Now()
	if err := w.check(batch); err != nil {
		return nil, err
	}
	commands, err := w.commands(batch.Parameters)
	if err != nil {
		return nil, err
	}
	if commands.crash {
		w.options.Crash()
		return nil, fmt.Errorf("%w: crash", ErrEmulatedFailure)
	}
	if err := w.crashes.reached(crashOnRun, w.profile); err != nil {
		return nil, err
	}
	duration, failed := w.draw(batch.Rows)
	output := w.output(batch)
	if err := wait(ctx, time.Until(start.Add(duration+commands.delay))); err != nil {
		return nil, err
	}
	if commands.fail != "" {
		return nil, fmt.Errorf("%w: %s", ErrEmulatedFailure, commands.fail)
	}
	if failed {
		return nil, fmt.Errorf("%w: one of the share of %v that the setting asks for", ErrEmulatedFailure, w.options.FailureRate)
	}
	return []tensor.Tensor{output}, nil
}

func (w *weights) Evict() error { return nil }

func (w *weights) check(batch engine.Batch) error {
	if batch.Rows < 1 || batch.Rows > w.profile.maxRows() {
		return fmt.Errorf("%w: a batch of %d rows; %s takes 1 to %d",
			engine.ErrInvalidInput, batch.Rows, w.profile.name, w.profile.maxRows())
	}
	if len(batch.Inputs) != 1 {
		return fmt.Errorf("%w: %d inputs; %s takes one, called input", engine.ErrInvalidInput, len(batch.Inputs), w.profile.name)
	}
	input, want := batch.Inputs[0], []int64{int64(batch.Rows), w.profile.inputBytes}
	if input.Type != tensor.Uint8 || !slices.Equal(input.Shape, want) || int64(len(input.Data)) != want[0]*want[1] {
		return fmt.Errorf("%w: input is %s %v with %d bytes; want %s %v", engine.ErrInvalidInput,
			input.Type, input.Shape, len(input.Data), tensor.Uint8, want)
	}
	return nil
}

// draw rolls the dice of one run: always twice, so that one setting does not
// change the other's sequence.
func (w *weights) draw(rows int) (duration time.Duration, failed bool) {
	deviation := w.options.Jitter * (2*w.random.Float64() - 1)
	failed = w.random.Float64() < w.options.FailureRate
	return time.Duration(float64(w.options.slowed(w.profile.executionTime(rows))) * (1 + deviation)), failed
}

// slowed is what a time of the profile is on this engine's devices.
func (o *Options) slowed(d time.Duration) time.Duration {
	return time.Duration(float64(d) * o.Slowdown)
}

func (w *weights) output(batch engine.Batch) tensor.Tensor {
	in, out := int(w.profile.inputBytes), int(w.profile.outputBytes)
	data := make([]byte, batch.Rows*out)
	for row := range batch.Rows {
		if out < 8 {
			break
		}
		hash := fnv.New64a()
		hash.Write(batch.Inputs[0].Data[row*in : (row+1)*in])
		binary.LittleEndian.PutUint64(data[row*out:], hash.Sum64())
	}
	return tensor.Tensor{Name: "output", Type: tensor.Uint8, Shape: []int64{int64(batch.Rows), int64(out)}, Data: data}
}

// commands are what the requests of a batch ask of the engine itself.
type commands struct {
	fail  string
	crash bool
	delay time.Duration
}

func (w *weights) commands(parameters map[string]string) (commands, error) {
	var c commands
	if !w.options.AllowCommands {
		return c, nil // they fail whole batches: nobody else's requests may suffer
	}
	for _, name := range []string{FailParameter, CrashParameter, DelayParameter} {
		value, given := parameters[name]
		if !given {
			continue
		}
		switch name {
		case FailParameter:
			c.fail = value
			if value == "" {
				c.fail = "by command"
			}
		case CrashParameter:
			c.crash = value == "true"
		case DelayParameter:
			delay, err := time.ParseDuration(value)
			if err != nil || delay < 0 {
				return c, fmt.Errorf("%w: the parameter %s is %q; give a duration such as 20ms", engine.ErrInvalidInput, name, value)
			}
			c.delay = delay
		}
	}
	return c, nil
}

// wait returns after d, or with the context's error when that ends first.
func wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
