package main

import (
	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/node"
)

func (a *app) controllerCommand() *cobra.Command {
	s := &source{}
	c := &cobra.Command{
		Use: "controller --config FILE", Short: "Run a controller",
		Long: `Runs one replica of the controller until SIGINT or SIGTERM, which hand
leadership over and let requests in hand finish; a second one ends it at once.
SIGHUP reads the configuration again and applies what may change at run time.

Any key of the configuration can be overridden by a variable: raft.leader_lease
by ORRERY_RAFT_LEADER_LEASE. The flags below do so for keys that differ between
replicas, so that all can have the same file.`,
		Example: "  orrery controller --config controller.yaml --name c2 --data-dir /var/lib/orrery/c2",
		Args:    arguments(cobra.NoArgs),
	}
	s.flags(c, controllerKeys())
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := load(c, a, s, configs.LoadController)
		if config == nil {
			return err
		}
		return a.runController(c, s, config)
	}
	return c
}

// controllerKeys are the flags for keys that differ between replicas.
func controllerKeys() map[string][2]string {
	return map[string][2]string{
		"name":     {"ORRERY_NAME", "name of this replica, overriding the file's"},
		"data-dir": {"ORRERY_DATA_DIR", "folder of the log and the snapshots, overriding the file's"},
	}
}

func (a *app) runController(c *cobra.Command, s *source, config *configs.Controller) error {
	received, stop := hangups()
	defer stop()
	log := newLogger(a.err, config.Log)
	n, err := node.NewController(config, node.Options{Version: buildVersion(), Logger: log, Die: a.die})
	if err != nil {
		return err
	}
	d := &daemon{run: n.Run, patience: config.ShutdownTimeout, log: log, reload: func() ([]string, error) {
		next, err := configs.LoadController(s.file, s.environment(a.environ))
		if err != nil {
			return nil, err
		}
		return n.Reload(next)
	}}
	return d.serve(c.Context(), received)
}
