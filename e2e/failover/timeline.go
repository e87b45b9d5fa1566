//go:build linux

package main

import (
	"bytes"
	"os"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
)

// mark is a place in a process's log.
type mark struct {
	path   string
	offset int64
}

// markLogs remembers where the logs end now.
func markLogs(some []*devcluster.Process) (marks []mark, err error) {
	for _, p := range some {
		info, err := os.Stat(p.Log)
		if err != nil {
			return nil, err
		}
		marks = append(marks, mark{p.Log, info.Size()})
	}
	return marks, nil
}

// logTime is how the lines of a log begin.
const logTime = "2006-01-02T15:04:05.000Z0700"

// read finds in the logs since the marks when the steps of a succession were
// done: the first of each.
func (p *part) read(marks []mark, from time.Time) {
	first := func(at *float64, when time.Time) {
		// A log has milliseconds alone.
		if since := max(ms(when.Sub(from)), 0.1); *at == 0 || since < *at {
			*at = since
		}
	}
	for _, m := range marks {
		text, err := os.ReadFile(m.path)
		if err != nil || int64(len(text)) < m.offset {
			continue // then it is not told
		}
		for line := range bytes.Lines(text[m.offset:]) {
			stamp, rest, _ := bytes.Cut(line, []byte(" "))
			when, err := time.Parse(logTime, string(stamp))
			if err != nil {
				continue
			}
			switch {
			case bytes.Contains(rest, []byte("entering candidate state")):
				p.Candidacies++
				first(&p.Stood, when)
			case bytes.Contains(rest, []byte("entering leader state")):
				first(&p.Elected, when)
			case bytes.Contains(rest, []byte("]  leading: ")):
				first(&p.Leading, when)
			}
		}
	}
}
