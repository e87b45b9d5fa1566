package bench

import (
	"bytes"
	"iter"
	"os"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
)

// Mark is a place in a process's log.
type Mark struct {
	Path   string
	Offset int64
}

// MarkLogs remembers where the logs end now.
func MarkLogs(some []*devcluster.Process) (marks []Mark, err error) {
	for _, p := range some {
		info, err := os.Stat(p.Log)
		if err != nil {
			return nil, err
		}
		marks = append(marks, Mark{p.Log, info.Size()})
	}
	return marks, nil
}

// logTime is how the lines of a log begin.
const logTime = "2006-01-02T15:04:05.000Z0700"

// Event is something that a log tells. A log has milliseconds alone.
type Event struct {
	At time.Time
	// Text is the line without its time.
	Text []byte
}

// Says whether the event is told in these words.
func (e Event) Says(words string) bool { return bytes.Contains(e.Text, []byte(words)) }

// What controllers' logs say of a succession, and of workers.
const (
	// Stood is a follower's, when it has heard of no leader for too long.
	Stood = "entering candidate state"
	// Elected is followed by Leading when the winner has taken over.
	Elected = "entering leader state"
	Leading = "]  leading: "
	// WorkerLost is the leader's, when a worker's session has ended.
	WorkerLost = "worker disconnected"
)

// Since are the events since a mark. What can't be read is not told.
func (m Mark) Since() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		text, err := os.ReadFile(m.Path)
		if err != nil || int64(len(text)) < m.Offset {
			return
		}
		for line := range bytes.Lines(text[m.Offset:]) {
			stamp, rest, _ := bytes.Cut(line, []byte(" "))
			if at, err := time.Parse(logTime, string(stamp)); err == nil && !yield(Event{at, bytes.TrimSpace(rest)}) {
				return
			}
		}
	}
}
