//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
)

// table is workloads that are shown together.
type table struct {
	title     string
	workloads []workload
}

// write writes a table, whose cells have been played, in Markdown.
func (p *plays) write(out io.Writer, t *table) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s | |", t.title)
	columns := p.options.columns()
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for i := range t.workloads {
		w := &t.workloads[i]
		for n, f := range w.figures {
			label := w.label
			if n > 0 {
				label = ""
			}
			fmt.Fprintf(&b, "| %s | %s |", label, f.name)
			for _, c := range p.cells[w] {
				fmt.Fprintf(&b, " %s |", c.text(n))
			}
			b.WriteString("\n")
		}
	}
	_, err := io.WriteString(out, strings.ReplaceAll(b.String(), "|  |", "| |"))
	return err
}

// text is a figure of a cell.
func (c *cell) text(figure int) string {
	switch {
	case c.err != nil:
		return "failed"
	case c.column.pooled && !c.workload.bound:
		return ""
	}
	var values []float64
	for _, one := range c.values {
		values = append(values, one[figure])
	}
	return c.workload.figures[figure].unit.summary(values)
}
