//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

// awaitWhole waits until the cluster is as it should be, and sets s.now.
func (s *stage) awaitWhole(ctx context.Context) (err error) {
	s.now, err = bench.AwaitWhole(ctx, s.cluster, wholeTimeout)
	return err
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
		if err := bench.Pause(ctx, 5*time.Millisecond); err != nil {
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
