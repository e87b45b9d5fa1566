package controller

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestClockFindsTheOffsetThroughUnevenDelays(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, want := range []time.Duration{0, 90 * time.Minute, -72 * time.Hour} {
		var c clock
		now := int64(time.Hour)
		for range 100 {
			there, back := time.Duration(random.IntN(int(5*time.Millisecond))), time.Duration(random.IntN(int(5*time.Millisecond)))
			sent := now
			worker := sent + int64(there) + int64(want)
			received := sent + int64(there) + int64(back)
			c.observe(sent, worker, received)
			now += int64(100 * time.Millisecond)
		}
		got, roundTrip := c.best(now)
		if off := (got - want).Abs(); off > roundTrip/2 {
			t.Errorf("offset %v: estimated %v, off by more than half the round trip of %v", want, got, roundTrip)
		}
	}
}

func TestClockFollowsAClockThatDrifts(t *testing.T) {
	var c clock
	const drift = time.Millisecond // each exchange
	offset := time.Duration(0)
	for i := range 1000 {
		sent := int64(i) * int64(100*time.Millisecond)
		offset += drift
		c.observe(sent, sent+int64(time.Millisecond)+int64(offset), sent+int64(2*time.Millisecond))
	}
	if got, _ := c.best(int64(1000 * 100 * time.Millisecond)); (offset - got).Abs() > clockSamples*drift {
		t.Errorf("offset is %v, estimated %v", offset, got)
	}
}

// A quick exchange of a while ago is not worth more than a slower one of now.
func TestClockForgetsWhatHasDrifted(t *testing.T) {
	var c clock
	const drift = 500e-6
	for i := range 10 {
		sent := int64(i) * int64(time.Second)
		roundTrip := 300 * time.Microsecond
		if i == 0 {
			roundTrip = 0
		}
		offset := time.Duration(drift * float64(sent))
		c.observe(sent, sent+int64(roundTrip)/2+int64(offset), sent+int64(roundTrip))
	}
	now := int64(9 * time.Second)
	want := time.Duration(drift * float64(now))
	if got, _ := c.best(now); (want - got).Abs() > 200*time.Microsecond {
		t.Errorf("offset is %v, estimated %v", want, got)
	}
}
