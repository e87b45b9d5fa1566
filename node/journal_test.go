package node

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// journal gathers what the nodes of a cluster log, as a witness of what they
// did and when. It implements hclog.SinkAdapter.
type journal struct {
	mu    sync.Mutex
	lines []journalLine
}

type journalLine struct {
	at   time.Time
	node string
	// text is the message and its values, as in "startup phase=profiling".
	text string
}

// Accept implements hclog.SinkAdapter. Debugging output is no witness.
func (j *journal) Accept(name string, level hclog.Level, message string, args ...any) {
	if level < hclog.Info {
		return
	}
	node, _, _ := strings.Cut(name, ".")
	text := strings.Builder{}
	text.WriteString(message)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&text, " %v=%v", args[i], args[i+1])
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, journalLine{at: time.Now(), node: node, text: text.String()})
}

// find returns the lines that begin with message and contain all parts.
func (j *journal) find(message string, parts ...string) []journalLine {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []journalLine
lines:
	for _, l := range j.lines {
		if !strings.HasPrefix(l.text, message) {
			continue
		}
		for _, p := range parts {
			if !strings.Contains(l.text, p) {
				continue lines
			}
		}
		found = append(found, l)
	}
	return found
}

// phaseAt is when a leader first saw the cluster in a phase after an instant;
// zero if none has yet.
func (j *journal) phaseAt(phase string, after time.Time) time.Time {
	for _, l := range j.find("startup", "phase="+phase) {
		if l.at.After(after) {
			return l.at
		}
	}
	return time.Time{}
}
