package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func (a *app) modelCommand() *cobra.Command {
	return group("model", "Load, unload and list models",
		a.modelLoadCommand(), a.modelUnloadCommand(), a.modelListCommand(), a.modelStatusCommand(), a.modelResumeCommand())
}

func (a *app) modelLoadCommand() *cobra.Command {
	wanted := &logpb.LoadModel{}
	var slo time.Duration
	var labels map[string]string
	c := &cobra.Command{
		Use:   "load NAME --source PATH",
		Short: "Load a model onto workers",
		Long: `Has workers load a model from their model directories, and waits until each of
them has loaded it or failed to. If the wait is cut short the cluster goes on
loading.

A cluster that serves takes no further models, unless late loads are admitted.`,
		Example: "  orrery model load fashion-mlp --source fashion-mlp.onnx --slo 100ms",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	f := c.Flags()
	f.StringVar(&wanted.Source, "source", "", "path of the model below each worker's model directory; required")
	f.StringVar(&wanted.Version, "model-version", "", "version, a decimal number (default 1)")
	f.StringVar(&wanted.Engine, "engine", "", "engine to run it with (default by the source)")
	f.DurationVar(&slo, "slo", 0, "latency objective for requests without a deadline (default none)")
	f.Uint32Var(&wanted.MaxRows, "max-rows", 0, "most rows in a batch (default the most that are profiled)")
	f.Uint32Var(&wanted.Copies, "copies", 0, "workers that shall hold it (default all)")
	f.Uint32Var(&wanted.Instances, "instances", 1, "distinct models to make from the source, NAME-0, NAME-1, …, when above 1")
	f.StringToStringVar(&labels, "label", nil, "label that a worker must have, as key=value; repeatable")
	return a.asks(c, 10*time.Minute, func(ctx context.Context, q *query, args []string) error {
		if wanted.Source == "" {
			return usageError{errors.New("--source is missing: give the path of the model below the workers' model directory"), c.CommandPath()}
		}
		wanted.Name, wanted.SloNs = args[0], int64(slo)
		for _, key := range slices.Sorted(maps.Keys(labels)) {
			wanted.Constraints = append(wanted.Constraints, &logpb.Label{Key: key, Value: labels[key]})
		}
		return q.load(ctx, wanted)
	})
}

// load loads a model, with its progress on standard error.
func (q *query) load(ctx context.Context, wanted *logpb.LoadModel) error {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	shown := newProgress(q.err)
	watch.Go(func() {
		// It tells no more than the call does: an error is the call's to report.
		_ = q.WatchStartup(watching, shown.see)
	})
	models, err := q.LoadModel(ctx, wanted)
	stop()
	watch.Wait()
	if errors.Is(err, errs.DeadlinePassed) {
		return fmt.Errorf("%w; the cluster may go on loading, `orrery model status %s` tells", err, wanted.Name)
	}
	if err != nil {
		return err
	}
	if err := q.show(&controlpb.LoadModelResponse{Models: models}, func(w io.Writer) { copiesTable(w, models) }); err != nil {
		return err
	}
	return failures(models)
}

// failures is an error when some copies could not be loaded.
func failures(models []*controlpb.ModelStatus) error {
	failed, all := 0, 0
	for _, m := range models {
		for _, c := range m.Copies {
			all++
			if c.Status == logpb.HoldingStatus_HOLDING_STATUS_FAILED {
				failed++
			}
		}
	}
	switch {
	case all == 0:
		return errors.New("no worker was chosen: none has the engine and the labels that are asked for; see `orrery worker list`")
	case failed > 0:
		return fmt.Errorf("%d of %d copies failed to load; mend the cause, then unload and load again", failed, all)
	}
	return nil
}

func (a *app) modelUnloadCommand() *cobra.Command {
	var version string
	c := &cobra.Command{
		Use: "unload NAME", Short: "Give a model up", Args: arguments(cobra.ExactArgs(1)),
	}
	c.Flags().StringVar(&version, "model-version", "", "version (default all of them)")
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		ids, err := q.UnloadModel(ctx, args[0], version)
		if err != nil {
			return err
		}
		return q.show(&controlpb.UnloadModelResponse{ModelIds: ids}, func(w io.Writer) {
			fmt.Fprintf(w, "unloaded %s of %s\n", plural(len(ids), "version"), args[0])
		})
	})
}

func (a *app) modelResumeCommand() *cobra.Command {
	var version string
	c := &cobra.Command{
		Use:   "resume NAME",
		Short: "Serve a model again that was blamed for the death of workers",
		Long: `Has a model served again that was stopped because workers died while they
loaded, measured or ran it. "orrery model status NAME" says which, and while doing
what. Do this when the model was not at fault; one that is should be unloaded.`,
		Args: arguments(cobra.ExactArgs(1)),
	}
	c.Flags().StringVar(&version, "model-version", "", "version (default all of them)")
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		ids, err := q.ResumeModel(ctx, args[0], version)
		if err != nil {
			return err
		}
		return q.show(&controlpb.ResumeModelResponse{ModelIds: ids}, func(w io.Writer) {
			if len(ids) == 0 {
				fmt.Fprintf(w, "no version of %s was stopped\n", args[0])
				return
			}
			fmt.Fprintf(w, "%s of %s resumed\n", plural(len(ids), "version"), args[0])
		})
	})
}

func (a *app) modelListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the models", Args: arguments(cobra.NoArgs),
	}
	stale := staleFlag(c)
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, _ []string) error {
		answer, err := q.ListModels(ctx, &controlpb.ListModelsRequest{Stale: *stale})
		if err != nil {
			return err
		}
		return q.show(answer, func(w io.Writer) {
			modelsTable(w, answer.Models)
			staleNote(w, answer.Freshness)
		})
	})
}

func (a *app) modelStatusCommand() *cobra.Command {
	var version string
	c := &cobra.Command{
		Use: "status NAME", Short: "Show a model's copies and measured times", Args: arguments(cobra.ExactArgs(1)),
	}
	c.Flags().StringVar(&version, "model-version", "", "version (default all of them)")
	stale := staleFlag(c)
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		answer, err := q.ListModels(ctx, &controlpb.ListModelsRequest{Name: args[0], Version: version, Stale: *stale})
		if err != nil {
			return err
		}
		return q.show(answer, func(w io.Writer) {
			modelsTable(w, answer.Models)
			fmt.Fprintln(w)
			copiesTable(w, answer.Models)
			fmt.Fprintln(w)
			profilesTable(w, answer.Models)
			staleNote(w, answer.Freshness)
		})
	})
}

func modelsTable(w io.Writer, models []*controlpb.ModelStatus) {
	t := newTable(w, "NAME", "VERSION", "SOURCE", "ENGINE", "SLO", "LOADED", "STATE")
	defer t.flush()
	for _, m := range models {
		loaded := 0
		for _, c := range m.Copies {
			if c.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED && c.Error == "" {
				loaded++
			}
		}
		state := "ready"
		if m.Reason != "" {
			state = strings.TrimSuffix(m.Code+": "+m.Reason+"; "+m.Advice, "; ")
		}
		engine := m.Model.GetEngine()
		if info := m.Model.GetInfo(); info != nil {
			engine = info.Engine
		}
		t.row(m.Model.GetName(), m.Model.GetVersion(), m.Model.GetSource(), engine, short(time.Duration(m.Model.GetSloNs())),
			fmt.Sprintf("%d/%d", loaded, len(m.Copies)), state)
	}
}

func copiesTable(w io.Writer, models []*controlpb.ModelStatus) {
	t := newTable(w, "MODEL", "VERSION", "WORKER", "STATUS", "TIME", "PROBLEM")
	defer t.flush()
	for _, m := range models {
		for _, c := range m.Copies {
			t.row(m.Model.GetName(), m.Model.GetVersion(), c.Worker, word(c.Status, "HOLDING_STATUS_"), short(time.Duration(c.LoadNs)), c.Error)
		}
	}
}

func profilesTable(w io.Writer, models []*controlpb.ModelStatus) {
	t := newTable(w, "MODEL", "VERSION", "DEVICE", "ROWS", "P50", "P99", "RUNS")
	defer t.flush()
	for _, m := range models {
		for _, p := range m.Profiles {
			for _, r := range p.Execution {
				t.row(m.Model.GetName(), m.Model.GetVersion(), p.Key.GetDeviceKind(), strconv.Itoa(int(r.Rows)),
					short(time.Duration(r.P50Ns)), short(time.Duration(r.P99Ns)), strconv.Itoa(int(r.Runs)))
			}
		}
	}
}
