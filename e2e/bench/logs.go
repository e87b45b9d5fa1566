package bench

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
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

// maxLog bounds what is read of one log.
const maxLog = 1 << 30

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

// Value is what the event tells under a key, empty when it does not. A value of
// several words stands in quotes, which stay.
func (e Event) Value(key string) string {
	_, text, found := bytes.Cut(e.Text, []byte(" "+key+"="))
	if !found {
		return ""
	}
	if len(text) > 0 && text[0] == '"' {
		if end := bytes.IndexByte(text[1:], '"'); end >= 0 {
			return string(text[:end+2])
		}
	}
	value, _, _ := bytes.Cut(text, []byte(" "))
	return string(value)
}

// What controllers' logs say of a succession, and of workers.
const (
	// Stood is a follower's, when it has heard of no leader for too long.
	Stood = "entering candidate state"
	// Elected is followed by Leading when the winner has taken over.
	Elected = "entering leader state"
	Leading = "]  leading: "
	// WorkerFound is the leader's, when a worker's session is open; WorkerLost
	// when it has ended.
	WorkerFound = "worker connected"
	WorkerLost  = "worker disconnected"
)

// Since are the events since a mark. What can't be read is not told.
func (m Mark) Since() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		file, err := os.Open(m.Path)
		if err != nil {
			return
		}
		defer file.Close()
		text, err := io.ReadAll(io.NewSectionReader(file, m.Offset, maxLog))
		if err != nil {
			return
		}
		for line := range bytes.Lines(text) {
			stamp, rest, _ := bytes.Cut(line, []byte(" "))
			if at, err := time.Parse(logTime, string(stamp)); err == nil && !yield(Event{at, bytes.TrimSpace(rest)}) {
				return
			}
		}
	}
}

// KeepLogs copies the logs of all processes into a folder, under names that
// begin with a prefix.
func KeepLogs(c *devcluster.Cluster, folder, prefix string) error {
	var failed []error
	for _, p := range c.All() {
		text, err := os.ReadFile(p.Log)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, strings.Join([]string{prefix, p.Name, "log"}, ".")), text, 0o644)
		}
		if !errors.Is(err, fs.ErrNotExist) { // it was never started
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
