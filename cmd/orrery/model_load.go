package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// loadFlags are what can be asked for of a model that is loaded.
type loadFlags struct {
	c       *cobra.Command
	wanted  *logpb.LoadModel
	slo     time.Duration
	labels  map[string]string
	largest []string
}

// newLoadFlags adds the flags to a command. byDefault is what is taken for those that
// are not given and have no better default.
func newLoadFlags(c *cobra.Command, version, byDefault string) *loadFlags {
	l := &loadFlags{c: c, wanted: &logpb.LoadModel{}}
	f := c.Flags()
	f.StringVar(&l.wanted.Source, "source", "", "path of the model below each worker's model directory; required")
	f.StringVar(&l.wanted.Version, "model-version", "", "version, a decimal number (default "+version+")")
	f.StringVar(&l.wanted.Engine, "engine", "", "engine to run it with (default by the source)")
	f.DurationVar(&l.slo, "slo", 0, "latency objective for requests without a deadline (default "+cmp.Or(byDefault, "none")+")")
	f.Uint32Var(&l.wanted.MaxRows, "max-rows", 0, "most rows in a batch (default "+cmp.Or(byDefault, "the most that are profiled")+")")
	f.Uint32Var(&l.wanted.Copies, "copies", 0, "workers that shall hold it (default "+cmp.Or(byDefault, "all")+")")
	f.StringToStringVar(&l.labels, "label", nil, "label that a worker must have, as key=value; repeatable")
	f.StringArrayVar(&l.largest, "largest", nil,
		"largest shape of an input with variable dimensions, without the batch, as `NAME=N,N`; repeatable (default "+cmp.Or(byDefault, "none")+")")
	return l
}

// model is what the flags ask for.
func (l *loadFlags) model(name string) (*logpb.LoadModel, error) {
	if l.wanted.Source == "" {
		return nil, usageError{errors.New("--source is missing: give the path of the model below the workers' model directory"), l.c.CommandPath()}
	}
	largest, err := largestShapes(l.largest)
	if err != nil {
		return nil, usageError{err, l.c.CommandPath()}
	}
	l.wanted.Name, l.wanted.SloNs, l.wanted.Largest = name, int64(l.slo), largest
	for _, key := range slices.Sorted(maps.Keys(l.labels)) {
		l.wanted.Constraints = append(l.wanted.Constraints, &logpb.Label{Key: key, Value: l.labels[key]})
	}
	return l.wanted, nil
}

// largestShapes reads shapes that are written as NAME=N,N.
func largestShapes(values []string) (shapes []*logpb.TensorShape, err error) {
	for _, value := range values {
		name, sizes, found := strings.Cut(value, "=")
		bad := func(why string) error {
			return fmt.Errorf("--largest is %q: %s; write NAME=N,N with the most of each dimension but the batch, as in --largest tokens=512", value, why)
		}
		if !found || name == "" {
			return nil, bad("it names no input")
		}
		if slices.ContainsFunc(shapes, func(s *logpb.TensorShape) bool { return s.Name == name }) {
			return nil, bad("input " + name + " is given twice")
		}
		shape := &logpb.TensorShape{Name: name}
		for size := range strings.SplitSeq(sizes, ",") {
			n, err := strconv.ParseInt(size, 10, 64)
			if err != nil || n < 1 {
				return nil, bad(fmt.Sprintf("%q is no number from 1 up", size))
			}
			shape.Shape = append(shape.Shape, n)
		}
		shapes = append(shapes, shape)
	}
	return shapes, nil
}

func (a *app) modelLoadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "load NAME --source PATH",
		Short: "Load a model onto workers",
		Long: `Has workers load a model from their model directories, and waits until each of
them has loaded it or failed to. If the wait is cut short the cluster goes on
loading.

A cluster that serves takes no further models, unless the startup is reopened
("orrery startup reopen") or late loads are admitted ("orrery cluster set
late_loads=admit"). To have a new version take the place of one that serves, use
"orrery model replace".

A model whose inputs have variable dimensions, besides the batch, is measured with
the largest shapes that --largest declares; requests with larger ones are refused.`,
		Example: "  orrery model load fashion-mlp --source fashion-mlp.onnx --slo 100ms\n" +
			"  orrery model load tagger --source tagger.onnx --largest tokens=512",
		Args: arguments(cobra.ExactArgs(1)),
	}
	flags := newLoadFlags(c, "1", "")
	c.Flags().Uint32Var(&flags.wanted.Instances, "instances", 1, "distinct models to make from the source, NAME-0, NAME-1, …, when above 1")
	return a.asks(c, 10*time.Minute, func(ctx context.Context, q *query, args []string) error {
		wanted, err := flags.model(args[0])
		if err != nil {
			return err
		}
		return q.load(ctx, wanted)
	})
}

// load loads a model, with its progress on standard error.
func (q *query) load(ctx context.Context, wanted *logpb.LoadModel) error {
	shown := q.showLoads(ctx, ofLoad(wanted))
	models, err := q.loadModel(ctx, wanted)
	shown.end()
	if err != nil {
		return err
	}
	if err := q.show(&controlpb.LoadModelResponse{Models: models}, func(w io.Writer) {
		copiesTable(w, models)
		roomNotes(w, models)
	}); err != nil {
		return err
	}
	return failures(models)
}

// roomNotes tells of models that are in host memory, and fit on no device: their
// copies show nothing of it.
func roomNotes(w io.Writer, models []*controlpb.ModelStatus) {
	for _, m := range models {
		if errs.Reason(m.Code) == errs.NoRoom {
			fmt.Fprintf(w, "\n%s can't be served: %s\n", m.Model.GetName(), obstacleText(m))
		}
	}
}

func (q *query) loadModel(ctx context.Context, wanted *logpb.LoadModel) ([]*controlpb.ModelStatus, error) {
	models, err := q.LoadModel(ctx, wanted)
	if errors.Is(err, errs.DeadlinePassed) {
		return nil, fmt.Errorf("%w; the cluster may go on loading, `orrery model status %s` tells", err, wanted.Name)
	}
	return models, err
}

// ofLoad tells the models of a load from others.
func ofLoad(wanted *logpb.LoadModel) func(*controlpb.ModelProgress) bool {
	version := cmp.Or(wanted.Version, "1")
	return func(m *controlpb.ModelProgress) bool {
		if m.Version != version {
			return false
		}
		if wanted.Instances <= 1 {
			return m.Name == wanted.Name
		}
		number, found := strings.CutPrefix(m.Name, wanted.Name+"-")
		i, err := strconv.ParseUint(number, 10, 32)
		return found && err == nil && i < uint64(wanted.Instances)
	}
}

// failures is an error when some copies could not be loaded.
func failures(models []*controlpb.ModelStatus) error {
	failed, all := failedCopies(models)
	switch {
	case all == 0:
		return noWorkerChosen(models)
	case failed > 0:
		return fmt.Errorf("%d of %d copies failed to load; mend the cause, then unload and load again", failed, all)
	}
	return nil
}

func failedCopies(models []*controlpb.ModelStatus) (failed, all int) {
	for _, m := range models {
		for _, c := range m.Copies {
			all++
			if c.Status == logpb.HoldingStatus_HOLDING_STATUS_FAILED {
				failed++
			}
		}
	}
	return failed, all
}

func noWorkerChosen(models []*controlpb.ModelStatus) error {
	if len(models) == 0 {
		return errors.New("the answer names no model")
	}
	return fmt.Errorf("no worker was chosen: %s; %s", models[0].GetReason(), models[0].GetAdvice())
}
