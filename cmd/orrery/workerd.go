package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/node"
)

// mostWorkers bounds --count.
const mostWorkers = 1000

// workers is one worker, or many in this process.
type workers interface {
	Run(ctx context.Context) error
	Reload(next *configs.Worker) (applied []string, err error)
}

func (a *app) workerdCommand() *cobra.Command {
	s := &source{}
	count := 1
	c := &cobra.Command{
		Use: "workerd --config FILE", Short: "Run a worker daemon",
		Long: `Runs a worker until SIGINT or SIGTERM, which let what runs finish; a second one
ends it at once. SIGHUP reads the configuration again and applies what may
change at run time.

Any key of the configuration but devices can be overridden by a variable:
listen.session by ORRERY_LISTEN_SESSION. The flags below do so for keys that
differ between workers, so that all can have the same file.

For rehearsals, --count runs many workers in this process, each a whole one,
called NAME-1, NAME-2 and so on. Their sessions and gossip get ports that are
free, on the hosts of listen.session and listen.gossip; /metrics is one for all.
One that fails, or a model that crashes, ends them all.`,
		Example: `  orrery workerd --config worker.yaml --name w7
  orrery workerd --config rehearsal.yaml --count 100`,
		Args: arguments(cobra.NoArgs),
	}
	s.flags(c, map[string][2]string{
		"name":      {"ORRERY_NAME", "name of this worker, overriding the file's"},
		"model-dir": {"ORRERY_MODEL_DIR", "folder that models are loaded from, overriding the file's"},
	})
	c.Flags().IntVar(&count, "count", 1, fmt.Sprintf("for rehearsals: how many workers to run in this process, at most %d", mostWorkers))
	c.RunE = func(c *cobra.Command, _ []string) error {
		if count < 1 || count > mostWorkers {
			return usageError{fmt.Errorf("--count is %d; write 1 to %d", count, mostWorkers), c.CommandPath()}
		}
		config, err := load(c, a, s, configs.LoadWorker)
		if config == nil {
			return err
		}
		return a.runWorker(c, s, config, count)
	}
	return c
}

func (a *app) runWorker(c *cobra.Command, s *source, config *configs.Worker, count int) error {
	received, stop := hangups()
	defer stop()
	log := newLogger(a.err, config.Log)
	n, err := newWorkers(config, count, log)
	if err != nil {
		return err
	}
	d := &daemon{run: n.Run, patience: config.ShutdownTimeout, log: log, reload: func() ([]string, error) {
		next, err := configs.LoadWorker(s.file, s.environment(a.environ))
		if err != nil {
			return nil, err
		}
		return n.Reload(next)
	}}
	return d.serve(c.Context(), received)
}

func newWorkers(config *configs.Worker, count int, log hclog.Logger) (workers, error) {
	options := node.Options{Version: buildVersion(), Logger: log}
	if count > 1 {
		return node.NewFleet(config, count, options)
	}
	return node.NewWorker(config, options)
}
