package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/configs"
)

// daemon is a controller or a worker with its process around it.
type daemon struct {
	run func(context.Context) error
	// reload reads the configuration again, and returns the keys that it
	// applied and what it could not apply.
	reload func() (applied []string, err error)
	// patience is how long an orderly end may take.
	patience time.Duration
	log      hclog.Logger
}

// serve runs until ctx ends or run does, and reloads at each hangup.
func (d *daemon) serve(ctx context.Context, hangups <-chan os.Signal) error {
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }() // outlived only by a process that is cut off
	for {
		select {
		case err := <-ended:
			return err
		case <-hangups:
			d.reloadNow()
		case <-ctx.Done():
			d.log.Info("stopping; a second signal stops at once", "patience", d.patience)
			cut := time.NewTimer(d.patience)
			defer cut.Stop()
			select {
			case err := <-ended:
				return err
			case <-cut.C:
				return fmt.Errorf("cut off: the orderly end took longer than %v (shutdown_timeout)", d.patience)
			}
		}
	}
}

func (d *daemon) reloadNow() {
	applied, err := d.reload()
	if len(applied) > 0 {
		d.log.Info("configuration applied", "keys", applied)
	}
	switch {
	case err != nil:
		d.log.Error("configuration not applied, or not all of it", "error", err)
	case len(applied) == 0:
		d.log.Info("configuration unchanged")
	}
}

// die ends the process at once. Nothing is waited for: what waits may wait for
// a disk that hangs.
func (a *app) die(err error) { os.Exit(a.report(err)) }

// hangups receives SIGHUP until stop is called.
func hangups() (received <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// newLogger makes the log of a daemon. Its level can be changed.
func newLogger(w io.Writer, config configs.Log) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Level: hclog.LevelFromString(config.Level), JSONFormat: config.Format == "json", Output: w,
	})
}

// source is where a daemon's configuration comes from.
type source struct {
	file  string
	check bool
	// overrides are flags that stand for keys: by variable, the value.
	overrides map[string]*string
}

// flags adds those that each daemon has; keys are flags that override a key,
// by the flag's name: its variable and what it is.
func (s *source) flags(c *cobra.Command, keys map[string][2]string) {
	f := c.Flags()
	f.StringVar(&s.file, "config", "", "path of the configuration; required")
	f.BoolVar(&s.check, "check-config", false, "report what is wrong with the configuration, and exit")
	s.overrides = map[string]*string{}
	for flag, key := range keys {
		s.overrides[key[0]] = f.String(flag, "", key[1])
	}
}

// environment is environ with the flags that were given laid over it.
func (s *source) environment(environ []string) []string {
	result := slices.Clone(environ)
	for variable, value := range s.overrides {
		if *value != "" {
			result = append(result, variable+"="+*value)
		}
	}
	return result
}

// load loads a configuration by load. It returns nil after a mere check.
func load[Config any](c *cobra.Command, a *app, s *source, load func(string, []string) (*Config, error)) (*Config, error) {
	if s.file == "" {
		return nil, usageError{errors.New("--config is missing: give the path of the configuration"), c.CommandPath()}
	}
	config, err := load(s.file, s.environment(a.environ))
	if err != nil {
		return nil, err
	}
	if s.check {
		fmt.Fprintf(a.out, "%s is valid\n", s.file)
		return nil, nil
	}
	return config, nil
}
