package scheduler

import (
	"slices"
	"testing"
	"time"
)

func TestFIFOTakesTheOldest(t *testing.T) {
	aged := func(r Request, ago time.Duration) Request {
		r.Arrived = r.Arrived.Add(-ago * ms)
		return r
	}
	other := within(4, 1, 0)
	other.Class = "other"
	for _, test := range []struct {
		name     string
		requests []Request
		want     string
	}{
		{"the oldest model, all of it", []Request{within(1, 1, 90*ms), aged(within(2, 2, 200*ms), 3), within(3, 2, 0)}, "w1: [2 3]"},
		{"in order of arrival, not of deadlines", []Request{aged(within(1, 1, 90*ms), 1), aged(within(2, 1, 50*ms), 2), aged(within(3, 1, 0), 3)}, "w1: [3 2 1]"},
		{"no further than a deadline allows", []Request{aged(within(1, 1, 90*ms), 2), aged(within(2, 1, 5500*ms/1000), 1), within(3, 1, 0)}, "w1: [1 2]"},
		{"who can't be in time is passed over", []Request{aged(within(1, 1, 3*ms), 9), within(2, 1, 90*ms)}, "w1: [2]"},
		{"one class", []Request{aged(within(1, 1, 0), 1), other, within(3, 1, 0)}, "w1: [1 3]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, _ := decided("fifo", warm(1, 2), test.requests); !slices.Equal(got[:1], []string{test.want}) {
				t.Errorf("sent %q, want %q first", got, test.want)
			}
		})
	}
}
