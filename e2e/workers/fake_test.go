//go:build linux

package main

import "github.com/orrery-project/orrery/internal/devcluster"

// fakeCluster is one of workers that were never started.
func fakeCluster(names ...string) *devcluster.Cluster {
	c := &devcluster.Cluster{}
	for _, name := range names {
		c.Workers = append(c.Workers, &devcluster.Process{Name: name, Members: []string{name}})
	}
	return c
}
