package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/devcluster"
)

// readyTimeout bounds the start of a throw-away cluster.
const readyTimeout = 30 * time.Second

// devOptions are the flags of `orrery dev`.
type devOptions struct {
	controllers, workers int
	modelDir, loadIdle   string
	engines              []string
}

func (a *app) devCommand() *cobra.Command {
	o := &devOptions{}
	c := &cobra.Command{
		Use: "dev", Short: "Run a throw-away cluster on this machine until Ctrl-C",
		Long: `Runs controllers and workers as processes of their own on loopback, with ports
that are free, and prints how to use them. On Ctrl-C all of it is gone.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.dev(c, o) },
	}
	f := c.Flags()
	f.IntVar(&o.controllers, "controllers", 3, "1, 3, 5 or 7")
	f.IntVar(&o.workers, "workers", 2, "at least 1")
	f.StringVar(&o.modelDir, "model-dir", "", "folder that models are loaded from (default ./models if there is one)")
	f.StringSliceVar(&o.engines, "engine", []string{"gomlx"}, "engines of the workers: gomlx, emulated")
	f.StringVar(&o.loadIdle, "load-idle", "2s", "how long after the last load the cluster waits for another before it serves")
	return c
}

func (a *app) dev(c *cobra.Command, o *devOptions) error {
	if o.controllers < 1 || o.workers < 1 {
		return usageError{errors.New("a cluster has at least one controller and one worker"), c.CommandPath()}
	}
	if o.controllers > 7 || o.controllers%2 == 0 {
		return usageError{fmt.Errorf("--controllers is %d; write 1, 3, 5 or 7", o.controllers), c.CommandPath()}
	}
	dir, err := modelDir(o.modelDir)
	if err != nil {
		return err
	}
	cluster, err := startCluster(c.Context(), a, devcluster.Options{
		Controllers: o.controllers, Workers: o.workers, ModelDir: dir, Engines: o.engines,
		ControllerKeys: map[string]string{"startup.load_idle": o.loadIdle},
	})
	if err != nil {
		return err
	}
	a.printCluster(cluster, dir, o)
	a.watchProcesses(c.Context(), cluster)
	fmt.Fprintln(a.out, "\nstopping …")
	return cluster.Stop()
}

// startCluster starts a cluster of this executable.
func startCluster(ctx context.Context, a *app, o devcluster.Options) (*devcluster.Cluster, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this executable: %w", err)
	}
	o.Binary, o.Log = binary, a.err
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return devcluster.Start(ctx, o)
}

// modelDir is the absolute path of the folder of models.
func modelDir(given string) (string, error) {
	path := given
	if path == "" {
		path = "models"
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return "", fmt.Errorf("there is no folder %s; name the folder of the models by a flag", path)
	}
	return filepath.Abs(path)
}

func (a *app) printCluster(c *devcluster.Cluster, models string, o *devOptions) {
	t := newTable(a.out, "NAME", "PID", "LISTENERS", "LOG")
	for _, p := range c.All() {
		listeners := []string{"session", "http"}
		if p.Kind == devcluster.Controller {
			listeners = []string{"inference", "http", "control"}
		}
		for i, l := range listeners {
			listeners[i] = l + " " + p.Addresses[l]
		}
		t.row(p.Name, fmt.Sprint(p.PID()), strings.Join(listeners, ", "), p.Log)
	}
	t.flush()
	fmt.Fprintf(a.out, `
The cluster is ready; Ctrl-C ends it. In another terminal:

  export %s=%s
  export %s=%s
`, configs.EnvControl, strings.Join(c.Addresses("control"), ","), configs.EnvInferenceAddress, strings.Join(c.Addresses("inference"), ","))
	for _, line := range examples(models, o.engines) {
		fmt.Fprintln(a.out, "  "+line)
	}
	fmt.Fprintf(a.out, "\nThe cluster serves %s after the last load (--load-idle; a real one waits 10s). "+
		"For more loads after that: orrery startup reopen\n", o.loadIdle)
}

// examples are commands that the cluster's engines and models make sense for.
func examples(models string, engines []string) []string {
	if !slices.Contains(engines, "gomlx") {
		return []string{"orrery model load resnet50 --source 'profiles.csv#resnet50_v2'", "orrery model status resnet50"}
	}
	found, err := filepath.Glob(filepath.Join(models, "*.onnx"))
	if err != nil || len(found) == 0 {
		return []string{"orrery cluster status"}
	}
	source := filepath.Base(found[len(found)-1])
	name := strings.TrimSuffix(source, ".onnx")
	lines := []string{fmt.Sprintf("orrery model load %s --source %s", name, source)}
	if images, err := filepath.Glob(filepath.Join(models, "images", "*.png")); err == nil && len(images) > 0 {
		lines = append(lines, fmt.Sprintf("orrery infer %s --image %s --labels %s", name, images[0], filepath.Join(models, "labels.txt")))
	}
	return lines
}

// watchProcesses tells of processes that end by themselves, or are killed by
// whoever tries out what happens then, until ctx ends.
func (a *app) watchProcesses(ctx context.Context, c *devcluster.Cluster) {
	ended := make(chan *devcluster.Process)
	var wait sync.WaitGroup
	defer wait.Wait()
	for _, p := range c.All() {
		wait.Go(func() {
			select {
			case <-p.Exited():
			case <-ctx.Done():
				return
			}
			select {
			case ended <- p:
			case <-ctx.Done():
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-ended:
			fmt.Fprintf(a.err, "%s has ended (%v)\n", p.Name, p.Wait())
		}
	}
}
