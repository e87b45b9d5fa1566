package sim

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// azureTime is how the Azure LLM traces write their times. They have seven digits
// after the second, which the layout lets pass.
const azureTime = "2006-01-02 15:04:05"

// maxLine bounds a line of a trace.
const maxLine = 1 << 20

// ReadTrace reads arrivals from a CSV file of one of two forms, which its first
// line tells apart:
//
//   - TIMESTAMP,…: the Azure LLM inference traces. Only the times are used.
//   - seconds or seconds,model: seconds since the beginning, and the index of a
//     model within the workload. The first line may be a header or an arrival.
//
// Times count from the first arrival in the first form, from 0 in the second.
func ReadTrace(from io.Reader) (Trace, error) {
	var t Trace
	var first time.Time
	azure := false
	err := eachLine(from, func(number int, line string) error {
		cells := strings.Split(line, ",")
		if number == 1 {
			azure = cells[0] == "TIMESTAMP"
			if azure || strings.EqualFold(cells[0], "seconds") {
				return nil
			}
		}
		arrival := Arrival{Model: -1}
		if azure {
			at, err := time.Parse(azureTime, cells[0])
			if err != nil {
				return fmt.Errorf("%q is not a time as in 2023-11-16 18:17:03.97", cells[0])
			}
			if first.IsZero() {
				first = at
			}
			arrival.At = at.Sub(first)
		} else if err := arrival.read(cells); err != nil {
			return err
		}
		t.Arrivals = append(t.Arrivals, arrival)
		return nil
	})
	if err != nil {
		return Trace{}, err
	}
	slices.SortStableFunc(t.Arrivals, func(a, b Arrival) int { return cmp.Compare(a.At, b.At) })
	if len(t.Arrivals) > 0 && t.Arrivals[0].At < 0 {
		return Trace{}, fmt.Errorf("an arrival comes at %v: times can't be negative", t.Arrivals[0].At)
	}
	return t, t.check()
}

// read takes an arrival from the cells of the plain form.
func (a *Arrival) read(cells []string) error {
	s, err := strconv.ParseFloat(strings.TrimSpace(cells[0]), 64)
	if err != nil || math.IsNaN(s) || math.Abs(s) > 1e9 {
		return fmt.Errorf("%q is not a number of seconds", cells[0])
	}
	a.At = time.Duration(s * float64(time.Second))
	if len(cells) > 1 && strings.TrimSpace(cells[1]) != "" {
		if a.Model, err = strconv.Atoi(strings.TrimSpace(cells[1])); err != nil || a.Model < 0 {
			return fmt.Errorf("%q is not the index of a model, from 0", cells[1])
		}
	}
	return nil
}

// eachLine calls do for each line that is not empty, and says where it failed.
func eachLine(from io.Reader, do func(number int, line string) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 1<<16), maxLine)
	number := 0
	for lines.Scan() {
		number++
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if line == "" {
			continue
		}
		if err := do(number, line); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	return lines.Err()
}

// functionColumns are those before the minutes in the Azure Functions format.
const functionColumns = 4

// ReadFunctions reads a day of the Azure Functions traces of 2019: HashOwner,
// HashApp, HashFunction, Trigger, and a count for each minute. Functions are
// ordered by their totals, the largest first, and function i of n asks model
// ⌊models·i/n⌋.
func ReadFunctions(from io.Reader, models int) (Functions, error) {
	var functions [][]float64
	err := eachLine(from, func(number int, line string) error {
		cells := strings.Split(line, ",")
		if number == 1 && strings.EqualFold(cells[0], "HashOwner") {
			return nil
		}
		if len(cells) <= functionColumns {
			return fmt.Errorf("there are %d columns; want HashOwner,HashApp,HashFunction,Trigger and a count for each minute", len(cells))
		}
		counts := make([]float64, len(cells)-functionColumns)
		for i, cell := range cells[functionColumns:] {
			n, err := strconv.ParseFloat(strings.TrimSpace(cell), 64)
			if err != nil || !(n >= 0 && n < 1e12) {
				return fmt.Errorf("minute %d: %q is not a count", i+1, cell)
			}
			counts[i] = n
		}
		functions = append(functions, counts)
		return nil
	})
	if err != nil {
		return Functions{}, err
	}
	return mapFunctions(functions, models)
}

// mapFunctions gives each function's counts to its model.
func mapFunctions(functions [][]float64, models int) (Functions, error) {
	if models < 1 {
		return Functions{}, fmt.Errorf("%d models: there must be at least one", models)
	}
	minutes := 0
	for _, counts := range functions {
		minutes = max(minutes, len(counts))
	}
	total := func(counts []float64) (sum float64) {
		for _, n := range counts {
			sum += n
		}
		return sum
	}
	slices.SortStableFunc(functions, func(a, b []float64) int { return cmp.Compare(total(b), total(a)) })
	f := Functions{Minutes: make([][]float64, minutes)}
	for m := range f.Minutes {
		f.Minutes[m] = make([]float64, models)
	}
	for i, counts := range functions {
		for m, n := range counts {
			f.Minutes[m][models*i/len(functions)] += n
		}
	}
	return f, f.check()
}

// SyntheticFunctions is a stand-in for a day of the Azure Functions traces, and
// to be called synthetic: functions whose rates are spread over many orders of
// magnitude (log-normal, σ = 3), a tenth of which come in bursts of a few
// minutes an hour; rate is requests a second of all together in the mean.
func SyntheticFunctions(seed uint64, functions, models, minutes int, rate float64) (Functions, error) {
	random := rand.New(rand.NewPCG(seed, 77))
	all := make([][]float64, functions)
	sum := 0.0
	for i := range all {
		mean := math.Exp(3 * random.NormFloat64())
		bursts := random.IntN(10) == 0
		phase := random.IntN(60)
		all[i] = make([]float64, minutes)
		for m := range all[i] {
			n := mean
			if bursts {
				n = 0
				if (m+phase)%60 < 5 {
					n = 12 * mean
				}
			}
			all[i][m] = n
			sum += n
		}
	}
	f, err := mapFunctions(all, models)
	if err != nil || sum == 0 {
		return f, err
	}
	return f.Times(rate * 60 * float64(minutes) / sum), nil
}
