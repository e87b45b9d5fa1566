package main

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

const ms = time.Millisecond

// answered is a request that was due and answered at these milliseconds.
func answered(at, done time.Duration) sample {
	return sample{at: at * ms, done: done * ms, faithful: true, right: true}
}

func TestWindows(t *testing.T) {
	lost := sample{at: 1500 * ms, done: 4500 * ms, err: errors.New("lost")}
	samples := []sample{
		answered(900, 990),   // before the kill at 1000
		answered(950, 1001),  // in hand at the kill
		answered(1100, 2600), // held until there was a leader
		lost,
		answered(2510, 2520), // the first answer after the election at 2500
		answered(3510, 3530), // within a second of it
		answered(3520, 3540), // at a second
		answered(3600, 3610),
	}
	got := windows(samples, 1000*ms, 2500*ms)
	for i, want := range [][]sample{samples[:1], samples[1:6], samples[6:]} {
		if !slices.Equal(got[i].samples, want) {
			t.Errorf("%s: %v, want %v", got[i].name, got[i].samples, want)
		}
	}
	// Without an answer after the election nothing is after.
	if got := windows(samples[:4], 1000*ms, 5000*ms); len(got[2].samples) != 0 || len(got[1].samples) != 3 {
		t.Errorf("%v", got)
	}
	if gap := longestGap(samples); gap != 1519*ms {
		t.Errorf("the longest gap is %v, want 1.519s between 1.001s and 2.52s", gap)
	}
	if l := latencies(samples); len(l) != 7 || l[0] != 10*ms || l[6] != 1500*ms {
		t.Errorf("latencies %v", l)
	}
}

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, test := range []struct {
		values []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0}, {hundred[:1], 0.99, 1}, {hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred[:3], 0.5, 2},
	} {
		if got := quantile(test.values, test.q); got != test.want {
			t.Errorf("quantile %v of %d values is %d, want %d", test.q, len(test.values), got, test.want)
		}
	}
}

func TestVerdict(t *testing.T) {
	unfaithful := answered(1, 2)
	unfaithful.faithful = false
	untrue := answered(1, 2)
	untrue.right = false
	for want, samples := range map[string][]sample{
		"":                             {answered(1, 2), untrue},
		"made no request":              nil,
		"1 of 2 answers are not those": {answered(1, 2), unfaithful},
		"1 of 2 requests failed, the first at 0.003s: lost": {answered(1, 2), {at: 3 * ms, err: errors.New("lost")}},
	} {
		err := (&demoReport{samples: samples}).verdict()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestReport(t *testing.T) {
	r := demoReport{killed: 1000 * ms, elected: 1300 * ms, rejoined: 800 * ms}
	for i := range time.Duration(40) {
		s := answered(100*i, 100*i+2)
		if i > 9 && i < 14 {
			s.done = (1305 + i) * ms
		}
		s.right = i%4 != 0
		r.samples = append(r.samples, s)
	}
	var got strings.Builder
	r.print(&got)
	golden(t, "report.txt", got.String())
}

// The load goes on at its rate when answers stop, and what they wait counts as
// latency.
func TestLoadIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		f := answers() // says class 1
		f.start(t, n)
		c, err := client.New(client.Options{Inference: []string{"c:1"}, Dial: n.Host("demo").Dial})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l := &demoLoad{
			clients: []*client.Client{c}, interval: 10 * ms, start: time.Now(),
			questions: []question{
				{&inferencepb.ModelInferRequest{}, models.Image{Label: 1}, 1},
				{&inferencepb.ModelInferRequest{}, models.Image{Label: 2}, 1},
				{&inferencepb.ModelInferRequest{}, models.Image{Label: 1}, 2},
			},
		}
		stop := make(chan struct{})
		var sending sync.WaitGroup
		sending.Go(func() { l.run(t.Context(), stop) })
		time.Sleep(995 * ms)
		f.mu.Lock()
		f.hold = true
		f.mu.Unlock()
		time.Sleep(1000 * ms)
		f.mu.Lock()
		asked := f.asked
		f.mu.Unlock()
		if l.answeredSince(1000 * ms) {
			t.Error("nothing is answered during the pause")
		}
		f.letGo()
		synctest.Wait()
		if !l.answeredSince(1000 * ms) {
			t.Error("what was held has been answered")
		}
		time.Sleep(1000 * ms)
		close(stop)
		sending.Wait()
		if asked != 200 || len(l.samples) != 300 {
			t.Errorf("%d requests by the end of the pause, %d in all; want 200 and 300", asked, len(l.samples))
		}
		answered, faithful, right := tally(l.samples)
		if answered != 300 || faithful != 200 || right != 200 {
			t.Errorf("%d answered, %d faithful, %d right; want 300, 200, 200", answered, faithful, right)
		}
		if longest := quantile(latencies(l.samples), 1); longest != 995*ms {
			t.Errorf("the longest latency is %v, want 995ms", longest)
		}
	})
}
