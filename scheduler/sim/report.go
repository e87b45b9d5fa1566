package sim

import (
	"slices"
	"time"
)

// Report is what came of a run. Everything in it is simulated. Figures are of
// the requests that arrived after the warm-up, and of the time from then until
// the clients stopped; the series and the spans are of the whole run.
type Report struct {
	// Simulated is true: no figure here was measured.
	Simulated       bool    `json:"simulated"`
	Scenario        string  `json:"scenario"`
	Policy          string  `json:"policy"` // set by the caller
	Seed            uint64  `json:"seed"`
	DurationSeconds float64 `json:"duration_s"`
	WarmupSeconds   float64 `json:"warmup_s"`
	// CeilingPerSecond is the most rows a second that the fleet can do, and
	// OfferedPerSecond what the open workloads ask for.
	CeilingPerSecond float64 `json:"ceiling_rows_per_s"`
	OfferedPerSecond float64 `json:"offered_rows_per_s"`

	Total     Group   `json:"total"`
	Workloads []Group `json:"workloads"`
	Tenants   []Group `json:"tenants"`
	Models    []Group `json:"models"`

	Devices            []DeviceFigures `json:"devices"`
	Utilisation        float64         `json:"utilisation"`
	MeanBatchRows      float64         `json:"mean_batch_rows"`
	LoadsPerSecond     float64         `json:"weights_loads_per_s"`
	EvictionsPerSecond float64         `json:"weights_evictions_per_s"`
	RefusedActions     int             `json:"refused_actions"`

	// Steps of the policy, and the actions and completions that it decided.
	Steps     uint64 `json:"steps"`
	Decisions uint64 `json:"decisions"`

	Series []Second `json:"series,omitempty"`
	Spans  []Span   `json:"timeline,omitempty"`
	Notes  []Note   `json:"notes,omitempty"`
}

// Group is the figures of requests that have something in common.
type Group struct {
	Name     string `json:"name"`
	Requests uint64 `json:"requests"`
	// Good were answered within their deadlines. Attainment is their share.
	Good uint64 `json:"good"`
	// Goodput is good answers a second of the measured time (of a workload: of its
	// part of that), whenever their requests came.
	GoodputPerSecond  float64 `json:"goodput_per_s"`
	GoodRowsPerSecond float64 `json:"good_rows_per_s"`
	Attainment        float64 `json:"attainment"`
	// Refused were not executed; Late past their deadlines when they were
	// answered, or at a worker; Failed found nobody to answer them.
	Refused uint64 `json:"refused"`
	Late    uint64 `json:"late"`
	Failed  uint64 `json:"failed"`
	// Reasons of those that were not good, the most frequent first.
	Reasons    []Count `json:"reasons,omitempty"`
	ColdStarts uint64  `json:"cold_starts"`
	// Latency is that of the answered ones, late answers included.
	Latency Latency `json:"latency"`
}

// Count is how many requests ended for a reason.
type Count struct {
	Reason   string `json:"reason"`
	Requests uint64 `json:"requests"`
}

// Latency is from arrival at the controller to the answer there, in milliseconds.
type Latency struct {
	Mean float64 `json:"mean_ms"`
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p99.9_ms"`
	Max  float64 `json:"max_ms"`
}

// DeviceFigures are what a device did.
type DeviceFigures struct {
	Worker        string  `json:"worker"`
	Device        int     `json:"device"`
	Utilisation   float64 `json:"utilisation"`
	Batches       int     `json:"batches"`
	MeanBatchRows float64 `json:"mean_batch_rows"`
	Loads         int     `json:"weights_loads"`
	Evictions     int     `json:"weights_evictions"`
	Refused       int     `json:"refused_actions"`
}

// Second is one second of a run. Requests count when they arrive, all else when
// it ends.
type Second struct {
	Second    int     `json:"second"`
	Requests  int     `json:"requests"`
	Good      int     `json:"good"`
	Refused   int     `json:"refused"`
	Late      int     `json:"late"`
	Failed    int     `json:"failed"`
	Loads     int     `json:"weights_loads"`
	Evictions int     `json:"weights_evictions"`
	Latency   Latency `json:"latency"`
}

// Span is a batch, or a load of weights, on a device. Times count from the
// beginning.
type Span struct {
	Worker string  `json:"worker"`
	Device int     `json:"device"`
	Load   bool    `json:"load,omitempty"`
	Model  string  `json:"model"`
	Rows   int     `json:"rows,omitempty"`
	FromMS float64 `json:"from_ms"`
	ToMS   float64 `json:"to_ms"`
}

// Note is something that happened to the cluster.
type Note struct {
	AtMS float64 `json:"at_ms"`
	What string  `json:"what"`
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func latencyOf(h *histogram) Latency {
	return Latency{
		Mean: ms(h.mean()),
		P50:  ms(h.quantile(0.5)), P90: ms(h.quantile(0.9)), P99: ms(h.quantile(0.99)),
		P999: ms(h.quantile(0.999)), Max: ms(h.most),
	}
}

func (s *simulation) report() *Report {
	c, b := s.scenario, s.book
	b.closeSecond()
	measured := c.Duration - c.Warmup
	r := &Report{
		Simulated: true, Scenario: c.Name, Seed: c.Seed,
		DurationSeconds: c.Duration.Seconds(), WarmupSeconds: c.Warmup.Seconds(),
		CeilingPerSecond: c.Ceiling(), OfferedPerSecond: c.Rate(),
		Total: b.total.figures(measured),
		Steps: b.steps, Decisions: b.decisions,
		Series: b.series, Spans: b.spans, Notes: b.notes,
	}
	list := func(groups []group, measured func(int) time.Duration) (all []Group) {
		for i := range groups {
			if groups[i].requests > 0 {
				all = append(all, groups[i].figures(measured(i)))
			}
		}
		return all
	}
	whole := func(int) time.Duration { return measured }
	r.Workloads = list(b.byWorkload, func(i int) time.Duration { return b.measured(&c.Workloads[i]) })
	r.Tenants, r.Models = list(b.byTenant, whole), list(b.byModel, whole)
	s.devices(r, measured)
	return r
}

func (s *simulation) devices(r *Report, measured time.Duration) {
	var busy time.Duration
	batches, rows, loads, evictions := 0, 0, 0, 0
	for _, w := range s.workers {
		for _, d := range w.devices {
			t := &d.tally
			r.Devices = append(r.Devices, DeviceFigures{
				Worker: w.Name, Device: int(d.index), Utilisation: share(t.busy.Seconds(), measured.Seconds()),
				Batches: t.batches, MeanBatchRows: share(float64(t.rows), float64(t.batches)),
				Loads: t.loads, Evictions: t.evictions, Refused: t.refused,
			})
			busy += t.busy
			batches, rows, loads, evictions = batches+t.batches, rows+t.rows, loads+t.loads, evictions+t.evictions
			r.RefusedActions += t.refused
		}
	}
	r.Utilisation = share(busy.Seconds(), measured.Seconds()*float64(len(r.Devices)))
	r.MeanBatchRows = share(float64(rows), float64(batches))
	r.LoadsPerSecond = float64(loads) / measured.Seconds()
	r.EvictionsPerSecond = float64(evictions) / measured.Seconds()
}

func (g *group) figures(measured time.Duration) Group {
	slices.SortFunc(g.reasons, byCount)
	return Group{
		Name: g.name, Requests: g.requests,
		Good: g.good, GoodputPerSecond: share(float64(g.answered), measured.Seconds()), GoodRowsPerSecond: share(float64(g.rows), measured.Seconds()),
		Attainment: share(float64(g.good), float64(g.requests)),
		Refused:    g.refused, Late: g.late, Failed: g.failed, Reasons: g.reasons,
		ColdStarts: g.cold, Latency: latencyOf(&g.latency),
	}
}

// share is part of all, 0 of nothing.
func share(part, all float64) float64 {
	if all == 0 {
		return 0
	}
	return part / all
}
