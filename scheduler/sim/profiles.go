package sim

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// What a table leaves out is what the emulated engine takes it for.
const (
	tableWeightsBytes = 16 << 20
	tableBytesPerSec  = 12e9
)

// Table is a table of models' times, in the form that the emulated engine reads.
type Table struct {
	name   string
	header []string
	rows   [][]string
}

// ReadTable reads a table in CSV. Errors call it by the name.
func ReadTable(name string, from io.Reader) (*Table, error) {
	t := &Table{name: name}
	rows, err := csv.NewReader(from).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s is not a table: %w", t.name, err)
	}
	if len(rows) < 2 || !slices.Contains(rows[0], "model") {
		return nil, fmt.Errorf("%s has no rows, or no column \"model\"", t.name)
	}
	t.header, t.rows = rows[0], rows[1:]
	return t, nil
}

// cell is a number of a row, and whether it is there.
func (t *Table) cell(row []string, column string) (value float64, ok bool, err error) {
	i := slices.Index(t.header, column)
	if i < 0 || strings.TrimSpace(row[i]) == "" {
		return 0, false, nil
	}
	value, err = strconv.ParseFloat(strings.TrimSpace(row[i]), 64)
	if err != nil || !(value >= 0 && value <= 1e9) {
		return 0, false, fmt.Errorf("%s, column %s: %q is not a number from 0 to 1e9", t.name, column, row[i])
	}
	return value, true, nil
}

// Model is that of a row, named like it, with the same profile on all kinds of
// devices.
func (t *Table) Model(name string) (Model, error) {
	at := slices.Index(t.header, "model")
	i := slices.IndexFunc(t.rows, func(row []string) bool { return row[at] == name })
	if i < 0 {
		var names []string
		for _, row := range t.rows {
			names = append(names, row[at])
		}
		return Model{}, fmt.Errorf("%s has no row %q; it has %s", t.name, name, strings.Join(names, ", "))
	}
	row := t.rows[i]
	m := Model{Name: name, WeightsBytes: tableWeightsBytes}
	weights, ok, err1 := t.cell(row, "weights_MB")
	if ok {
		m.WeightsBytes = int64(math.Round(weights * 1e6))
	}
	var p Profile
	load, ok, err2 := t.cell(row, "weights_load_ms")
	p.WeightsLoad = fromMS(load)
	if !ok {
		p.WeightsLoad = time.Duration(float64(m.WeightsBytes) / tableBytesPerSec * float64(time.Second))
	}
	err := errors.Join(err1, err2)
	for _, title := range t.header {
		rows, isTime := batchColumn(title)
		if !isTime {
			continue
		}
		value, ok, err3 := t.cell(row, title)
		err = errors.Join(err, err3)
		if ok {
			p.Execution = append(p.Execution, scheduler.RowsTime{Rows: rows, Time: fromMS(value)})
		}
	}
	slices.SortFunc(p.Execution, func(a, b scheduler.RowsTime) int { return a.Rows - b.Rows })
	if err == nil && len(p.Execution) == 0 {
		err = fmt.Errorf("%s: the row %q has no execution time", t.name, name)
	}
	m.Profiles = []Profile{p}
	return m, err
}

// batchColumn says of how many rows a column has the time: of 16 for b16_ms.
func batchColumn(title string) (rows int, ok bool) {
	digits, isTime := strings.CutSuffix(title, "_ms")
	if digits, ok = strings.CutPrefix(digits, "b"); !ok || !isTime {
		return 0, false
	}
	rows, err := strconv.Atoi(digits)
	return rows, err == nil && rows > 0
}

func fromMS(ms float64) time.Duration {
	return time.Duration(math.Round(ms * float64(time.Millisecond)))
}
