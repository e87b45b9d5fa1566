package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/proto/controlpb"
)

func (a *app) modelCommand() *cobra.Command {
	return group("model", "Load, replace, unload, pin and list models",
		a.modelLoadCommand(), a.modelReplaceCommand(), a.modelUnloadCommand(), a.modelListCommand(), a.modelStatusCommand(),
		a.modelProfileCommand(), a.modelPinCommand(), a.modelUnpinCommand(), a.modelResumeCommand())
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
		Use: "status NAME", Short: "Show a model's copies and measured times",
		Long: `Shows a model's versions, their copies and measured times. A replacement says whose
place it is to take, and a retiring version that another one has taken its place. A
pinned model says on how many devices its weights are to stay, and on how many they
are, when those are fewer.
"orrery model profile" shows more of the measured times.`,
		Args: arguments(cobra.ExactArgs(1)),
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
			largestTable(w, answer.Models)
			profilesTable(w, answer.Models)
			staleNote(w, answer.Freshness)
		})
	})
}
