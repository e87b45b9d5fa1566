package sim

import (
	"testing"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// nobody answers nothing and costs nothing: what is left is the simulator.
type nobody struct{}

func (nobody) Step(now scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions) {
	for _, e := range events {
		if e, ok := e.(scheduler.Submit); ok {
			out.Completions = append(out.Completions, scheduler.Completion{Request: e.Request.ID, Reason: scheduler.Infeasible})
		}
	}
}

// BenchmarkRequest is what a request costs, at 10,000 a second: with the
// default policy, and with one that does nothing.
func BenchmarkRequest(b *testing.B) {
	for name, fresh := range map[string]func() scheduler.Policy{"orrery": ours, "nobody": func() scheduler.Policy { return nobody{} }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			s := standard(17, 20, Workload{Name: "poisson", SLO: 100 * time.Millisecond, Arrivals: Poisson{10_000}})
			s.Duration = max(time.Second, time.Duration(b.N)*time.Second/10_000)
			r, err := Run(s, fresh)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(r.Total.Good)/float64(r.Total.Requests), "good")
		})
	}
}
