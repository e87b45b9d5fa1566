//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// What a quiet machine is held to.
const (
	goodputBound = 0.03
	p99Bound     = 0.10
	p99Slack     = 2 * time.Millisecond
)

// apart says how far the two worlds are from each other: goodput as a share, p99
// as a time.
func (p pair) apart() (goodput float64, p99 time.Duration) {
	return p.simulated.goodput/p.real.goodput - 1, p.simulated.p99 - p.real.p99
}

// within says whether they are as close as is to be.
func (p pair) within() bool {
	goodput, p99 := p.apart()
	most := max(time.Duration(p99Bound*float64(p.real.p99)), p99Slack)
	return math.Abs(goodput) <= goodputBound && p99.Abs() <= most
}

// summarise prints both worlds side by side. An error says which loads are
// further apart than they may be.
func summarise(w io.Writer, all []pair) error {
	fmt.Fprintln(w, "| load | | in time | goodput | p50 | p99 | p99 at the client | rows a batch |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	var errs []error
	for _, p := range all {
		line := func(load, world string, f figures) {
			client := ""
			if f.atClient > 0 {
				client = ms(f.atClient)
			}
			fmt.Fprintf(w, "| %s | %s | %.2f %% | %.1f/s | %s | %s | %s | %.2f |\n",
				load, world, 100*f.attainment(), f.goodput, ms(f.p50), ms(f.p99), client, f.batchRows)
		}
		line(p.name, "real processes", p.real)
		line("", "simulated", p.simulated)
		goodput, p99 := p.apart()
		fmt.Fprintf(w, "| | simulated against real | | %+.1f %% | | %+.1f ms | | |\n", 100*goodput, float64(p99)/float64(time.Millisecond))
		if !p.within() {
			errs = append(errs, fmt.Errorf("load %s: goodput differs by %+.1f %%, p99 by %v; on a quiet machine at most %v %%, and %v %% or %v",
				p.name, 100*goodput, p99, 100*goodputBound, 100*p99Bound, p99Slack))
		}
	}
	for _, p := range all {
		fmt.Fprintf(w, "\n%s: real batches took %v longer than the table says in the mean; %v", p.name, p.real.lateness.Round(time.Microsecond), p.busy)
	}
	fmt.Fprintln(w)
	return errors.Join(errs...)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
