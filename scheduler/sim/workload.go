package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// Workload is a stream of like requests. Several make up a scenario.
type Workload struct {
	Name string
	// Models are indices of the models that are asked; nil means all.
	Models []int
	// Zipf is the exponent of the models' popularity, the first being asked
	// most; 0 asks all alike. Closed and Trace with models ignore it.
	Zipf float64
	// Growth, when not 0, lets the first model alone be asked at the
	// beginning, and one more each time so much has passed.
	Growth time.Duration

	// SLO is the time from arrival to deadline; 0 means no deadline.
	SLO      time.Duration
	Priority uint64
	Tenant   string
	// Rows of each request. Default 1.
	Rows int

	// Start and Stop bound it within the run; Stop 0 means the run's end.
	Start, Stop time.Duration
	Arrivals    Arrivals
}

// Arrivals says when requests come: Closed, Poisson, Gamma, Trace or Functions.
type Arrivals interface {
	check() error
	// scaled comes so many times as often.
	scaled(factor float64) Arrivals
	// rate is requests a second in the mean, 0 where that depends on answers.
	rate() float64
	// pooled asks one model instead of so many.
	pooled(models int) Arrivals
}

// Closed is a closed loop: each of InFlight clients of each model sends its next
// request when its last one is answered.
type Closed struct {
	InFlight int
	// Think is the pause after an answer. After a refusal there is one of at
	// least a millisecond: nobody asks again within no time.
	Think time.Duration
}

// refusalPause is the shortest pause of a client that was refused.
const refusalPause = time.Millisecond

// Poisson is so many independent requests a second.
type Poisson struct{ Rate float64 }

// Gamma is bursts: times between requests have a gamma distribution with that
// coefficient of variation. With 1 it is Poisson; above, requests come in bursts.
type Gamma struct{ Rate, CV float64 }

// Trace is requests at given times.
type Trace struct {
	// Arrivals ascend by At.
	Arrivals []Arrival
}

// Arrival is one request of a trace.
type Arrival struct {
	At time.Duration
	// Model is the index in the workload's models; -1 leaves the choice to it.
	Model int
}

// Functions is counts of requests by minute, as in the Azure Functions traces
// of 2019. Within a minute the requests of a model are a Poisson process.
type Functions struct {
	// Minutes[m][i] is how many requests the workload's model i gets in minute m.
	Minutes [][]float64
}

func (c Closed) check() error {
	if c.InFlight < 1 || c.Think < 0 {
		return errors.New("a closed loop has at least one request in flight, and no negative pause")
	}
	return nil
}

func (c Closed) scaled(float64) Arrivals { return c }
func (c Closed) rate() float64           { return 0 }

func checkRate(r float64) error {
	if !(r > 0) || math.IsInf(r, 0) {
		return fmt.Errorf("a rate of %v requests a second: it must be above 0", r)
	}
	return nil
}

func (p Poisson) check() error              { return checkRate(p.Rate) }
func (p Poisson) scaled(f float64) Arrivals { return Poisson{p.Rate * f} }
func (p Poisson) rate() float64             { return p.Rate }

func (g Gamma) check() error {
	if !(g.CV > 0) || g.CV > 1000 {
		return fmt.Errorf("a coefficient of variation of %v: it must be above 0, at most 1000", g.CV)
	}
	return checkRate(g.Rate)
}
func (g Gamma) scaled(f float64) Arrivals { return Gamma{g.Rate * f, g.CV} }
func (g Gamma) rate() float64             { return g.Rate }

func (t Trace) check() error {
	if len(t.Arrivals) == 0 {
		return errors.New("the trace has no arrival")
	}
	if !sort.SliceIsSorted(t.Arrivals, func(i, j int) bool { return t.Arrivals[i].At < t.Arrivals[j].At }) {
		return errors.New("the trace is not in the order of time")
	}
	return nil
}

func (t Trace) scaled(f float64) Arrivals {
	scaled := make([]Arrival, len(t.Arrivals))
	for i, a := range t.Arrivals {
		scaled[i] = Arrival{time.Duration(float64(a.At) / f), a.Model}
	}
	return Trace{scaled}
}

// Faster is the trace with its requests so many times as often.
func (t Trace) Faster(factor float64) Trace { return t.scaled(factor).(Trace) }

func (t Trace) rate() float64 {
	n := len(t.Arrivals)
	if last := t.Arrivals[n-1].At; last > 0 {
		return float64(n) / last.Seconds()
	}
	return 0
}

func (f Functions) check() error {
	if len(f.Minutes) == 0 {
		return errors.New("there is no minute of counts")
	}
	return nil
}

func (f Functions) scaled(factor float64) Arrivals {
	scaled := make([][]float64, len(f.Minutes))
	for m, counts := range f.Minutes {
		scaled[m] = make([]float64, len(counts))
		for i, n := range counts {
			scaled[m][i] = n * factor
		}
	}
	return Functions{scaled}
}

// Times is so many times the counts.
func (f Functions) Times(factor float64) Functions { return f.scaled(factor).(Functions) }

func (f Functions) rate() float64 {
	sum := 0.0
	for _, counts := range f.Minutes {
		for _, n := range counts {
			sum += n
		}
	}
	return sum / 60 / float64(len(f.Minutes))
}

func (w *Workload) check(models int) error {
	switch {
	case w.Arrivals == nil:
		return errors.New("it does not say when requests come")
	case w.SLO < 0 || w.Rows < 0 || w.Start < 0 || w.Growth < 0 || !(w.Zipf >= 0):
		return errors.New("SLO, rows, start, growth and Zipf exponent can't be negative")
	case w.Stop != 0 && w.Stop <= w.Start:
		return fmt.Errorf("it stops at %v, before it starts at %v", w.Stop, w.Start)
	}
	for _, m := range w.Models {
		if m < 0 || m >= models {
			return fmt.Errorf("it asks model %d of %d", m, models)
		}
	}
	return w.Arrivals.check()
}

// Scaled is the scenario with so many times the load. Closed loops stay.
func (s Scenario) Scaled(factor float64) Scenario {
	loads := make([]Workload, len(s.Workloads))
	for i, w := range s.Workloads {
		w.Arrivals = w.Arrivals.scaled(factor)
		loads[i] = w
	}
	s.Workloads = loads
	return s
}

// Rate is rows a second that all open workloads offer together, in the mean of
// the whole duration.
func (s *Scenario) Rate() float64 {
	sum := 0.0
	for i := range s.Workloads {
		w := &s.Workloads[i]
		stop := s.Duration
		if w.Stop != 0 {
			stop = min(stop, w.Stop)
		}
		active := share(max(0, stop-w.Start).Seconds(), s.Duration.Seconds())
		sum += w.Arrivals.rate() * float64(max(1, w.Rows)) * active
	}
	return sum
}

// source is a workload at work.
type source struct {
	*Workload
	models []int
	random *rand.Rand
	// cumulative are the sums of the models' weights; nil: all alike.
	cumulative []float64
	start, end scheduler.Instant

	next   int       // of a trace
	minute int       // of Functions, that cumulative is for
	counts []float64 // the sums of that minute
}

func newSource(w *Workload, index int, s *Scenario) *source {
	c := &source{Workload: w, models: w.Models, minute: -1,
		random: rand.New(rand.NewPCG(s.Seed, 1000+uint64(index)))}
	if c.models == nil {
		for i := range s.Models {
			c.models = append(c.models, i)
		}
	}
	stop := s.Duration
	if w.Stop != 0 {
		stop = min(stop, w.Stop)
	}
	c.start, c.end = epoch.Add(w.Start), epoch.Add(stop)
	if w.Zipf > 0 {
		sum := 0.0
		for i := range c.models {
			sum += math.Pow(float64(i+1), -w.Zipf)
			c.cumulative = append(c.cumulative, sum)
		}
	}
	return c
}

// pick chooses a model at an instant.
func (c *source) pick(now scheduler.Instant) int {
	n := len(c.models)
	if c.Growth > 0 {
		n = min(n, 1+int(now.Sub(c.start)/c.Growth))
	}
	if c.cumulative == nil {
		return c.models[c.random.IntN(n)]
	}
	return c.models[draw(c.random, c.cumulative[:n])]
}

// draw chooses an index by weights, of which the sums are given.
func draw(random *rand.Rand, sums []float64) int {
	at := random.Float64() * sums[len(sums)-1]
	return min(sort.SearchFloat64s(sums, at), len(sums)-1)
}

// following is when the next request comes, after one at now, and of which
// model; false when there is none.
func (c *source) following(now scheduler.Instant) (at scheduler.Instant, model int, ok bool) {
	switch a := c.Arrivals.(type) {
	case Poisson:
		at = now.Add(seconds(c.random.ExpFloat64() / a.Rate))
		model = c.pick(at)
	case Gamma:
		shape := 1 / (a.CV * a.CV)
		at = now.Add(seconds(gamma(c.random, shape) / shape / a.Rate))
		model = c.pick(at)
	case Trace:
		if c.next == len(a.Arrivals) {
			return 0, 0, false
		}
		arrival := a.Arrivals[c.next]
		c.next++
		at = c.start.Add(arrival.At)
		if arrival.Model >= 0 {
			model = c.models[arrival.Model%len(c.models)]
		} else {
			model = c.pick(at)
		}
	case Functions:
		if at, model, ok = c.ofMinute(a, now); !ok {
			return 0, 0, false
		}
	}
	return at, model, at < c.end
}

// ofMinute draws the next request of Functions. A Poisson process has no memory,
// so what falls beyond its minute is drawn anew from the minute's end.
func (c *source) ofMinute(f Functions, now scheduler.Instant) (at scheduler.Instant, model int, ok bool) {
	for {
		minute := int(now.Sub(c.start) / time.Minute)
		if minute >= len(f.Minutes) {
			return 0, 0, false
		}
		if minute != c.minute {
			c.minute, c.counts = minute, c.counts[:0]
			sum := 0.0
			for _, n := range f.Minutes[minute][:min(len(c.models), len(f.Minutes[minute]))] {
				sum += n
				c.counts = append(c.counts, sum)
			}
		}
		end := c.start.Add(time.Duration(minute+1) * time.Minute)
		total := 0.0
		if len(c.counts) > 0 {
			total = c.counts[len(c.counts)-1]
		}
		if total > 0 {
			at = now.Add(seconds(c.random.ExpFloat64() * 60 / total))
			if at < end {
				return at, c.models[draw(c.random, c.counts)], true
			}
		}
		now = end
	}
}

// seconds is a duration, bounded so that it can be added to an instant.
func seconds(s float64) time.Duration { return time.Duration(min(s, 1e9) * 1e9) }

// gamma draws from a gamma distribution of scale 1, by the method of Marsaglia
// and Tsang (2000).
func gamma(random *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(random, shape+1) * math.Pow(random.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := random.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		u := random.Float64()
		if math.Log(u) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}
