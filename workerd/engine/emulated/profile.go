package emulated

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orrery-project/orrery/workerd/engine"
)

// What a table leaves out.
const (
	defaultInputBytes   = 1024
	defaultOutputBytes  = 64
	defaultWeightsBytes = 16 << 20
	// loadBytesPerSecond is what a PCIe 3 bus with sixteen lanes carries.
	loadBytesPerSecond = 12e9
)

// maxCellValue keeps times within a time.Duration and sizes within an int64
// with room for sums.
const maxCellValue = 1e12

// point is one measured batch: so many rows take so long.
type point struct {
	rows int
	time time.Duration
}

// profile is one row of a table.
type profile struct {
	name         string
	digest       string
	inputBytes   int64
	outputBytes  int64
	weightsBytes int64
	// diskTime is what Engine.Load takes, loadTime what Model.LoadWeights does.
	diskTime, loadTime time.Duration
	crash              crash
	// batches ascend by rows, and there is at least one.
	batches []point
}

// executionTime is what a batch takes: measured, or on the straight line
// between the measured batches around it. A batch below the smallest takes as
// long as the smallest.
func (p *profile) executionTime(rows int) time.Duration {
	i, found := slices.BinarySearchFunc(p.batches, rows, func(at point, rows int) int { return at.rows - rows })
	if found || i == 0 {
		return p.batches[i].time
	}
	below, above := p.batches[i-1], p.batches[i]
	slope := float64(above.time-below.time) / float64(above.rows-below.rows)
	return below.time + time.Duration(math.Round(slope*float64(rows-below.rows)))
}

// maxRows is the largest batch that was measured.
func (p *profile) maxRows() int { return p.batches[len(p.batches)-1].rows }

// readProfile finds the row called name in a table. File is for messages.
func readProfile(table io.Reader, file, name string) (*profile, error) {
	r := csv.NewReader(table)
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s is empty; its first line must name the columns", engine.ErrBadSource, file)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not a table: %w", engine.ErrBadSource, file, err)
	}
	columns, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", engine.ErrBadSource, file, err)
	}
	var found *profile
	var names []string
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s is not a table: %w", engine.ErrBadSource, file, err)
		}
		row := tableRow{file: file, header: header, cells: cells}
		row.line, _ = r.FieldPos(0)
		if cells[columns.name] != name {
			names = append(names, cells[columns.name])
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: %s has a second row %q on line %d; give it another name",
				engine.ErrBadSource, file, name, row.line)
		}
		if found, err = row.profile(columns); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %s has no row %q; rows with near names: %s",
			engine.ErrBadSource, file, name, quoteAll(nearest(names, name)))
	}
	return found, nil
}

// columns says where in a row a value stands; -1 where the table lacks it.
type columns struct {
	name, inputBytes, outputBytes, weightsMB, loadMS, diskLoadMS, crashOn int
	// batches ascend by rows.
	batches []batchColumn
}

type batchColumn struct{ rows, index int }

func parseHeader(header []string) (columns, error) {
	c := columns{
		name:        slices.Index(header, "model"),
		inputBytes:  slices.Index(header, "input_bytes"),
		outputBytes: slices.Index(header, "output_bytes"),
		weightsMB:   slices.Index(header, "weights_MB"),
		loadMS:      slices.Index(header, "weights_load_ms"),
		diskLoadMS:  slices.Index(header, "disk_load_ms"),
		crashOn:     slices.Index(header, "crash_on"),
	}
	if c.name < 0 {
		return c, fmt.Errorf("the header %q lacks the column \"model\"", strings.Join(header, ","))
	}
	for i, title := range header {
		middle, ok := strings.CutPrefix(title, "b")
		if !ok {
			continue
		}
		if middle, ok = strings.CutSuffix(middle, "_ms"); !ok {
			continue
		}
		rows, err := strconv.Atoi(middle)
		if err != nil || rows < 1 {
			continue
		}
		if slices.ContainsFunc(c.batches, func(b batchColumn) bool { return b.rows == rows }) {
			return c, fmt.Errorf("the header has two columns for batches of %d", rows)
		}
		c.batches = append(c.batches, batchColumn{rows: rows, index: i})
	}
	if len(c.batches) == 0 {
		return c, fmt.Errorf("the header %q lacks execution times; name their columns b1_ms, b2_ms, …", strings.Join(header, ","))
	}
	slices.SortFunc(c.batches, func(a, b batchColumn) int { return a.rows - b.rows })
	return c, nil
}

// tableRow is one line, with what a message about it needs.
type tableRow struct {
	file   string
	line   int
	header []string
	cells  []string
}

func (r tableRow) profile(c columns) (*profile, error) {
	inputBytes, err := r.whole(c.inputBytes, defaultInputBytes)
	if err != nil {
		return nil, err
	}
	outputBytes, err := r.whole(c.outputBytes, defaultOutputBytes)
	if err != nil {
		return nil, err
	}
	p := &profile{
		name:         r.cells[c.name],
		digest:       r.digest(),
		inputBytes:   inputBytes,
		outputBytes:  outputBytes,
		weightsBytes: defaultWeightsBytes,
	}
	weightsMB, ok, err := r.number(c.weightsMB)
	if err != nil {
		return nil, err
	}
	if ok {
		p.weightsBytes = int64(math.Round(weightsMB * 1e6))
	}
	p.loadTime = time.Duration(float64(p.weightsBytes) / loadBytesPerSecond * float64(time.Second))
	loadMS, ok, err := r.number(c.loadMS)
	if err != nil {
		return nil, err
	}
	if ok {
		p.loadTime = milliseconds(loadMS)
	}
	diskLoadMS, ok, err := r.number(c.diskLoadMS)
	if err != nil {
		return nil, err
	}
	if ok {
		p.diskTime = milliseconds(diskLoadMS)
	}
	if p.crash, err = r.crash(c.crashOn); err != nil {
		return nil, err
	}
	for _, column := range c.batches {
		ms, ok, err := r.number(column.index)
		if err != nil {
			return nil, err
		}
		if ok {
			p.batches = append(p.batches, point{rows: column.rows, time: milliseconds(ms)})
		}
	}
	if len(p.batches) == 0 {
		return nil, fmt.Errorf("%w: %s line %d: the row has no execution time; fill at least one of its batch columns",
			engine.ErrBadSource, r.file, r.line)
	}
	return p, nil
}

// number reads a cell. It is not ok when the cell or its column is missing.
func (r tableRow) number(column int) (value float64, ok bool, err error) {
	if column < 0 || strings.TrimSpace(r.cells[column]) == "" {
		return 0, false, nil
	}
	value, err = strconv.ParseFloat(strings.TrimSpace(r.cells[column]), 64)
	// The comparison is false for NaN, too.
	if err != nil || !(value >= 0 && value <= maxCellValue) {
		return 0, false, r.badCell(column, "a number from 0 to 1e12")
	}
	return value, true, nil
}

// whole reads a size in bytes, at least 1.
func (r tableRow) whole(column int, missing int64) (int64, error) {
	value, ok, err := r.number(column)
	if err != nil {
		return 0, err
	}
	if !ok {
		return missing, nil
	}
	if value < 1 || value != math.Trunc(value) {
		return 0, r.badCell(column, "a whole number of bytes, at least 1")
	}
	return int64(value), nil
}

func (r tableRow) badCell(column int, want string) error {
	return fmt.Errorf("%w: %s line %d, column %s: %q is not %s",
		engine.ErrBadSource, r.file, r.line, r.header[column], r.cells[column], want)
}

// digest covers the cells that are filled, whatever the order of the columns:
// equal rows of two tables have equal digests.
func (r tableRow) digest() string {
	var filled []string
	for i, cell := range r.cells {
		if cell != "" {
			filled = append(filled, fmt.Sprintf("%q=%q\n", r.header[i], cell))
		}
	}
	slices.Sort(filled)
	sum := sha256.Sum256([]byte(strings.Join(filled, "")))
	return hex.EncodeToString(sum[:])
}

func milliseconds(ms float64) time.Duration {
	return time.Duration(math.Round(ms * float64(time.Millisecond)))
}

// nearest picks the few names that look most like the wanted one: those with
// it inside or inside it, then those that begin alike.
func nearest(names []string, wanted string) []string {
	const few = 5
	likeness := func(name string) int {
		a, b := strings.ToLower(name), strings.ToLower(wanted)
		if a != "" && b != "" && (strings.Contains(a, b) || strings.Contains(b, a)) {
			return math.MaxInt
		}
		n := 0
		for n < min(len(a), len(b)) && a[n] == b[n] {
			n++
		}
		return n
	}
	sorted := slices.Clone(names)
	slices.SortStableFunc(sorted, func(a, b string) int { return likeness(b) - likeness(a) })
	return sorted[:min(few, len(sorted))]
}

func quoteAll(names []string) string {
	if len(names) == 0 {
		return "none, the table has no rows"
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return strings.Join(quoted, ", ")
}
