package bench

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Kept is a load all of whose outcomes are kept.
type Kept struct {
	*Load
	Rate int

	mu       sync.Mutex
	outcomes []Outcome
}

// StartKept begins to send; Each is the load's own. Outcomes must be called; it
// closes the entries.
func StartKept(o LoadOptions) *Kept {
	k := &Kept{Rate: o.Rate}
	o.Each = k.keep
	k.Load = StartLoad(o)
	return k
}

func (k *Kept) keep(o Outcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.outcomes = append(k.outcomes, o)
}

// Share is how much of the rate was answered since a moment.
func (k *Kept) Share(since time.Time) float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	answered := 0
	for i := len(k.outcomes) - 1; i >= 0 && k.outcomes[i].Done().After(since); i-- {
		if k.outcomes[i].Err == nil {
			answered++
		}
	}
	return float64(answered) / (float64(k.Rate) * time.Since(since).Seconds())
}

// Outcomes stops sending, waits for the last answers and returns all outcomes in
// the order of their ends.
func (k *Kept) Outcomes() []Outcome {
	k.End()
	slices.SortFunc(k.outcomes, func(a, b Outcome) int { return a.Done().Compare(b.Done()) })
	return k.outcomes
}

// keptErrors is how many errors Requests tell.
const keptErrors = 5

// Requests say what became of a load. Times are milliseconds.
type Requests struct {
	Sent     int      `json:"sent"`
	Failed   int      `json:"failed"`
	Wrong    int      `json:"wrong"`
	Degraded int      `json:"degraded"`
	Errors   []string `json:"errors,omitempty"`
	// Latency is the median before the fault, LatencyMax the longest of all.
	Latency    float64 `json:"latency_ms"`
	LatencyMax float64 `json:"latency_max_ms"`
}

// Add counts outcomes, of which those count as before the fault that ended
// before a moment.
func (r *Requests) Add(outcomes []Outcome, fault time.Time) {
	for _, o := range outcomes {
		r.Sent++
		r.LatencyMax = max(r.LatencyMax, MS(o.Took))
		switch {
		case o.Err == nil && o.Degraded:
			r.Degraded++
			continue
		case o.Err == nil:
			continue
		case errors.Is(o.Err, ErrWrong):
			r.Wrong++
		default:
			r.Failed++
		}
		if len(r.Errors) < keptErrors {
			r.Errors = append(r.Errors, fmt.Sprintf("sent %.0f ms after the fault, %s, after %.0f ms: %v",
				MS(o.Sent.Sub(fault)), o.Entry, MS(o.Took), o.Err))
		}
	}
	r.Latency = MS(MedianTook(outcomes, time.Time{}, fault))
}

// Bad is how many were not answered as they should have been.
func (r Requests) Bad() int { return r.Failed + r.Wrong }

// MedianTook is the median time of the answers that came in an interval, 0 when
// there were none.
func MedianTook(outcomes []Outcome, from, to time.Time) time.Duration {
	var took []time.Duration
	for _, o := range outcomes {
		if o.Err == nil && o.Done().After(from) && o.Done().Before(to) {
			took = append(took, o.Took)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// MS is a time in milliseconds, to the tenth.
func MS(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

// Median is that of sorted figures, 0 of none.
func Median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Seconds writes milliseconds for a person.
func Seconds(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2f s", ms/1000)
}
