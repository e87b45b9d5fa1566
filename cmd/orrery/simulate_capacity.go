package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/orrery-project/orrery/scheduler/sim"
)

// mostLoad is the highest load, in percent of the ceiling, that a capacity is
// looked for at.
const mostLoad = 200

// capacityFound is a policy's capacity. Loads are in percent of the ceiling.
type capacityFound struct {
	Simulated bool    `json:"simulated"`
	Policy    string  `json:"policy"`
	SLO       string  `json:"slo,omitempty"`
	Target    float64 `json:"target_percent"`
	Load      float64 `json:"load_percent"`
	Rate      float64 `json:"rows_per_s"`
	// Above is a load at which the target was missed, 0 if none was found.
	Above float64 `json:"missed_at_percent"`
}

// findCapacity finds the highest load at which a share of the requests of all
// seeds together is answered in time.
func (a *app) findCapacity(ctx context.Context, f *simulateFlags, p *simulationPlan) error {
	var found []capacityFound
	for _, l := range p.lines(nil) {
		base, err := p.scenario(l.slo, 100)
		if err != nil {
			return err
		}
		meets := func(load float64) (bool, error) {
			s, err := p.one(ctx, l.policy, l.slo, load)
			return err == nil && attainment(s.runs) >= f.capacity/100, err
		}
		load, above, err := sim.Capacity(mostLoad, meets)
		if err != nil {
			return err
		}
		slo := ""
		if len(p.slos) > 0 {
			slo = l.slo.String()
		}
		found = append(found, capacityFound{true, l.policy, slo, f.capacity, load, load / 100 * base.Ceiling(), above})
	}
	if f.output == "json" {
		text, err := json.MarshalIndent(found, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(a.out, "%s\n", text)
		}
		return err
	}
	fmt.Fprintf(a.out, "Simulated: the highest load at which %v %% are answered in time.\n\n", f.capacity)
	t := newTable(a.out, "POLICY", "SLO", "LOAD", "ROWS/S", "MISSED AT")
	for _, c := range found {
		above := "more than " + percent(mostLoad/100)
		if c.Above > 0 {
			above = percent(c.Above / 100)
		}
		t.row(c.Policy, c.SLO, percent(c.Load/100), fmt.Sprintf("%.0f", c.Rate), above)
	}
	t.flush()
	return nil
}

// attainment is the share of good requests of all runs together.
func attainment(runs []*sim.Report) float64 {
	good, all := uint64(0), uint64(0)
	for _, r := range runs {
		good, all = good+r.Total.Good, all+r.Total.Requests
	}
	if all == 0 {
		return 0
	}
	return float64(good) / float64(all)
}
