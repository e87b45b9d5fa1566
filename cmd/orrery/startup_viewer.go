package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/orrery-project/orrery/proto/controlpb"
)

// listenInterval is how often a watch makes sure that somebody answers: a status
// comes only when it changes, so that silence says nothing.
const listenInterval = 5 * time.Second

// startupViewer shows each status of the startup in the form that was asked for.
type startupViewer struct {
	q      *query
	models int
	canvas *canvas // nil: lines, or JSON
	lines  *progress

	mu     sync.Mutex
	screen []string
	// lost: nobody answers, which has been told.
	lost bool
}

func (q *query) startupViewer(models int) *startupViewer {
	v := &startupViewer{q: q, models: models, lines: newProgress(q.out)}
	if q.output != "json" {
		v.canvas = q.canvas(q.out)
	}
	return v
}

func (v *startupViewer) see(s *controlpb.StartupStatus) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lost = false
	switch {
	case v.q.output == "json":
		return v.q.showLine(s)
	case v.canvas == nil:
		return v.lines.see(s)
	}
	v.screen = startupScreen(s, v.q.look(v.canvas, v.models))
	v.canvas.draw(v.screen)
	return nil
}

// answered tells once that nobody answers, or on a terminal that somebody does again.
func (v *startupViewer) answered(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if lost := err != nil; lost == v.lost {
		return
	}
	v.lost = err != nil
	switch {
	case v.canvas != nil && v.lost:
		v.canvas.draw(append([]string{"no controller answers; what follows is what was heard last"}, v.screen...))
	case v.canvas != nil:
		v.canvas.draw(v.screen)
	case v.lost:
		fmt.Fprintf(v.q.err, "orrery: %v; the watch goes on\n", err)
	}
}

// listen asks now and then, until ctx ends, so that the viewer can tell when no
// controller answers any more.
func (q *query) listen(ctx context.Context, v *startupViewer) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenInterval):
		}
		asking, cancel := context.WithTimeout(ctx, listenInterval)
		_, err := q.Startup(asking)
		cancel()
		if ctx.Err() == nil {
			v.answered(err)
		}
	}
}
