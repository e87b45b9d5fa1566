//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	startTimeout = 60 * time.Second
	readyTimeout = 90 * time.Second
	readyPoll    = 50 * time.Millisecond

	emulatedName  = "emulated"
	emulatedTable = "emulated.csv"
)

// stage is a cluster on loopback with one worker, whose one device both engines
// may use. One, since a second would take the processors that the measured
// process shares with the controllers and with this program.
type stage struct {
	cluster  *devcluster.Cluster
	client   *client.Client
	options  options
	pictures []picture
	dir      string
	// profile is what the real model was measured to take, by rows.
	profile *logpb.Profile
}

// sizes are the numbers of rows to which the real model's batches are padded,
// ascending.
func (s *stage) sizes() (rows []int) {
	for _, e := range s.profile.Execution {
		rows = append(rows, int(e.Rows))
	}
	return rows
}

func openStage(ctx context.Context, o options) (s *stage, err error) {
	s = &stage{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(o.logs))
			s = nil
		}
	}()
	if s.pictures, err = readPictures(o.models, o.model); err != nil {
		return s, err
	}
	if s.dir, err = bench.MemoryDir("predict"); err != nil {
		return s, err
	}
	// Beside the model a table is written, so they are in a folder of their own.
	source, err := os.ReadFile(filepath.Join(o.models, s.source()))
	if err != nil {
		return s, err
	}
	if err := os.WriteFile(filepath.Join(s.dir, s.source()), source, 0o644); err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.cluster, err = devcluster.Start(ctx, devcluster.Options{
		Binary: o.binary, ModelDir: s.dir, Engines: []string{"gomlx", "emulated"}, Dir: s.dir, Workers: 1,
		ControllerKeys: map[string]string{"startup.load_idle": "1s"},
	})
	if err != nil {
		return s, err
	}
	s.client, err = client.New(client.Options{
		Name: "predict", Inference: s.cluster.Addresses("inference"), Control: s.cluster.Addresses("control"),
	})
	if err != nil {
		return s, err
	}
	// The emulated model comes when the cluster serves.
	_, err = s.client.SetSettings(ctx, &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT})
	return s, err
}

func (s *stage) source() string { return s.options.model + ".onnx" }

// close ends all processes and removes all files, but for copies of the logs if
// a folder is given.
func (s *stage) close(logs string) error {
	var failed []error
	if s.client != nil {
		failed = append(failed, s.client.Close())
	}
	if s.cluster != nil {
		failed = append(failed, s.cluster.Stop())
		if logs != "" {
			failed = append(failed, bench.KeepLogs(s.cluster, logs, "predict"))
		}
	}
	if s.dir != "" {
		failed = append(failed, os.RemoveAll(s.dir))
	}
	return errors.Join(failed...)
}

// target is a model that requests are sent to.
type target struct {
	engine, model string
	// emulated: the answer is no classification but a hash of the input.
	emulated bool
}

// realModel loads the real model.
func (s *stage) realModel(ctx context.Context) (target, error) {
	var err error
	s.profile, err = s.load(ctx, s.options.model, s.source())
	return target{engine: "gomlx", model: s.options.model}, err
}

// emulatedModel loads one that takes as long as the real one was measured to
// take, padding included.
func (s *stage) emulatedModel(ctx context.Context) (target, error) {
	titles := []string{"model", "input_bytes", "output_bytes", "weights_MB", "weights_load_ms"}
	cells := []string{emulatedName, fmt.Sprint(pictureBytes), fmt.Sprint(4 * classes), "1", fmt.Sprint(milliseconds(s.profile.WeightsLoadP50Ns))}
	// All numbers of rows, since the emulated engine does not pad: between two of
	// its columns it takes a time between theirs.
	rows := uint32(0)
	for _, e := range s.profile.Execution {
		for rows < e.Rows {
			rows++
			titles = append(titles, fmt.Sprintf("b%d_ms", rows))
			cells = append(cells, fmt.Sprint(milliseconds(e.P50Ns)))
		}
	}
	table := strings.Join(titles, ",") + "\n" + strings.Join(cells, ",") + "\n"
	if err := os.WriteFile(filepath.Join(s.dir, emulatedTable), []byte(table), 0o644); err != nil {
		return target{}, err
	}
	_, err := s.load(ctx, emulatedName, emulatedTable+"#"+emulatedName)
	return target{engine: "emulated", model: emulatedName, emulated: true}, err
}

func milliseconds(ns int64) float64 { return float64(ns) / 1e6 }

// load loads a model, waits until it is served, and returns what it was measured
// to take.
func (s *stage) load(ctx context.Context, name, source string) (*logpb.Profile, error) {
	if _, err := s.client.LoadModel(ctx, &logpb.LoadModel{Name: name, Source: source}); err != nil {
		return nil, fmt.Errorf("load model %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		answer, err := s.client.ListModels(ctx, &controlpb.ListModelsRequest{Name: name})
		if err == nil && len(answer.Models) == 1 && len(answer.Models[0].Profiles) == 1 && answer.Models[0].Code == "" {
			if _, err = bench.Whole(ctx, s.cluster); err == nil {
				return answer.Models[0].Profiles[0], nil
			}
		}
		if bench.Pause(ctx, readyPoll) != nil {
			return nil, fmt.Errorf("model %s is not served within %v: %v %w", name, readyTimeout, answer.GetModels(), err)
		}
	}
}
