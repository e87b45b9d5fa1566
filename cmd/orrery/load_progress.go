package main

import (
	"context"
	"sync"

	"github.com/orrery-project/orrery/proto/controlpb"
)

// loadProgress shows on standard error how the models of one call go on: on a
// terminal as bars that are taken away at the end, else as lines.
type loadProgress struct {
	canvas *canvas // nil: lines
	lines  *progress
	look   func() look
	// mine tells the models of the call from others.
	mine func(*controlpb.ModelProgress) bool

	watch sync.WaitGroup
	stop  context.CancelFunc

	mu     sync.Mutex
	status *controlpb.StartupStatus
	note   string
}

// showLoads shows the progress until end is called.
func (q *query) showLoads(ctx context.Context, mine func(*controlpb.ModelProgress) bool) *loadProgress {
	p := &loadProgress{canvas: q.canvas(q.err), lines: newProgress(q.err), mine: mine}
	p.look = func() look { return q.look(p.canvas, 0) }
	watching, stop := context.WithCancel(ctx)
	p.stop = stop
	p.watch.Go(func() {
		// It tells no more than the call does: an error is the call's to report.
		_ = q.WatchStartup(watching, p.see)
	})
	return p
}

// end takes the bars away: the answer follows, and says more.
func (p *loadProgress) end() {
	p.stop()
	p.watch.Wait()
	if p.canvas != nil {
		p.canvas.clear()
	}
}

func (p *loadProgress) see(s *controlpb.StartupStatus) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = s
	if p.canvas == nil {
		return p.lines.see(s)
	}
	p.draw()
	return nil
}

// say adds what the startup's status does not tell.
func (p *loadProgress) say(note string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if note == p.note {
		return
	}
	p.note = note
	if p.canvas == nil {
		p.lines.print(note)
		return
	}
	p.draw()
}

// seen are the progresses of the call's own models, as last heard.
func (p *loadProgress) seen() []*controlpb.ModelProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own()
}

func (p *loadProgress) own() (own []*controlpb.ModelProgress) {
	for _, m := range p.status.GetModels() {
		if p.mine(m) {
			own = append(own, m)
		}
	}
	return own
}

func (p *loadProgress) draw() {
	if p.status == nil {
		return
	}
	lines := []string{headLine(p.status)}
	if p.note != "" {
		lines = append(lines, p.note)
	}
	if own := p.own(); len(own) > 0 {
		lines = append(lines, modelLines(own, p.look())...)
	}
	p.canvas.draw(lines)
}
