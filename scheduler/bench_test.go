package scheduler

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkPolicy is what a request costs, with its share of results: the policy's
// own time, for events that have been recorded before. All weights that fit are
// resident; models are equally popular, arrivals Poisson, SLO 100 ms. Requests
// come one a step, as on a leader that is not busy. "Mixed" ones are of four tenants
// and three priorities.
func BenchmarkPolicy(b *testing.B) {
	for _, size := range []struct{ models, devices int }{
		{4, 1}, {100, 10}, {1000, 100}, {10_000, 100}, {1000, 1000}, {10_000, 1000},
	} {
		for _, kind := range []struct {
			load  int
			mixed bool
		}{{80, false}, {80, true}, {200, false}, {200, true}} {
			name := fmt.Sprintf("%d models, %d devices, %d %%", size.models, size.devices, kind.load)
			if kind.mixed {
				name += " mixed"
			}
			b.Run(name, func(b *testing.B) {
				r := record(size.models, size.devices, float64(kind.load)/100, kind.mixed, max(200_000, 400*size.devices))
				b.ReportAllocs()
				b.ResetTimer()
				done := 0
				var spent time.Duration
				for done < b.N {
					b.StopTimer()
					p := newCore(Options{NetworkLag: 2 * ms}, &orrery{})
					var out Decisions
					p.Step(0, []Event{Start{r.state}}, &out)
					b.StartTimer()
					start := time.Now()
					for i := range r.steps {
						out.Reset()
						p.Step(r.steps[i].at, r.steps[i].events, &out)
					}
					spent += time.Since(start)
					done += r.requests
				}
				b.ReportMetric(float64(done)/spent.Seconds(), "requests/s")
				b.ReportMetric(float64(r.good)/float64(r.requests), "good")
			})
		}
	}
}

type recording struct {
	state          *State
	steps          []recordedStep
	requests, good int
}

type recordedStep struct {
	at     Instant
	events []Event
}

type result struct {
	at Instant
	*Result
}

type results []result

func (r results) Len() int           { return len(r) }
func (r results) Less(i, j int) bool { return r[i].at < r[j].at }
func (r results) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *results) Push(x any)        { *r = append(*r, x.(result)) }
func (r *results) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// record plays so many requests to the policy orrery, on devices that take what is
// expected of them.
func record(models, devices int, load float64, mixed bool, requests int) *recording {
	const fit = 196
	tenants, priorities := []string{""}, 1
	if mixed {
		tenants, priorities = []string{"a", "b", "c", "d"}, 3
	}
	r := &recording{state: resnets(devices, models, 7*fit), requests: requests}
	for i := range r.state.Workers {
		d := &r.state.Workers[i].Devices[0]
		for j := range min(fit, models) {
			d.Resident = append(d.Resident, Resident{ModelID(1 + (i*fit+j)%models), 7})
		}
	}
	p := newCore(Options{NetworkLag: 2 * ms}, &orrery{})
	var out Decisions
	var due results
	free := make([]Instant, devices)
	index := make(map[string]int)
	for i, w := range r.state.Workers {
		index[w.Name] = i
	}
	p.Step(0, []Event{Start{r.state}}, &out)
	rng := rand.New(rand.NewPCG(1, uint64(models)))
	rate := load * ceiling * float64(devices)
	next, sent := Instant(1), 0
	for sent < requests || len(due) > 0 {
		now := never
		if sent < requests {
			now = next
		}
		if len(due) > 0 {
			now = min(now, due[0].at)
		}
		if out.Wake != 0 {
			now = min(now, out.Wake)
		}
		var events []Event
		for len(due) > 0 && due[0].at <= now {
			events = append(events, Finished{heap.Pop(&due).(result).Result})
		}
		if sent < requests && next <= now {
			sent++
			events = append(events, Submit{&Request{ID: RequestID(sent), Model: ModelID(1 + rng.IntN(models)),
				Rows: 1, Arrived: now, Deadline: now.Add(100 * ms),
				Tenant: tenants[rng.IntN(len(tenants))], Priority: uint64(rng.IntN(priorities))}})
			next = next.Add(max(1, time.Duration(rng.ExpFloat64()/rate*1e9)))
		}
		out.Reset()
		p.Step(now, events, &out)
		r.steps = append(r.steps, recordedStep{now, events})
		for _, c := range out.Completions {
			if c.Reason == Done {
				r.good++
			}
		}
		for _, a := range out.Actions {
			start := now.Add(ms)
			if a.Kind == Infer {
				i := index[a.Worker]
				start = max(start, free[i])
				free[i] = start.Add(a.Expected)
			}
			heap.Push(&due, result{start.Add(a.Expected + ms), &Result{Action: a.ID, Engine: a.Expected}})
		}
	}
	return r
}
