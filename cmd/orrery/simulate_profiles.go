package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/scheduler"
	"github.com/orrery-project/orrery/scheduler/sim"
)

// What a table leaves out is what the emulated engine takes it for.
const (
	tableWeightsBytes = 16 << 20
	tableBytesPerSec  = 12e9
)

// profileTable is a table of profiles, as the emulated engine reads them.
type profileTable struct {
	file   string
	header []string
	rows   [][]string
}

// readProfiles reads a table; an empty path is the one that is built in.
func readProfiles(path string) (*profileTable, error) {
	t := &profileTable{file: path}
	var from io.Reader
	if path == "" {
		t.file, from = "the built-in table", strings.NewReader(models.Profiles())
	} else {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the profiles: %w", err)
		}
		defer file.Close()
		from = file
	}
	rows, err := csv.NewReader(from).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s is not a table: %w", t.file, err)
	}
	if len(rows) < 2 || !slices.Contains(rows[0], "model") {
		return nil, fmt.Errorf("%s has no rows, or no column \"model\"", t.file)
	}
	t.header, t.rows = rows[0], rows[1:]
	return t, nil
}

// cell is a number of a row, and whether it is there.
func (t *profileTable) cell(row []string, column string) (value float64, ok bool, err error) {
	i := slices.Index(t.header, column)
	if i < 0 || strings.TrimSpace(row[i]) == "" {
		return 0, false, nil
	}
	value, err = strconv.ParseFloat(strings.TrimSpace(row[i]), 64)
	if err != nil || !(value >= 0 && value <= 1e9) {
		return 0, false, fmt.Errorf("%s, column %s: %q is not a number from 0 to 1e9", t.file, column, row[i])
	}
	return value, true, nil
}

// profile is the row of that name, for all kinds of devices.
func (t *profileTable) profile(name string) (p sim.Profile, weightsBytes int64, err error) {
	at := slices.Index(t.header, "model")
	i := slices.IndexFunc(t.rows, func(row []string) bool { return row[at] == name })
	if i < 0 {
		var names []string
		for _, row := range t.rows {
			names = append(names, row[at])
		}
		return p, 0, fmt.Errorf("%s has no row %q; it has %s", t.file, name, strings.Join(names, ", "))
	}
	row := t.rows[i]
	weightsBytes = tableWeightsBytes
	weights, ok, err1 := t.cell(row, "weights_MB")
	if ok {
		weightsBytes = int64(math.Round(weights * 1e6))
	}
	load, ok, err2 := t.cell(row, "weights_load_ms")
	p.WeightsLoad = fromMS(load)
	if !ok {
		p.WeightsLoad = time.Duration(float64(weightsBytes) / tableBytesPerSec * float64(time.Second))
	}
	err = errors.Join(err1, err2)
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
		err = fmt.Errorf("%s: the row %q has no execution time", t.file, name)
	}
	return p, weightsBytes, err
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

// profileModel is the model that the flags name.
func (f *simulateFlags) profileModel() (sim.Model, error) {
	table, err := readProfiles(f.profiles)
	if err != nil {
		return sim.Model{}, err
	}
	p, bytes, err := table.profile(f.profile)
	return sim.Model{Name: f.profile, WeightsBytes: bytes, Profiles: []sim.Profile{p}}, err
}

// readArrivals reads a trace, so many times as fast.
func readArrivals(path string, speed float64) (sim.Arrivals, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the trace: %w", err)
	}
	defer file.Close()
	trace, err := sim.ReadTrace(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return trace.Faster(speed), nil
}

// readDay reads a day of the Azure Functions format, with so many times its counts.
func readDay(path string, models int, factor float64) (sim.Arrivals, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the functions: %w", err)
	}
	defer file.Close()
	day, err := sim.ReadFunctions(file, models)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return day.Times(factor), nil
}
