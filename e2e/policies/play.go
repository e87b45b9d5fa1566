//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/orrery-project/orrery/scheduler"
	"github.com/orrery-project/orrery/scheduler/sim"
)

// boundTitle is the title of the column of pooled models.
const boundTitle = "bound"

// column is who plays.
type column struct {
	title, policy string
	pooled        bool
}

func (o *options) columns() (all []column) {
	for _, name := range o.policies {
		all = append(all, column{title: name, policy: name})
	}
	if o.bound != "" {
		all = append(all, column{title: boundTitle, policy: o.bound, pooled: true})
	}
	return all
}

// cell is a workload as one column plays it.
type cell struct {
	workload *workload
	column   column
	// values are by seed, and then by figure.
	values [][]float64
	took   time.Duration
	// left counts the seeds that are still to be played, and played is closed
	// when there are none. err is of the first that failed.
	left   int
	played chan struct{}
	err    error
}

// plays are all cells while they are played, in order.
type plays struct {
	options options
	cells   map[*workload][]*cell // by column
	all     sync.WaitGroup

	mu   sync.Mutex // guards what cells hold
	errs []error
}

// start begins to play all workloads of the tables. wait must be called.
func start(ctx context.Context, o options, tables []table) *plays {
	p := &plays{options: o, cells: map[*workload][]*cell{}}
	type task struct {
		cell *cell
		seed int
	}
	var tasks []task
	for _, t := range tables {
		for i := range t.workloads {
			w := &t.workloads[i]
			for _, c := range o.columns() {
				one := &cell{workload: w, column: c, values: make([][]float64, o.seeds), left: o.seeds, played: make(chan struct{})}
				p.cells[w] = append(p.cells[w], one)
				if c.pooled && !w.bound {
					one.left = 0
					close(one.played)
					continue
				}
				for seed := range o.seeds {
					tasks = append(tasks, task{one, seed})
				}
			}
		}
	}
	queue := make(chan task, len(tasks))
	for _, t := range tasks {
		queue <- t
	}
	close(queue)
	for range o.jobs {
		p.all.Go(func() {
			for t := range queue {
				p.one(ctx, t.cell, t.seed)
			}
		})
	}
	return p
}

// wait returns when nothing is played any more.
func (p *plays) wait() error {
	p.all.Wait()
	return errors.Join(p.errs...)
}

// one plays a cell with one seed.
func (p *plays) one(ctx context.Context, c *cell, seed int) {
	began := time.Now()
	values, err := p.figures(ctx, c, p.options.seed+uint64(seed))
	p.mu.Lock()
	defer p.mu.Unlock()
	c.values[seed] = values
	c.took += time.Since(began)
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("workload %s, policy %s, seed %d: %w", c.workload.name, c.column.policy, p.options.seed+uint64(seed), err)
		if ctx.Err() == nil {
			p.errs = append(p.errs, c.err)
		}
	}
	if c.left--; c.left == 0 {
		close(c.played)
	}
}

// figures plays a workload's scenarios and reads its figures.
func (p *plays) figures(ctx context.Context, c *cell, seed uint64) (values []float64, err error) {
	var r result
	r.scenarios, err = c.workload.scenarios(kit{model: p.options.model, span: p.options.span, seed: seed})
	if err != nil {
		return nil, err
	}
	for _, s := range r.scenarios {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if c.column.pooled {
			s = s.Pooled()
		}
		s.Stopped = func() bool { return ctx.Err() != nil }
		report, err := sim.Run(s, func() scheduler.Policy {
			policy, _ := scheduler.New(c.column.policy, scheduler.Options{Seed: seed}) // parse has checked the name
			return policy
		})
		if err != nil {
			return nil, err
		}
		r.reports = append(r.reports, report)
	}
	for _, f := range c.workload.figures {
		values = append(values, f.of(&r))
	}
	return values, nil
}

// print waits for the workloads of a table, and prints it unless the run was
// stopped.
func (p *plays) print(ctx context.Context, t *table, out, progress io.Writer) error {
	for i := range t.workloads {
		w := &t.workloads[i]
		text := w.name + ":"
		for _, c := range p.cells[w] {
			<-c.played
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			text += fmt.Sprintf(" %s %.1fs", c.column.title, c.took.Seconds())
		}
		if _, err := fmt.Fprintln(progress, text); err != nil {
			return err
		}
	}
	return p.write(out, t)
}
