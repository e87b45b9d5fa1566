package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func (a *app) startupCommand() *cobra.Command {
	return group("startup", "Watch the cluster come to serve, and have it accept loads again",
		a.startupStatusCommand(), a.startupReopenCommand(), a.startupCloseCommand())
}

func (a *app) startupStatusCommand() *cobra.Command {
	var follow bool
	var models int
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how far the startup is",
		Long: `Shows the phase, what comes next and when, whether loads are accepted now, and for
each model how many of its copies are loaded and how many of its profiles are
measured. Models that are not finished come first; what has no room is summed up.

With --watch it goes on until the cluster serves. If it serves already, that is
shown until Ctrl-C, or until the startup was reopened and has come to serve again.
On a terminal the status is drawn in place, else each change is a line; with -o
json each is one object on a line. There is no limit of time then, unless --timeout
is given.`,
		Example: "  orrery startup status --watch",
		Args:    arguments(cobra.NoArgs),
	}
	c.Flags().BoolVarP(&follow, "watch", "w", false, "show each change until the cluster serves")
	c.Flags().IntVar(&models, "models", 0, "models to show at most (default as many as fit on the terminal, or 20)")
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, _ []string) error {
		if models < 0 {
			return usageError{fmt.Errorf("--models is %d: it can't be negative", models), c.CommandPath()}
		}
		status, err := q.Startup(ctx)
		if err != nil {
			return err
		}
		switch {
		case !follow:
			l := q.look(q.canvas(q.out), models)
			return q.show(status, func(w io.Writer) { fmt.Fprintln(w, strings.Join(startupScreen(status, l), "\n")) })
		case c.Flags().Changed("timeout"):
			return q.watchStartup(ctx, c.Context(), status, models)
		}
		return q.watchStartup(c.Context(), c.Context(), status, models)
	})
}

// look fits what is shown onto a terminal, if there is one.
func (q *query) look(c *canvas, models int) look {
	l := look{q.glyphs(), defaultWidth, models}
	height := 0
	if c != nil {
		l.width, height = c.room()
	}
	if l.models == 0 {
		l.models = defaultModelLines
		if height > 0 {
			const others = 11 // the lines that are not models, and the prompt's
			l.models = max(height-others, 1)
		}
	}
	return l
}

// watchStartup shows each change until the cluster serves; if it does already, until
// it has been reopened and serves again. bounded ends at the command's time limit,
// and interrupted only when the operator ends the command.
func (q *query) watchStartup(bounded, interrupted context.Context, first *controlpb.StartupStatus, models int) error {
	begun, last := first.Phase != logpb.Phase_PHASE_SERVING, first
	over := errors.New("it serves")
	view := q.startupViewer(models)
	watching, stop := context.WithCancel(bounded)
	var listening sync.WaitGroup
	listening.Go(func() { q.listen(watching, view) })
	err := q.WatchStartup(watching, func(s *controlpb.StartupStatus) error {
		last = s
		if err := view.see(s); err != nil {
			return err
		}
		if s.Phase != logpb.Phase_PHASE_SERVING {
			begun = true
		} else if begun {
			return over
		}
		return nil
	})
	stop()
	listening.Wait()
	phase := word(last.Phase, "PHASE_")
	switch {
	case errors.Is(err, over):
		return nil
	case interrupted.Err() != nil && !begun:
		return nil // there was nothing to wait for
	case interrupted.Err() != nil:
		return fmt.Errorf("interrupted in phase %s; the startup goes on", phase)
	case bounded.Err() != nil && begun:
		return fmt.Errorf("the cluster is still in phase %s after %v: it waits for %s", phase, q.timeout, last.WaitingFor)
	case bounded.Err() != nil:
		return nil
	}
	return err
}

func (a *app) startupReopenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reopen",
		Short: "Have a cluster that serves accept loads again",
		Long: `Has a cluster that serves accept loads once more, and go through the phases of the
startup again for the models that come, while it serves the others. When no load
has come for a while (startup.load_idle) the new models are profiled together, a
little at a time beside the schedule, and then the startup is over: loads are
refused again.`,
		Example: "  orrery startup reopen && orrery model load fashion-cnn --source fashion-cnn.onnx",
	}
	return a.reopenCommand(c, false)
}

func (a *app) startupCloseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "close",
		Short: "End a reopened startup to which no load has come",
		Long: `Ends what "orrery startup reopen" began, as long as no load has come. After the
first load it ends by itself.`,
	}
	return a.reopenCommand(c, true)
}

func (a *app) reopenCommand(c *cobra.Command, shut bool) *cobra.Command {
	c.Args = arguments(cobra.NoArgs)
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, _ []string) error {
		status, err := q.ReopenStartup(ctx, shut)
		if err != nil {
			return err
		}
		return q.show(&controlpb.ReopenStartupResponse{Status: status}, func(w io.Writer) { fmt.Fprintln(w, reopenText(status, shut)) })
	})
}

// reopenText is what it means that the startup was reopened, or closed.
func reopenText(s *controlpb.StartupStatus, shut bool) string {
	switch {
	case shut && s.AdmitsLoads:
		return "the startup is over; loads are still accepted, since late_loads=admit"
	case shut:
		return "the startup is over: loads are refused again"
	}
	idle := "a while (startup.load_idle)" // whoever answers is not the leader
	if s.LoadIdleNs > 0 {
		idle = time.Duration(s.LoadIdleNs).String()
	}
	return fmt.Sprintf("loads are accepted again, until none has come for %s after the last one; serving goes on\n"+
		"`orrery startup status --watch` shows how it goes on, `orrery startup close` ends it while no load has come", idle)
}
