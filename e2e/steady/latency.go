//go:build linux

package main

import (
	"math"
	"time"
)

const (
	// leastLatency is the bound of the lowest bucket, latencyStep the ratio of
	// each bound to the one below: a quantile is at most 2 % too high.
	leastLatency = 10 * time.Microsecond
	latencyStep  = 1.02
	// buckets reach beyond 100 s.
	buckets = 820
)

// latencies count times without keeping each.
type latencies struct {
	counts  [buckets]int
	n       int
	longest time.Duration
}

func (l *latencies) add(d time.Duration) {
	i := 0
	if d > leastLatency {
		i = min(buckets-1, int(math.Ceil(math.Log(float64(d)/float64(leastLatency))/math.Log(latencyStep))))
	}
	l.counts[i]++
	l.n++
	l.longest = max(l.longest, d)
}

func (l *latencies) merge(other *latencies) {
	for i, n := range other.counts {
		l.counts[i] += n
	}
	l.n += other.n
	l.longest = max(l.longest, other.longest)
}

// quantile is the time that a share of all is not above, 0 when there is none.
func (l *latencies) quantile(share float64) time.Duration {
	rank, seen := int(math.Ceil(share*float64(l.n))), 0
	for i, n := range l.counts {
		if seen += n; n > 0 && seen >= rank {
			bound := float64(leastLatency) * math.Pow(latencyStep, float64(i))
			return min(time.Duration(bound), l.longest)
		}
	}
	return 0
}
