package scheduler

import (
	"testing"
	"time"
)

// A device is slow when more than half of what it last did was, of several models,
// and then by the second largest.
func TestPaceOfADevice(t *testing.T) {
	for _, test := range []struct {
		name   string
		ratios []float64
		after  time.Duration // since the last
		want   float64       // 0: as its kind
	}{
		{"nothing measured", nil, 0, 0},
		{"once may be chance", []float64{3}, 0, 0},
		{"twice is not", []float64{3, 4}, 0, 3},
		{"half is not more than half", []float64{3, 1, 3, 1}, 0, 0},
		{"three of five", []float64{3, 1, 3, 1, 2}, 0, 3},
		{"two of five", []float64{3, 1, 3, 1, 1}, 0, 0},
		{"only the last six count", []float64{9, 9, 9, 1, 1, 1, 1}, 0, 0},
		{"it has become slow", []float64{1, 1, 1, 1, 1, 1, 2, 2, 2, 2}, 0, 2},
		{"jitter", []float64{1.2, 1.25, 1.3, 1.29, 1.1}, 0, 0},
		{"faster than it should be", []float64{0.2, 0.2, 0.2, 0.2, 0.2}, 0, 0},
		{"one outlier among slow ones", []float64{2, 90, 2, 2, 2}, 0, 2},
		{"not stale yet", []float64{3, 3}, windowStale, 3},
		{"stale", []float64{3, 3}, windowStale + 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p pace
			now := Instant(time.Second)
			for i, r := range test.ratios {
				now = now.Add(ms)
				p.record(now, ModelID(i), r)
			}
			if got := p.at(now.Add(test.after)); got != test.want {
				t.Errorf("the pace is %v, want %v", got, test.want)
			}
		})
	}
}

// What was long ago does not count together with what is now.
func TestPaceBeginsAnewAfterAPause(t *testing.T) {
	var p pace
	p.record(Instant(ms), 1, 3)
	p.record(Instant(2*ms), 2, 3)
	later := Instant(3*ms + windowStale)
	if p.record(later, 3, 3); p.at(later) != 0 {
		t.Errorf("the pace is %v after one result", p.at(later))
	}
}

// One model that always takes longer than its profile says has a wrong profile; it
// does not make the device slow for others.
func TestAWrongProfileIsNoSlowDevice(t *testing.T) {
	var p pace
	now := Instant(time.Second)
	record := func(model ModelID, ratio float64) {
		now = now.Add(ms)
		p.record(now, model, ratio)
	}
	for range 10 {
		record(1, 3)
	}
	if p.at(now) != 3 {
		t.Errorf("the pace is %v, and nothing else is known of the device", p.at(now))
	}
	record(2, 1)
	record(2, 1)
	for range 10 {
		record(1, 3)
	}
	if p.at(now) != 0 {
		t.Errorf("the pace is %v, although another model takes what it should", p.at(now))
	}
}

func TestLagAndJitterOfARoundTrip(t *testing.T) {
	repeat := func(n int, d ...time.Duration) (all []time.Duration) {
		for range n {
			all = append(all, d...)
		}
		return all
	}
	const seed = 4 * ms
	for _, test := range []struct {
		name        string
		trips       []time.Duration
		after       time.Duration // since the last
		lag, jitter time.Duration
	}{
		{"nothing measured: what was said", nil, 0, seed, ms},
		{"few, shorter: a twentieth more than what was said", repeat(4, ms), 0, seed + seed/20, (seed + seed/20) / 4},
		{"one that is longer", []time.Duration{40 * ms}, 0, seed + seed/20, (seed + seed/20) / 4},
		{"two that are", []time.Duration{40 * ms, 20 * ms}, 0, 21 * ms, 21 * ms / 4},
		{"five: what was said no longer counts", repeat(5, 2*ms), 0, 2100 * time.Microsecond, 0},
		{"one outlier", append(repeat(9, 2*ms), 90*ms), 0, 2100 * time.Microsecond, 0},
		{"half of what it varies by", append(repeat(9, 2*ms), 8*ms, 8*ms), 0, 8400 * time.Microsecond, 3 * ms},
		{"only the last 32 count", append(repeat(5, 90*ms), repeat(roundTrips, 2*ms)...), 0, 2100 * time.Microsecond, 0},
		{"less than nothing is nothing", repeat(5, -ms), 0, 0, 0},
		{"not stale yet", repeat(5, 20*ms), windowStale, 21 * ms, 0},
		{"stale, and was long: what was said", repeat(5, 20*ms), windowStale + 1, seed, 0},
		{"stale, and was short", repeat(5, 2*ms), windowStale + 1, 2100 * time.Microsecond, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := roundTrip{seed: seed}
			now := Instant(time.Second)
			for _, d := range test.trips {
				now = now.Add(ms)
				r.record(now, d)
				r.heard = now
			}
			now = now.Add(test.after)
			if lag, jitter := r.lag(now), r.jitter(now); lag != test.lag || jitter != test.jitter {
				t.Errorf("the lag is %v and the jitter %v, want %v and %v", lag, jitter, test.lag, test.jitter)
			}
		})
	}
}

// A result of a batch that had waited behind another one says nothing of the way.
func TestOnlyWhatDidNotQueueIsARoundTrip(t *testing.T) {
	p := newEDF(Options{ScheduleAhead: 10 * ms})
	s := resnets(1, 1, 100)
	s.Models[0].MaxRows = 1
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	var out Decisions
	p.Step(Instant(ms), []Event{Start{s}, Submit{&Request{ID: 1, Model: 1, Rows: 1}}, Submit{&Request{ID: 2, Model: 1, Rows: 1}}}, &out)
	if len(out.Actions) != 2 {
		t.Fatalf("%d actions, want 2", len(out.Actions))
	}
	trip := &p.workers[0].trip
	p.Step(Instant(30*ms), []Event{Finished{&Result{Action: out.Actions[1].ID, Engine: 3 * ms}}}, &out)
	if trip.count != 0 {
		t.Errorf("%v was measured with a batch that had queued", trip.last[0])
	}
	p.Step(Instant(31*ms), []Event{Finished{&Result{Action: out.Actions[0].ID, Engine: 3 * ms}}}, &out)
	if trip.count != 1 || trip.last[0] != 27*ms {
		t.Errorf("%d round trips, the first took %v; want one of 27ms", trip.count, trip.last[0])
	}
}

// The core looks at all devices for each request while they are unlike; that ends.
func TestSlownessIsForgotten(t *testing.T) {
	p := newNamed("edf", Options{})
	f := newFakeFleet(p, t.Fatalf)
	slow := true
	f.fate = func(a Action) fakeFate {
		if slow {
			return fakeFate{duration: 3 * trueTime(a)}
		}
		return fakeFate{duration: trueTime(a)}
	}
	f.start(warm(1, 1))
	for id := range RequestID(5) {
		f.step(f.submit(Request{ID: id + 1, Model: 1, Rows: 1}))
		f.run(f.now.Add(50 * ms))
	}
	if !p.uneven() {
		t.Fatal("nobody has noticed that it was slow")
	}
	slow = false
	f.run(f.now.Add(3 * time.Second))
	if p.uneven() {
		t.Error("it is remembered for ever")
	}
}
