//go:build linux

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// result is one trial, as a line of the results file. Times are milliseconds.
type result struct {
	// Print is what the trial depends on: trials of other prints don't count.
	Print   string    `json:"print"`
	Row     string    `json:"row"`
	Variant string    `json:"variant"`
	Trial   int       `json:"trial"`
	Seed    uint64    `json:"seed"`
	At      time.Time `json:"at"`
	// Invalid is why the trial does not count: it was made again.
	Invalid string `json:"invalid,omitempty"`

	// Gap is the longest time without an acknowledged control write at any of the
	// controllers, WorstGap that at the one where it was longest.
	Gap      float64 `json:"gap_ms"`
	WorstGap float64 `json:"worst_gap_ms"`
	// Parts are the steps of a fault that has several; Gap is the longest.
	Parts []part `json:"parts"`
	// Recovered says that writes went on, Whole that all was as before in the
	// end.
	Recovered bool `json:"recovered"`
	Whole     bool `json:"whole"`

	Sent      int      `json:"sent"`
	Failed    int      `json:"failed"`
	Wrong     int      `json:"wrong"`
	Degraded  int      `json:"degraded"`
	Errors    []string `json:"errors,omitempty"`
	AnswerGap float64  `json:"answer_gap_ms"`
	// Latency is the median before the fault, LatencyMax the longest of all.
	Latency    float64 `json:"latency_ms"`
	LatencyMax float64 `json:"latency_max_ms"`

	// ListeningMS is from the start of processes to their first listener.
	ListeningMS float64 `json:"listening_ms,omitempty"`
	// Refused are the refusals of control writes without a quorum.
	Refused   int     `json:"refused,omitempty"`
	RefuseMax float64 `json:"refuse_max_ms,omitempty"`
	// Unrefused are control writes that were not refused in time, but by our own.
	Unrefused int    `json:"unrefused,omitempty"`
	Exit      string `json:"exit,omitempty"`

	Load1 float64  `json:"load1"`
	Notes []string `json:"notes,omitempty"`
}

// part is one step of a fault.
type part struct {
	Name     string  `json:"name,omitempty"`
	Gap      float64 `json:"gap_ms"`
	WorstGap float64 `json:"worst_gap_ms"`
	// Since the fault: when a survivor first stood for election, when one was
	// elected, when one had taken over, and when the longest time without an
	// acknowledged write was over. 0: not in the logs.
	Stood        float64 `json:"stood_ms,omitempty"`
	Elected      float64 `json:"elected_ms,omitempty"`
	Leading      float64 `json:"leading_ms,omitempty"`
	Acknowledged float64 `json:"acknowledged_ms"`
	Candidacies  int     `json:"candidacies"`
	// How busy the machine was meanwhile.
	Idle   float64 `json:"cpu_idle_percent"`
	Stolen float64 `json:"cpu_stolen_percent"`
	Stall  float64 `json:"stall_ms"`
}

// refusals notes how control writes ended while there was no quorum.
func (r *result) refusals(writes []bench.Write) {
	for _, w := range writes {
		switch {
		case w.Err == nil:
			r.Notes = append(r.Notes, "a write was acknowledged without a quorum")
		case timedOut(w.Err):
			r.Unrefused++
		default:
			r.Refused++
			r.RefuseMax = max(r.RefuseMax, ms(w.Took))
		}
	}
}

// ms is a time in milliseconds, to the tenth.
func ms(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

// variant is a configuration to measure.
type variant struct {
	name string
	keys map[string]string
}

// variants are our defaults, and those of the library.
func variants(o options) []variant {
	all := []variant{{name: "orrery", keys: o.keys}}
	if o.baseline {
		keys := map[string]string{}
		maps.Copy(keys, o.keys)
		maps.Copy(keys, bench.LibraryTimeouts())
		all = append(all, variant{name: "library", keys: keys})
	}
	return all
}

// book is the results file.
type book struct {
	file   *os.File
	binary string // a digest of it
	rate   int
	lines  []result
}

// openBook reads what there is. Only trials of this binary count.
func openBook(o options) (*book, error) {
	b := &book{rate: o.rate}
	flags := os.O_RDWR | os.O_CREATE
	if o.summaryOnly {
		flags = os.O_RDONLY
	}
	var err error
	if b.file, err = os.OpenFile(o.results, flags, 0o644); err != nil {
		return nil, err
	}
	if b.binary, err = digest(o.binary); err != nil {
		return nil, errors.Join(err, b.file.Close())
	}
	text, err := io.ReadAll(b.file)
	if err != nil {
		return nil, errors.Join(err, b.file.Close())
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, errors.Join(fmt.Errorf("%s, line %d is not a trial: %w; name another file by -results", o.results, n, err), b.file.Close())
		}
		b.lines = append(b.lines, r)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		_, err = b.file.Write([]byte("\n"))
	}
	return b, err
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

func (b *book) close() error { return b.file.Close() }

// print is what a trial of a row depends on.
func (b *book) print(r row, v variant) string {
	h := sha256.New()
	fmt.Fprint(h, b.binary, b.rate, r.name, r.deadline, r.patience, v.name, writePause)
	for _, k := range slices.Sorted(maps.Keys(v.keys)) {
		fmt.Fprint(h, k, v.keys[k])
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// trials are the valid ones of a row and variant, in order.
func (b *book) trials(r row, v variant) (some []result) {
	print := b.print(r, v)
	for _, l := range b.lines {
		if l.Print == print && l.Invalid == "" {
			some = append(some, l)
		}
	}
	slices.SortFunc(some, func(a, b result) int { return cmp.Compare(a.Trial, b.Trial) })
	return some
}

// invalid are the reasons of those that don't count.
func (b *book) invalid(r row, v variant) (reasons []string) {
	print := b.print(r, v)
	for _, l := range b.lines {
		if l.Print == print && l.Invalid != "" {
			reasons = append(reasons, l.Invalid)
		}
	}
	return reasons
}

// add appends a trial.
func (b *book) add(r result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := b.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("keep a result: %w", err)
	}
	b.lines = append(b.lines, r)
	return nil
}
