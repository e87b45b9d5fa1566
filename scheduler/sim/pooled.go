package sim

import "slices"

// Pooled is the scenario with all models taken for one, the first, which is asked
// for all of them, and whose weights come in no time. Where the models are alike
// nothing is lost by it but what it costs that requests of different models can't
// share a batch, and that weights have to be moved: so it shows what no policy can
// do much better.
func (s Scenario) Pooled() Scenario {
	all := len(s.Models)
	s.Name += ", pooled"
	s.Models = slices.Clone(s.Models[:1])
	s.Models[0].Profiles = slices.Clone(s.Models[0].Profiles)
	for i := range s.Models[0].Profiles {
		s.Models[0].Profiles[i].WeightsLoad = 0
	}
	s.Workers = slices.Clone(s.Workers)
	for i, w := range s.Workers {
		if len(w.Holds) > 0 {
			s.Workers[i].Holds = []int{0}
		}
	}
	s.Workloads = slices.Clone(s.Workloads)
	for i := range s.Workloads {
		w := &s.Workloads[i]
		n := all
		if w.Models != nil {
			n = len(w.Models)
		}
		w.Models, w.Growth = nil, 0
		w.Arrivals = w.Arrivals.pooled(n)
	}
	return s
}

func (c Closed) pooled(models int) Arrivals { return Closed{c.InFlight * models, c.Think} }

func (p Poisson) pooled(int) Arrivals { return p }

func (g Gamma) pooled(int) Arrivals { return g }

// A trace's models are taken modulo those there are.
func (t Trace) pooled(int) Arrivals { return t }

func (f Functions) pooled(int) Arrivals {
	sums := make([][]float64, len(f.Minutes))
	for m, counts := range f.Minutes {
		sum := 0.0
		for _, n := range counts {
			sum += n
		}
		sums[m] = []float64{sum}
	}
	return Functions{sums}
}
