//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
)

// changes are what has happened to the leadership and to the workers' sessions.
type changes struct {
	// terms is by how much the newest term rose: each is an election, won or not.
	terms int
	// leaders took the leadership over.
	leaders int
	// stood is how often a follower missed its leader and asked whether others do,
	// too, which alone disturbs nobody.
	stood int
	// lost are workers' sessions.
	lost int
}

func (c changes) elections() int { return max(c.terms, c.leaders) }

// watch sees changes since it began.
type watch struct {
	controllers []*devcluster.Process
	marks       []bench.Mark
	term        float64
	// tell is told the lines of the logs that matter; told is how many they were.
	tell func(line string)
	told int
}

// mostTold bounds the lines that are told.
const mostTold = 40

func startWatch(ctx context.Context, c *devcluster.Cluster, tell func(line string)) (w *watch, err error) {
	w = &watch{controllers: c.Controllers, tell: tell}
	if w.marks, err = bench.MarkLogs(c.Controllers); err != nil {
		return nil, err
	}
	w.term, err = w.newest(ctx)
	return w, err
}

// newest is the newest term that any controller knows. A controller that does
// not answer at once is asked again: it may be starved.
func (w *watch) newest(ctx context.Context) (newest float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	for _, p := range w.controllers {
		for {
			m, err := bench.Metrics(ctx, p)
			if err == nil {
				newest = max(newest, m["orrery_raft_term"])
				break
			}
			if bench.Pause(ctx, 100*time.Millisecond) != nil {
				return 0, fmt.Errorf("ask %s for its term: %w", p.Name, err)
			}
		}
	}
	return newest, nil
}

// look returns all changes so far, and tells those that are new.
func (w *watch) look(ctx context.Context) (c changes, err error) {
	term, err := w.newest(ctx)
	if err != nil {
		return c, err
	}
	c.terms = int(term - w.term)
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	for i, m := range w.marks {
		for e := range m.Since() {
			switch {
			case e.Says(bench.Stood):
				c.stood++
			case e.Says(bench.Leading):
				c.leaders++
			case e.Says(bench.WorkerLost):
				c.lost++
			default:
				if !bytes.HasPrefix(e.Text, []byte("[WARN]")) && !bytes.HasPrefix(e.Text, []byte("[ERROR]")) {
					continue
				}
			}
			lines = append(lines, line{e.At, fmt.Sprintf("%s %s %s", e.At.UTC().Format("15:04:05.000"), w.controllers[i].Name, e.Text)})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	for ; w.told < min(len(lines), mostTold); w.told++ {
		w.tell(fmt.Sprintf("%.200s", lines[w.told].text))
	}
	return c, nil
}
