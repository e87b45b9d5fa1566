package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/node"
)

// Exit statuses.
const (
	statusFailed = 1
	statusUsage  = 2
	// statusFault is that of a daemon which stopped itself because it could not
	// go on safely: its disk failed or hung, or its state was wrong.
	statusFault = 4
)

// app is what the commands share.
type app struct {
	out, err io.Writer
	// environ has the form of os.Environ.
	environ []string
	dial    rpc.DialFunc
	// size is that of the terminal that a writer is, if it is one; nil: none is.
	size func(io.Writer) (width, height int, ok bool)
}

// usageError is a command line that can't be understood.
type usageError struct {
	error
	// command is the one to ask for help.
	command string
}

// run executes a command line and returns the exit status.
func run(ctx context.Context, args []string, a *app) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return a.report(root.ExecuteContext(ctx))
}

// report prints an error, one line for each problem, and returns the exit status.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	if usage, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(a.err, "orrery: %v; see `%s --help`\n", usage.error, usage.command)
		return statusUsage
	}
	if problems, ok := errors.AsType[configs.Problems](err); ok {
		for _, problem := range problems {
			fmt.Fprintf(a.err, "orrery: %v\n", problem)
		}
		return statusFailed
	}
	fmt.Fprintf(a.err, "orrery: %v\n", err)
	if errors.Is(err, node.ErrFault) {
		return statusFault
	}
	if e, ok := errors.AsType[*errs.Error](err); ok && e.RetryAfter > 0 {
		fmt.Fprintf(a.err, "orrery: try again after %v\n", e.RetryAfter)
	}
	return statusFailed
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "orrery",
		Short: "A highly available controller for predictable model serving",
		Long: `Orrery serves neural networks with latency objectives, and goes on serving when
any one machine stops. A cluster is three controllers, which replicate all they
know, and any number of workers, which run the models.

Try it out with "orrery demo", or keep a throw-away cluster with "orrery dev".`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{err, c.CommandPath()} })
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddGroup(
		&cobra.Group{ID: "try", Title: "To try it out:"},
		&cobra.Group{ID: "run", Title: "To run a cluster:"},
		&cobra.Group{ID: "use", Title: "To use one:"},
	)
	add := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	add("try", a.demoCommand(), a.devCommand(), a.simulateCommand())
	add("run", a.controllerCommand(), a.workerdCommand())
	add("use", a.modelCommand(), a.startupCommand(), a.workerCommand(), a.clusterCommand(), a.inferCommand())
	root.AddCommand(a.versionCommand())
	strictGroup(root)
	return root
}

// group is a command that only has commands below it.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short}
	g.AddCommand(commands...)
	strictGroup(g)
	return g
}

// strictGroup makes a command without a function of its own show its help, and
// refuse what is not one of its commands.
func strictGroup(g *cobra.Command) {
	g.Args = arguments(cobra.NoArgs)
	g.DisableFlagsInUseLine = true
	g.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// arguments makes what a check refuses an error of usage.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{err, c.CommandPath()}
		}
		return nil
	}
}

// variable is the value of an environment variable.
func (a *app) variable(name string) string {
	for _, v := range a.environ {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}
