package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// healthPoll is between two looks at a cluster that is not whole yet. Looks are
// not free, so there are few.
const healthPoll = 100 * time.Millisecond

// callTimeout bounds one question to a controller.
const callTimeout = 3 * time.Second

// View is who leads.
type View struct {
	Leader string
	Term   float64
}

// AwaitWhole waits until a cluster is whole.
func AwaitWhole(ctx context.Context, c *devcluster.Cluster, within time.Duration) (View, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		v, err := Whole(ctx, c)
		if err == nil {
			return v, nil
		}
		if Pause(ctx, healthPoll) != nil {
			return v, fmt.Errorf("the cluster is not whole within %v: %w", within, err)
		}
	}
}

// Whole looks whether a cluster is as it should be: one leader whom all follow,
// all serve, all workers have sessions, all replicas are voters with equal
// digests. The error says what is not.
func Whole(ctx context.Context, c *devcluster.Cluster) (v View, err error) {
	for _, p := range c.Controllers {
		m, err := Metrics(ctx, p)
		if err != nil {
			return v, err
		}
		if m["orrery_ready"] != 1 {
			return v, fmt.Errorf("%s is not ready", p.Name)
		}
		if m["orrery_leader"] == 1 {
			if v.Leader != "" {
				return v, fmt.Errorf("%s and %s lead", v.Leader, p.Name)
			}
			v.Leader = p.Name
		}
		v.Term = max(v.Term, m["orrery_raft_term"])
	}
	if v.Leader == "" {
		return v, errors.New("nobody leads")
	}
	if err := c.WaitReady(ctx); err != nil {
		return v, err
	}
	for _, p := range c.Controllers {
		if err := agreed(ctx, p, v.Leader, len(c.Controllers)); err != nil {
			return v, fmt.Errorf("%s says: %w", p.Name, err)
		}
	}
	return v, nil
}

// agreed asks one controller about all.
func agreed(ctx context.Context, p *devcluster.Process, leader string, replicas int) error {
	conn, err := rpc.Connect(p.Addresses["control"], rpc.DialTCP, 4<<20)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	status, err := controlpb.NewControlClient(conn).ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
	if err != nil {
		return err
	}
	if status.Leader != leader || len(status.Replicas) != replicas {
		return fmt.Errorf("the leader is %q, not %s, and there are %d replicas", status.Leader, leader, len(status.Replicas))
	}
	for _, r := range status.Replicas {
		if !r.Voter || !r.Reachable || r.Digest == "" || r.Digest != status.Replicas[0].Digest {
			return fmt.Errorf("replica %s: voter %v, reachable %v, digest %.8q beside %.8q %s",
				r.Name, r.Voter, r.Reachable, r.Digest, status.Replicas[0].Digest, r.Error)
		}
	}
	return nil
}

// Metrics are the figures that a process shows, those with labels by their
// names with these behind, as it writes them: orrery_workers{state="ready"}.
func Metrics(ctx context.Context, p *devcluster.Process) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addresses["http"]+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		var name string
		var value float64
		if n, _ := fmt.Sscan(line, &name, &value); n == 2 {
			all[name] = value
		}
	}
	return all, nil
}
