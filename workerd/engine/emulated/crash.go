package emulated

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// Where a model that kills its worker does so.
const (
	crashOnLoad    = "load"
	crashOnWeights = "weights"
	crashOnRun     = "run"
)

// crash says when a model kills its worker. The zero value is never.
type crash struct {
	on string
	// from is the run of the process in which it does, counted from 1, and in all later ones; of crashOnRun.
	from int
}

// crash reads a cell of the column crash_on.
func (r tableRow) crash(column int) (crash, error) {
	if column < 0 {
		return crash{}, nil
	}
	words := strings.Fields(r.cells[column])
	switch {
	case len(words) == 0:
		return crash{}, nil
	case len(words) == 1 && (words[0] == crashOnLoad || words[0] == crashOnWeights || words[0] == crashOnRun):
		return crash{on: words[0], from: 1}, nil
	case len(words) == 2 && words[0] == crashOnRun:
		if from, err := strconv.Atoi(words[1]); err == nil && from >= 1 {
			return crash{on: crashOnRun, from: from}, nil
		}
	}
	return crash{}, r.badCell(column, "load, weights, run, or run N with N from 1")
}

// crashes kills the worker when a model says so. It is shared by all that an engine has loaded: what is loaded anew counts on.
type crashes struct {
	kill func()

	mu   sync.Mutex
	runs map[string]int // of models that crash in a run, by digest
}

// reached is called where a model may kill the worker. Should that not end the process, the error is the outcome.
func (c *crashes) reached(on string, p *profile) error {
	if p.crash.on != on || on == crashOnRun && c.count(p) < p.crash.from {
		return nil
	}
	c.kill()
	return fmt.Errorf("%w: %s crashes on %s", ErrEmulatedFailure, p.name, on)
}

// count counts one more run.
func (c *crashes) count(p *profile) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs[p.digest]++
	return c.runs[p.digest]
}
