package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/proto/controlpb"
)

func (a *app) modelPinCommand() *cobra.Command {
	var version string
	var devices uint32
	c := &cobra.Command{
		Use:   "pin NAME",
		Short: "Keep a model's weights on devices, whatever else is asked for",
		Long: `Has the weights of a model fetched onto devices without a request, and stay there:
they are not evicted for other models, so requests for the model do not wait for
them. On which devices is up to the leader; when one of them goes, another one gets
the weights. A pin lasts until "orrery model unpin" or "orrery model unload", and goes
over to the version that replaces the model.

Devices get as many pinned models as they have room for; the rest wait for room, and
"orrery model status NAME" shows on how many devices the weights are. What is pinned
takes room from all other models.`,
		Example: "  orrery model pin fashion-mlp\n  orrery model pin fashion-mlp --devices 2",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	c.Flags().Uint32Var(&devices, "devices", 1, "on how many devices; more than there are: on all")
	c.Flags().StringVar(&version, "model-version", "", "version (default all of them)")
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		if devices == 0 {
			return usageError{errors.New("--devices is 0: give at least 1; `orrery model unpin` ends a pin"), c.CommandPath()}
		}
		return q.pin(ctx, args[0], version, devices)
	})
}

func (a *app) modelUnpinCommand() *cobra.Command {
	var version string
	c := &cobra.Command{
		Use:   "unpin NAME",
		Short: "Let a model's weights make room for others again",
		Args:  arguments(cobra.ExactArgs(1)),
	}
	c.Flags().StringVar(&version, "model-version", "", "version (default all of them)")
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		return q.pin(ctx, args[0], version, 0)
	})
}

// pin pins a model, or, with 0 devices, unpins it.
func (q *query) pin(ctx context.Context, name, version string, devices uint32) error {
	ids, err := q.PinModel(ctx, name, version, devices)
	if err != nil {
		return err
	}
	return q.show(&controlpb.PinModelResponse{ModelIds: ids}, func(w io.Writer) {
		if devices == 0 {
			fmt.Fprintf(w, "unpinned %s of %s\n", plural(len(ids), "version"), name)
			return
		}
		fmt.Fprintf(w, "pinned %s of %s to %s\n", plural(len(ids), "version"), name, plural(int(devices), "device"))
	})
}
