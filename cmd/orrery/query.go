package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/configs"
)

// The defaults are those of a controller on this machine.
const (
	defaultControl   = "127.0.0.1:8010"
	defaultInference = "127.0.0.1:8001"
)

// query is a command that calls a cluster: its flags, and the client for it.
type query struct {
	*app
	*client.Client
	control, inference []string
	output, tenant     string
	timeout            time.Duration
}

// asks makes c a command that calls the control listener. timeout is the
// default of that flag.
func (a *app) asks(c *cobra.Command, timeout time.Duration, run func(context.Context, *query, []string) error) *cobra.Command {
	q := &query{app: a}
	q.addressFlag(c, &q.control, "control", configs.EnvControl, defaultControl)
	return q.command(c, timeout, run)
}

// infers makes c a command that calls the inference listener.
func (a *app) infers(c *cobra.Command, timeout time.Duration, run func(context.Context, *query, []string) error) *cobra.Command {
	q := &query{app: a}
	q.addressFlag(c, &q.inference, "inference", configs.EnvInferenceAddress, defaultInference)
	c.Flags().StringVar(&q.tenant, "tenant", "", "whose request it is: tenants get fair shares")
	return q.command(c, timeout, run)
}

func (q *query) addressFlag(c *cobra.Command, to *[]string, name, variable, address string) {
	value := strings.Split(cmp.Or(q.variable(variable), address), ",")
	c.Flags().StringSliceVar(to, name, value, "`ADDRESS,…` of controllers ("+variable+")")
}

func (q *query) outputFlag(c *cobra.Command) {
	c.Flags().StringVarP(&q.output, "output", "o", cmp.Or(q.variable(configs.EnvOutput), "table"), "table or json ("+configs.EnvOutput+")")
}

func (q *query) checkOutput(c *cobra.Command) error {
	if q.output != "table" && q.output != "json" {
		return usageError{fmt.Errorf("--output is %q: it must be table or json", q.output), c.CommandPath()}
	}
	return nil
}

func (q *query) command(c *cobra.Command, timeout time.Duration, run func(context.Context, *query, []string) error) *cobra.Command {
	q.outputFlag(c)
	c.Flags().DurationVar(&q.timeout, "timeout", timeout, "how long to wait for the cluster")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := q.checkOutput(c); err != nil {
			return err
		}
		if q.timeout <= 0 {
			return usageError{fmt.Errorf("--timeout is %v: it must be above 0", q.timeout), c.CommandPath()}
		}
		var err error
		q.Client, err = client.New(client.Options{Inference: q.inference, Control: q.control, Dial: q.dial, Name: "orrery", Tenant: q.tenant})
		if err != nil {
			return err
		}
		defer q.Client.Close()
		ctx, cancel := context.WithTimeout(c.Context(), q.timeout)
		defer cancel()
		return run(ctx, q, args)
	}
	return c
}

// staleFlag lets a command's answer be stale.
func staleFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("stale", false, "answer from what the controller knows, without asking the leader")
}
