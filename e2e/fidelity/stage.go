//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	startTimeout = 90 * time.Second
	readyPoll    = 50 * time.Millisecond
)

// stage is a cluster that serves, and the folder for both worlds.
type stage struct {
	options options
	cluster *devcluster.Cluster
	client  *client.Client
	dir     string
}

// openStage starts a cluster and has it serve the models.
func openStage(ctx context.Context, o options) (s *stage, err error) {
	s = &stage{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	if s.dir, err = bench.MemoryDir("fidelity"); err != nil {
		return s, err
	}
	if err := os.WriteFile(filepath.Join(s.dir, modelFile), []byte(modelRows), 0o644); err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if s.cluster, err = devcluster.Start(ctx, devcluster.Options{
		Binary: o.binary, ModelDir: s.dir, Engines: []string{"emulated"}, Dir: s.dir, Workers: workers,
		ControllerKeys: map[string]string{"startup.load_idle": "1s"},
		WorkerKeys:     map[string]string{"engines.emulated.jitter": jitter},
	}); err != nil {
		return s, err
	}
	s.client, err = client.New(client.Options{
		Name: "fidelity", Inference: s.cluster.Addresses("inference"), Control: s.cluster.Addresses("control"),
	})
	if err != nil {
		return s, err
	}
	for i := range models {
		if _, err := s.client.LoadModel(ctx, &logpb.LoadModel{Name: modelName(i), Source: modelFile + "#" + modelRow}); err != nil {
			return s, fmt.Errorf("load %s: %w", modelName(i), err)
		}
	}
	return s, s.awaitServing(ctx)
}

func modelName(i int) string { return fmt.Sprintf("m-%d", i+1) }

// awaitServing waits until every model is served by every worker.
func (s *stage) awaitServing(ctx context.Context) error {
	for {
		answer, err := s.client.ListModels(ctx, &controlpb.ListModelsRequest{})
		ready := err == nil && len(answer.Models) == models
		for _, m := range answer.GetModels() {
			ready = ready && m.Code == "" && len(m.Copies) == workers
		}
		if ready {
			_, err := bench.AwaitWhole(ctx, s.cluster, startTimeout)
			return err
		}
		if bench.Pause(ctx, readyPoll) != nil {
			return fmt.Errorf("the models are not served within %v: %v %w", startTimeout, answer.GetModels(), err)
		}
	}
}

// close ends all processes and removes all files, but for copies of the logs if
// a folder is given.
func (s *stage) close() error {
	var failed []error
	if s.client != nil {
		failed = append(failed, s.client.Close())
	}
	if s.cluster != nil {
		failed = append(failed, s.cluster.Stop())
		if s.options.logs != "" {
			failed = append(failed, bench.KeepLogs(s.cluster, s.options.logs, "fidelity"))
		}
	}
	if s.dir != "" {
		failed = append(failed, os.RemoveAll(s.dir))
	}
	return errors.Join(failed...)
}

// figures are what is compared.
type figures struct {
	requests, good int
	// goodput is answers in time a second; batchRows the mean of them all.
	goodput, batchRows float64
	// p50 and p99 are those of the answers at the controller; atClient is the p99
	// there, 0 in a simulation.
	p50, p99, atClient time.Duration
	// lateness is how much longer than the table says a batch took in the mean.
	lateness time.Duration
}

func (f figures) attainment() float64 { return float64(f.good) / float64(max(f.requests, 1)) }

// sample is what became of one request.
type sample struct {
	err               error
	latency, atClient time.Duration
	engine            time.Duration
	batchRows         int
}

// play sends the requests of a plan to the cluster, each at its moment, whether or
// not earlier ones have been answered.
func (s *stage) play(ctx context.Context, plan []planned) (figures, error) {
	samples := make([]sample, len(plan))
	var wait sync.WaitGroup
	defer wait.Wait()
	began := time.Now()
	for i, p := range plan {
		if err := bench.Pause(ctx, time.Until(began.Add(p.at))); err != nil {
			return figures{}, err
		}
		wait.Go(func() { samples[i] = s.ask(ctx, p) })
	}
	wait.Wait()
	return s.figuresOf(samples)
}

func (s *stage) ask(ctx context.Context, p planned) sample {
	ctx, cancel := context.WithTimeout(ctx, slo)
	defer cancel()
	began := time.Now()
	_, answer, err := s.client.Infer(ctx, bench.Request(modelName(p.model), bytes.Repeat([]byte{1}, bench.InputBytes)))
	return sample{err: err, atClient: time.Since(began), latency: stages(answer, "queue", "worker"), engine: stages(answer, "engine"), batchRows: int(answer.GetBatchRows())}
}

// stages is the time of some stages of an answer together.
func stages(a *exchangepb.Answer, names ...string) (sum time.Duration) {
	for _, stage := range a.GetStages() {
		if slices.Contains(names, stage.Name) {
			sum += time.Duration(stage.DurationNs)
		}
	}
	return sum
}

func (s *stage) figuresOf(samples []sample) (figures, error) {
	f := figures{requests: len(samples)}
	var latencies, atClient []time.Duration
	batches, late := 0.0, 0.0
	var last error
	for _, x := range samples {
		if x.err != nil {
			last = x.err
			continue
		}
		f.good++
		latencies, atClient = append(latencies, x.latency), append(atClient, x.atClient)
		batches += 1 / float64(max(x.batchRows, 1))
		late += (x.engine - tableTime(x.batchRows)).Seconds() / float64(max(x.batchRows, 1))
	}
	if f.good == 0 {
		return f, fmt.Errorf("no request was answered: %w", last)
	}
	slices.Sort(latencies)
	slices.Sort(atClient)
	f.goodput = float64(f.good) / s.options.span.Seconds()
	f.batchRows = float64(f.good) / batches
	f.lateness = time.Duration(late / batches * float64(time.Second))
	f.p50, f.p99, f.atClient = at(latencies, 0.5), at(latencies, 0.99), at(atClient, 0.99)
	return f, nil
}

func at(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

// simulate has the same binary simulate a load, told by how much batches were late.
func (s *stage) simulate(ctx context.Context, l load, lateness time.Duration) (figures, error) {
	const traceFile, scenarioFile = "trace.csv", "scenario.yaml"
	if err := os.WriteFile(filepath.Join(s.dir, traceFile), []byte(trace(l.plan(s.options))), 0o644); err != nil {
		return figures{}, err
	}
	path := filepath.Join(s.dir, scenarioFile)
	if err := os.WriteFile(path, []byte(scenario(s.options, traceFile, max(0, lateness))), 0o644); err != nil {
		return figures{}, err
	}
	command := exec.CommandContext(ctx, s.options.binary, "simulate", "--scenario", path, "-o", "json")
	var complaint strings.Builder
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return figures{}, fmt.Errorf("%w: %s", err, complaint.String())
	}
	f, err := parseReport(out)
	f.goodput = float64(f.good) / s.options.span.Seconds() // as it is counted of the real processes
	return f, err
}

// parseReport reads what `orrery simulate -o json` prints of one run.
func parseReport(text []byte) (figures, error) {
	var parsed struct {
		Lines []struct {
			Runs []struct {
				Total struct {
					Requests, Good int
					Latency        struct {
						P50 float64 `json:"p50_ms"`
						P99 float64 `json:"p99_ms"`
					}
				}
				BatchRows float64 `json:"mean_batch_rows"`
			}
		}
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		return figures{}, err
	}
	if len(parsed.Lines) != 1 || len(parsed.Lines[0].Runs) != 1 || parsed.Lines[0].Runs[0].Total.Requests == 0 {
		return figures{}, fmt.Errorf("not one run with requests: %s", text)
	}
	run := parsed.Lines[0].Runs[0]
	ms := func(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }
	return figures{
		requests: run.Total.Requests, good: run.Total.Good, batchRows: run.BatchRows,
		p50: ms(run.Total.Latency.P50), p99: ms(run.Total.Latency.P99),
	}, nil
}
