package scheduler

import (
	"slices"
	"testing"
)

func TestLotteryDrawsBySpeed(t *testing.T) {
	// lengths are how many of a thousand requests each device gets.
	lengths := func(seed uint64, speeds ...float64) (all []int) {
		p := newCore(Options{}, newLottery(seed))
		s := warm(len(speeds), 1)
		for i, speed := range speeds {
			s.Workers[i].Speed = speed
		}
		events := []Event{Start{s}}
		for id := RequestID(1); id <= 1000; id++ {
			r := within(id, 1, 0)
			events = append(events, Submit{&r})
		}
		var out Decisions
		p.Step(testStart, events, &out)
		for _, d := range p.devices {
			all = append(all, d.length())
		}
		return all
	}
	for _, test := range []struct {
		name   string
		speeds []float64
		want   []int // within 50
	}{
		{"alike", []float64{1, 1}, []int{500, 500}},
		{"one is three times as fast", []float64{1, 3}, []int{250, 750}},
		{"small speeds", []float64{1e-3, 4e-3}, []int{200, 800}},
		{"no speed is that of one", []float64{0, 1, -1, 1}, []int{250, 250, 250, 250}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := lengths(1, test.speeds...)
			for i, want := range test.want {
				if got[i] < want-50 || got[i] > want+50 {
					t.Errorf("the devices got %v, want about %v", got, test.want)
				}
			}
		})
	}
	if !slices.Equal(lengths(1, 1, 1), lengths(1, 1, 1)) {
		t.Error("the same seed draws otherwise")
	}
	if slices.Equal(lengths(1, 1, 1), lengths(2, 1, 1)) {
		t.Error("another seed draws the same")
	}
}

// Below the least sum nobody is drawn, and the requests are run all the same.
func TestLotteryOfTheTooSlow(t *testing.T) {
	s := warm(2, 1)
	s.Workers[0].Speed, s.Workers[1].Speed = 4e-5, 4e-5
	p := newCore(Options{}, newLottery(1))
	f := newFakeFleet(p, t.Fatalf)
	f.now = testStart
	f.start(s)
	var events []Event
	for id := RequestID(1); id <= 100; id++ {
		events = append(events, f.submit(within(id, 1, 0)))
	}
	f.step(events...)
	if p.devices[0].bound+p.devices[1].bound > 0 {
		t.Error("somebody was drawn")
	}
	f.run(f.now.Add(100 * ms))
	if f.reasons[Done] != 100 {
		t.Errorf("%v, want all 100 done", f.reasons)
	}
}
