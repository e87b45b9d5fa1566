//go:build linux

package main

import (
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// read finds in the logs since the marks when the steps of a succession were
// done: the first of each.
func (p *part) read(marks []bench.Mark, from time.Time) {
	first := func(at *float64, when time.Time) {
		// A log has milliseconds alone.
		if since := max(bench.MS(when.Sub(from)), 0.1); *at == 0 || since < *at {
			*at = since
		}
	}
	for _, m := range marks {
		for e := range m.Since() {
			switch {
			case e.Says(bench.Stood):
				p.Candidacies++
				first(&p.Stood, e.At)
			case e.Says(bench.Elected):
				first(&p.Elected, e.At)
			case e.Says(bench.Leading):
				first(&p.Leading, e.At)
			}
		}
	}
}
