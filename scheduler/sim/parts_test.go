package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

func TestTheAgendaIsInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var g agenda
	for range 2000 {
		g.push(event{at: scheduler.Instant(random.IntN(100))})
		if random.IntN(3) == 0 {
			g.pop()
		}
	}
	last := event{}
	for len(g.events) > 0 {
		e := g.pop()
		if before(&e, &last) {
			t.Fatalf("%d comes after %d", e.at, last.at)
		}
		last = e
	}
}

func TestQuantilesAreCloseToTheTruth(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var h histogram
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(math.Exp(10+3*random.NormFloat64())) * time.Microsecond / 1000
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
		want := all[int(math.Ceil(q*float64(len(all))))-1]
		got := h.quantile(q)
		if math.Abs(float64(got-want)) > 0.006*float64(want)+float64(time.Microsecond) {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if h.quantile(1) > all[len(all)-1] || h.most != all[len(all)-1] {
		t.Errorf("most %v", h.most)
	}
}

// arrivals plays a source alone.
func arrivals(w Workload, s *Scenario) (times []time.Duration, byModel map[int]int) {
	byModel = map[int]int{}
	c := newSource(&w, 0, s)
	for now := c.start; ; {
		at, model, ok := c.following(now)
		if !ok {
			return times, byModel
		}
		times = append(times, at.Sub(epoch))
		byModel[model]++
		now = at
	}
}

// counted returns the mean of counts in intervals and their variance by it.
func counted(times []time.Duration, interval, duration time.Duration) (mean, dispersion float64) {
	counts := make([]float64, duration/interval)
	for _, at := range times {
		counts[at/interval]++
	}
	for _, n := range counts {
		mean += n / float64(len(counts))
	}
	variance := 0.0
	for _, n := range counts {
		variance += (n - mean) * (n - mean) / float64(len(counts))
	}
	return mean, variance / mean
}

func TestPoissonAndBursts(t *testing.T) {
	s := standard(1, 4)
	s.Duration = 1000 * time.Second
	for _, test := range []struct {
		arrivals Arrivals
		// dispersion of counts of 10 s: for renewals in the long run the square of the coefficient of variation.
		least, most float64
	}{
		{Poisson{50}, 0.7, 1.4}, {Gamma{50, 1}, 0.7, 1.4}, {Gamma{50, 4}, 10, 22}, {Gamma{50, 0.5}, 0.15, 0.4},
	} {
		times, models := arrivals(Workload{Arrivals: test.arrivals}, &s)
		mean, dispersion := counted(times, 10*time.Second, s.Duration)
		within(t, fmt.Sprintf("%+v: the mean", test.arrivals), mean, 500, 6)
		if dispersion < test.least || dispersion > test.most {
			t.Errorf("%+v: dispersion %v", test.arrivals, dispersion)
		}
		for m := range 4 {
			within(t, "each model's share", float64(models[m]), float64(len(times))/4, 5)
		}
	}
}

func TestPopularity(t *testing.T) {
	s := standard(1, 10)
	s.Duration = 1000 * time.Second
	_, models := arrivals(Workload{Zipf: 1, Arrivals: Poisson{100}}, &s)
	within(t, "the first against the second", float64(models[0])/float64(models[1]), 2, 6)
	within(t, "the first against the tenth", float64(models[0])/float64(models[9]), 10, 10)
	s.Duration = 5 * time.Second
	_, models = arrivals(Workload{Growth: time.Second, Arrivals: Poisson{1000}}, &s)
	if models[5] != 0 || models[4] == 0 || models[4] > models[0]/5 {
		t.Errorf("a growing set: %v", models)
	}
}

func TestBoundsOfAWorkload(t *testing.T) {
	s := standard(1, 1)
	times, _ := arrivals(Workload{Start: 2 * time.Second, Stop: 4 * time.Second, Arrivals: Poisson{1000}}, &s)
	if times[0] < 2*time.Second || times[len(times)-1] >= 4*time.Second {
		t.Errorf("%v to %v", times[0], times[len(times)-1])
	}
	within(t, "the requests", float64(len(times)), 2000, 7)
}

func TestScaledLoads(t *testing.T) {
	s := standard(1, 1,
		Workload{Arrivals: Poisson{100}}, Workload{Rows: 2, Arrivals: Gamma{50, 2}}, Workload{Arrivals: Closed{InFlight: 1}},
		Workload{Arrivals: Trace{[]Arrival{{0, 0}, {time.Second, 0}}}}, Workload{Arrivals: Functions{[][]float64{{60}}}})
	within(t, "the rate", s.Rate(), 100+100+2+1, 0.01)
	twice := s.Scaled(2)
	within(t, "twice the rate", twice.Rate(), 406, 0.01)
	within(t, "the rate as before", s.Rate(), 203, 0.01)
}

func TestReadTrace(t *testing.T) {
	for _, test := range []struct {
		text, want string
	}{
		{"seconds,model\n0.5,1\n0.25,0\n", "[{250ms 0} {500ms 1}]"},
		{"1\n2\n", "[{1s -1} {2s -1}]"},
		{"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n", "[{0s -1} {52ms -1}]"},
		{"\ufeffseconds\n1\n\n", "[{1s -1}]"},
	} {
		got, err := ReadTrace(strings.NewReader(test.text))
		if err != nil || fmt.Sprint(got.Arrivals) != test.want {
			t.Errorf("%q: %v, %v", test.text, got.Arrivals, err)
		}
	}
	for text, want := range map[string]string{
		"": "no arrival", "seconds\nx\n": `line 2: "x"`, "1,-1\n": "index of a model", "-1\n": "negative", "TIMESTAMP\nnow\n": "is not a time", "NaN\n": "NaN",
	} {
		if _, err := ReadTrace(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestATraceOfAzureIsPlayed(t *testing.T) {
	file, err := os.Open("testdata/azure-llm-code-2023-first-minutes.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	trace, err := ReadTrace(file)
	if err != nil {
		t.Fatal(err)
	}
	s := standard(1, 4, Workload{Name: "trace", SLO: 100 * time.Millisecond, Arrivals: trace})
	s.Duration = time.Hour
	if r := play(t, s); r.Total.Requests != uint64(len(trace.Arrivals)) || r.Total.Requests < 200 {
		t.Errorf("%d of %d requests", r.Total.Requests, len(trace.Arrivals))
	}
}

func TestReadFunctions(t *testing.T) {
	text := "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f1,http,1,0\no,a,f2,http,100,50\no,a,f3,timer,10,20\no,a,f4,http,2,2\n"
	f, err := ReadFunctions(strings.NewReader(text), 2)
	if err != nil {
		t.Fatal(err)
	}
	// By total: f2, f3 ask model 0, f4 and f1 model 1.
	if want := "[[110 3] [70 2]]"; fmt.Sprint(f.Minutes) != want {
		t.Errorf("%v, want %v", f.Minutes, want)
	}
	s := standard(1, 2)
	s.Duration = time.Hour
	times, models := arrivals(Workload{Arrivals: f}, &s)
	if n := len(times); n < 140 || n > 230 || models[1] > 20 || times[n-1] >= 2*time.Minute {
		t.Errorf("%d requests, %v, the last at %v", n, models, times[n-1])
	}
	for _, bad := range []string{"", "a,b,c,d\n", "a,b,c,d,x\n", "a,b,c,d,-1\n"} {
		if _, err := ReadFunctions(strings.NewReader(bad), 2); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSyntheticFunctionsAreSpreadWide(t *testing.T) {
	f, err := SyntheticFunctions(1, 2000, 100, 60, 500)
	if err != nil {
		t.Fatal(err)
	}
	within(t, "the rate", f.rate(), 500, 1)
	total := make([]float64, 100)
	for _, counts := range f.Minutes {
		for m, n := range counts {
			total[m] += n
		}
	}
	if total[0] < 1000*total[99] {
		t.Errorf("the first model has %v, the last %v", total[0], total[99])
	}
}

func TestExperiments(t *testing.T) {
	for _, name := range Experiments() {
		t.Run(name, func(t *testing.T) {
			p := Preset{Seed: 1, Profiles: []Model{resnet50()}, Kind: "V100"}
			if _, err := Experiment(name, p); err != nil {
				t.Fatal(err)
			}
			// A short form is played.
			p.Duration, p.Models = 3*time.Second, 8
			s, err := Experiment(name, p)
			if err != nil {
				t.Fatal(err)
			}
			if r := play(t, s); r.Total.Requests < 100 || r.Total.Good == 0 {
				t.Errorf("%+v", r.Total)
			}
		})
	}
	if _, err := Experiment("7.1", Preset{Profiles: []Model{resnet50()}}); err == nil || !strings.Contains(err.Error(), "6.1, 6.2") {
		t.Errorf("%v", err)
	}
	if _, err := Experiment("6.1", Preset{}); err == nil {
		t.Error("an experiment without a profile was made")
	}
}

func TestCapacity(t *testing.T) {
	for _, limit := range []float64{0.1, 0.7, 1.9} {
		load, above, err := Capacity(2, func(load float64) (bool, error) { return load <= limit, nil })
		if err != nil || load > limit || above <= limit || above-load > 2.0/(1<<capacitySteps) {
			t.Errorf("%v: %v to %v, %v", limit, load, above, err)
		}
	}
	if load, above, _ := Capacity(2, func(float64) (bool, error) { return true, nil }); load != 2 || above != 0 {
		t.Errorf("%v to %v", load, above)
	}
}
