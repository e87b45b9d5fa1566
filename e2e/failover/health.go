//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// healthPoll is between two looks at a cluster that is not whole yet. Looks are
// not free, so there are few.
const healthPoll = 100 * time.Millisecond

// view is who leads.
type view struct {
	leader string
	term   float64
}

// awaitWhole waits until the cluster is as it should be: one leader whom all
// follow, all serve, all workers have sessions, all replicas are voters with
// equal digests. It sets s.now.
func (s *stage) awaitWhole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	for {
		v, err := s.whole(ctx)
		if err == nil {
			s.now = v
			return nil
		}
		if pause(ctx, healthPoll) != nil {
			return fmt.Errorf("the cluster is not whole within %v: %w", wholeTimeout, err)
		}
	}
}

func (s *stage) whole(ctx context.Context) (v view, err error) {
	for _, p := range s.cluster.Controllers {
		m, err := metrics(ctx, p)
		if err != nil {
			return v, err
		}
		if m["orrery_ready"] != 1 {
			return v, fmt.Errorf("%s is not ready", p.Name)
		}
		if m["orrery_leader"] == 1 {
			if v.leader != "" {
				return v, fmt.Errorf("%s and %s lead", v.leader, p.Name)
			}
			v.leader = p.Name
		}
		v.term = max(v.term, m["orrery_raft_term"])
	}
	if v.leader == "" {
		return v, errors.New("nobody leads")
	}
	if err := s.cluster.WaitReady(ctx); err != nil {
		return v, err
	}
	for _, p := range s.cluster.Controllers {
		if err := agreed(ctx, p, v.leader, len(s.cluster.Controllers)); err != nil {
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

// metrics are the figures without labels that a process shows.
func metrics(ctx context.Context, p *devcluster.Process) (map[string]float64, error) {
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

// awaitListening returns when the first of some controllers accepts
// connections at its control listener.
func awaitListening(ctx context.Context, some ...*devcluster.Process) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	for {
		for _, p := range some {
			conn, err := net.DialTimeout("tcp", p.Addresses["control"], callTimeout)
			if err == nil {
				return time.Now(), conn.Close()
			}
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return time.Time{}, fmt.Errorf("no controller listens within %v: %w", wholeTimeout, err)
		}
	}
}

// controller is the one of that name, others are the rest.
func (s *stage) controller(name string) (p *devcluster.Process, others []*devcluster.Process) {
	p = s.cluster.Controller(name)
	others = slices.DeleteFunc(slices.Clone(s.cluster.Controllers), func(o *devcluster.Process) bool { return o == p })
	return p, others
}
