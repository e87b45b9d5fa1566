package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/node"
)

func (a *app) clusterRecoverCommand() *cobra.Command {
	s := &source{}
	var write bool
	c := &cobra.Command{
		Use: "recover --config FILE", Short: "Found the cluster anew from one stopped replica",
		Long: `For a cluster that has lost its majority for good. Run it on one stopped replica
that is left: it shows what that replica holds. Compare what is left, and choose
the one whose last entry is of the highest term and then of the highest index.

There, and only there, run it again with --write: the replica becomes the only
voter of its cluster, and keeps all that it holds. What others acknowledged and
this one never got is lost. Start it, then empty the data_dir of every other
replica and start those: they join by themselves. Workers may stay as they are.

A new epoch begins, so workers refuse any former leader that should turn up.`,
		Example: "  orrery cluster recover --config controller.yaml\n  orrery cluster recover --config controller.yaml --write",
		Args:    arguments(cobra.NoArgs),
	}
	s.flags(c, controllerKeys())
	c.Flags().BoolVar(&write, "write", false, "do it; without this nothing is changed")
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := load(c, a, s, configs.LoadController)
		if config == nil {
			return err
		}
		log := newLogger(a.err, config.Log)
		if !write {
			log = nil
		}
		r, err := node.Recover(config, write, node.Options{Version: buildVersion(), Logger: log})
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "replica     %s in %s\n", r.ID, config.DataDir)
		fmt.Fprintf(a.out, "last entry  index %d, term %d\n", r.LastIndex, r.LastTerm)
		fmt.Fprintf(a.out, "replicas    as it knew them: %s\n", r.Servers)
		if write {
			fmt.Fprintf(a.out, "recovered: it is the only voter now; start it, then empty the data_dir of each other replica and start those\n")
		} else {
			fmt.Fprintf(a.out, "nothing was changed; --write makes this replica the only voter of its cluster\n")
		}
		return nil
	}
	return c
}
