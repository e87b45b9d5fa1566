package bench

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
)

// Head is how the result of any trial begins.
type Head struct {
	// Print is what the trial depends on: trials of other prints don't count.
	Print   string    `json:"print"`
	Row     string    `json:"row"`
	Variant string    `json:"variant,omitempty"`
	Trial   int       `json:"trial"`
	Seed    uint64    `json:"seed"`
	At      time.Time `json:"at"`
	// Invalid is why the trial does not count: it was made again.
	Invalid string `json:"invalid,omitempty"`
}

// Told is the head itself: so results that begin with one are Told.
func (h Head) Told() Head { return h }

// Told is the result of a trial.
type Told interface{ Told() Head }

// Book is a results file: a JSON object a line, one for each trial.
type Book[R Told] struct {
	// Binary is a digest of what is measured.
	Binary string
	Lines  []R
	file   *os.File
}

// OpenBook reads what there is in the file at path, which is made unless only
// reading is wanted. Close must be called.
func OpenBook[R Told](path, binary string, readOnly bool) (*Book[R], error) {
	b := &Book[R]{}
	flags := os.O_RDWR | os.O_CREATE
	if readOnly {
		flags = os.O_RDONLY
	}
	var err error
	if b.file, err = os.OpenFile(path, flags, 0o644); err != nil {
		return nil, err
	}
	if err := b.read(path, binary, readOnly); err != nil {
		return nil, errors.Join(err, b.file.Close())
	}
	return b, nil
}

func (b *Book[R]) read(path, binary string, readOnly bool) (err error) {
	if b.Binary, err = digest(binary); err != nil {
		return err
	}
	text, err := io.ReadAll(b.file)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r R
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("%s, line %d is not a trial: %w; name another file by -results", path, n, err)
		}
		b.Lines = append(b.Lines, r)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' && !readOnly {
		_, err = b.file.Write([]byte("\n"))
	}
	return errors.Join(lines.Err(), err)
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
	return short(h.Sum(nil)), nil
}

func short(sum []byte) string { return hex.EncodeToString(sum)[:12] }

// Print is what trials depend on, in short: of equal parts and keys the same.
func Print(keys map[string]string, parts ...any) string {
	h := sha256.New()
	fmt.Fprint(h, parts...)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		fmt.Fprint(h, k, keys[k])
	}
	return short(h.Sum(nil))
}

// Trials are the valid ones of a print, in order.
func (b *Book[R]) Trials(print string) (some []R) {
	for _, l := range b.Lines {
		if h := l.Told(); h.Print == print && h.Invalid == "" {
			some = append(some, l)
		}
	}
	slices.SortFunc(some, func(a, b R) int { return cmp.Compare(a.Told().Trial, b.Told().Trial) })
	return some
}

// Invalid are the reasons of those that don't count.
func (b *Book[R]) Invalid(print string) (reasons []string) {
	for _, l := range b.Lines {
		if h := l.Told(); h.Print == print && h.Invalid != "" {
			reasons = append(reasons, h.Invalid)
		}
	}
	return reasons
}

// Add appends a trial.
func (b *Book[R]) Add(r R) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := b.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("keep a result: %w", err)
	}
	b.Lines = append(b.Lines, r)
	return nil
}

// Close closes the file.
func (b *Book[R]) Close() error { return b.file.Close() }
