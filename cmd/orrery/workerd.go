package main

import (
	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/node"
)

func (a *app) workerdCommand() *cobra.Command {
	s := &source{}
	c := &cobra.Command{
		Use: "workerd --config FILE", Short: "Run a worker daemon",
		Long: `Runs a worker until SIGINT or SIGTERM, which let what runs finish; a second one
ends it at once. SIGHUP reads the configuration again and applies what may
change at run time.

Any key of the configuration but devices can be overridden by a variable:
listen.session by ORRERY_LISTEN_SESSION. The flags below do so for keys that
differ between workers, so that all can have the same file.`,
		Example: "  orrery workerd --config worker.yaml --name w7",
		Args:    arguments(cobra.NoArgs),
	}
	s.flags(c, map[string][2]string{
		"name":      {"ORRERY_NAME", "name of this worker, overriding the file's"},
		"model-dir": {"ORRERY_MODEL_DIR", "folder that models are loaded from, overriding the file's"},
	})
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := load(c, a, s, configs.LoadWorker)
		if config == nil {
			return err
		}
		return a.runWorker(c, s, config)
	}
	return c
}

func (a *app) runWorker(c *cobra.Command, s *source, config *configs.Worker) error {
	received, stop := hangups()
	defer stop()
	log := newLogger(a.err, config.Log)
	n, err := node.NewWorker(config, node.Options{Version: buildVersion(), Logger: log})
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
