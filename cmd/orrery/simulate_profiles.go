package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/scheduler/sim"
)

// readProfiles reads a table; an empty path is the one that is built in.
func readProfiles(path string) (*sim.Table, error) {
	if path == "" {
		return sim.ReadTable("the built-in table", strings.NewReader(models.Profiles()))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the profiles: %w", err)
	}
	defer file.Close()
	return sim.ReadTable(path, file)
}

// profileModel is the model that the flags name.
func (f *simulateFlags) profileModel() (sim.Model, error) {
	table, err := readProfiles(f.profiles)
	if err != nil {
		return sim.Model{}, err
	}
	return table.Model(f.profile)
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
