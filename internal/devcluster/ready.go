package devcluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// readyPoll is the pause between two looks at the cluster.
const readyPoll = 50 * time.Millisecond

// WaitReady waits until every controller knows the leader and is a voter, and
// every worker that was ever started has a session. It fails when a process has exited or ctx ends.
func (c *Cluster) WaitReady(ctx context.Context) error {
	var last error
	for {
		missing, err := c.missing(ctx)
		if err != nil || missing == nil {
			return err
		}
		// A look that was cut short says nothing about the cluster.
		if ctx.Err() == nil || last == nil {
			last = missing
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster did not become ready: %w: %w", context.Cause(ctx), last)
		case <-time.After(readyPoll):
		}
	}
}

// missing is what keeps the cluster from being ready; err is what makes waiting
// useless.
func (c *Cluster) missing(ctx context.Context) (missing, err error) {
	for _, p := range c.All() {
		if p.hasExited() {
			return nil, fmt.Errorf("%s has exited (%v); the end of its log:\n%s", p.Name, p.Wait(), p.LogTail(15))
		}
	}
	for _, p := range c.Controllers {
		if missing := c.missingAt(ctx, p); missing != nil {
			return fmt.Errorf("%s says: %w", p.Name, missing), nil
		}
	}
	return nil, nil
}

// missingAt asks one controller.
func (c *Cluster) missingAt(ctx context.Context, p *Process) error {
	conn, err := rpc.Connect(p.Addresses["control"], rpc.DialTCP, 4<<20)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client := controlpb.NewControlClient(conn)
	status, err := client.ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
	if err != nil {
		return err
	}
	voters := 0
	for _, r := range status.Replicas {
		if r.Voter {
			voters++
		}
	}
	if status.Leader == "" || voters < len(c.Controllers) {
		return fmt.Errorf("the leader is %q, and %d of %d replicas are voters", status.Leader, voters, len(c.Controllers))
	}
	workers, err := client.ListWorkers(ctx, &controlpb.ListWorkersRequest{})
	if err != nil {
		return err
	}
	connected := map[string]bool{}
	for _, w := range workers.Workers {
		connected[w.Worker.GetName()] = w.Live.GetConnected()
	}
	for _, p := range c.Workers {
		if p.now() == nil {
			continue
		}
		for _, name := range p.Members {
			if !connected[name] {
				return errors.New("worker " + name + " has no session")
			}
		}
	}
	return nil
}
