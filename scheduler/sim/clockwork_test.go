package sim

import (
	"testing"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// The original was measured on two cores with an emulated device of these times;
// docs/benchmarks.md has the figures beside each other. Here they are simulated, so
// that what the original lost to its CPU is not lost: as good is the least.
func TestClockworkIsAsGoodAsTheOriginal(t *testing.T) {
	model := Model{Name: "resnet50", WeightsBytes: 117_440_512, Profiles: []Profile{{
		WeightsLoad: us(8310), Execution: []scheduler.RowsTime{
			{Rows: 1, Time: us(2730)}, {Rows: 2, Time: us(4050)}, {Rows: 4, Time: us(5880)}, {Rows: 8, Time: us(9930)}, {Rows: 16, Time: us(17330)}}}}}
	for _, test := range []struct {
		name            string
		devices, models int
		arrivals        Arrivals
		// least is goodput a second; within is by how many percent it may be
		// exceeded, 0: by any.
		least, within float64
		share         float64 // in time
	}{
		{"Poisson, 300/s", 1, 4, Poisson{300}, 0, 0, 1},
		{"Poisson, 600/s", 1, 4, Poisson{600}, 0, 0, 0.978},
		{"Poisson, 1000/s", 1, 4, Poisson{1000}, 832, 0, 0},
		{"closed loop of 64", 1, 4, Closed{InFlight: 16}, 904, 5, 1},
		{"closed loop of 512", 8, 32, Closed{InFlight: 16}, 7220, 5, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := standard(test.devices, test.models, Workload{Name: "all", Arrivals: test.arrivals, SLO: 100 * time.Millisecond})
			s.Models = Copies([]Model{model}, test.models)
			s.Warmup = 2 * time.Second
			r, err := Run(s, func() scheduler.Policy { return named("clockwork") })
			if err != nil {
				t.Fatal(err)
			}
			conserved(t, r)
			if r.Total.GoodputPerSecond < test.least || r.Total.Attainment < test.share {
				t.Errorf("%.0f/s and %.2f %% are in time, want %.0f/s and %.1f %%",
					r.Total.GoodputPerSecond, 100*r.Total.Attainment, test.least, 100*test.share)
			}
			if test.within > 0 {
				within(t, "goodput", r.Total.GoodputPerSecond, test.least, test.within)
			}
		})
	}
}
