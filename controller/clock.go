package controller

import "time"

const (
	// clockSamples is how many exchanges the estimate looks back.
	clockSamples = 16
	// clockDrift is how fast two clocks may come apart, as a share of the time:
	// ten times what quartz does.
	clockDrift = 500e-6
)

// clock estimates a worker's clock from pings. The exchange with the shortest
// round trip says most, since its one-way times can differ least; but what an
// old one says has drifted. The one with the smallest possible error, from both,
// is believed (the method of NTP, RFC 5905).
type clock struct {
	samples [clockSamples]struct {
		offset, roundTrip time.Duration
		at                int64 // leader's clock
	}
	count int
}

// observe takes in one exchange, in nanoseconds: sent and received on the
// leader's clock, and the worker's in between.
func (c *clock) observe(sent, worker, received int64) {
	s := &c.samples[c.count%clockSamples]
	s.roundTrip = time.Duration(received - sent)
	s.offset = time.Duration(worker - sent - (received-sent)/2)
	s.at = received
	c.count++
}

// best returns the worker's clock minus the leader's at an instant of the
// latter, and the round trip that the estimate was made from.
func (c *clock) best(now int64) (offset, roundTrip time.Duration) {
	var least time.Duration
	for i := range min(c.count, clockSamples) {
		s := c.samples[i]
		if err := s.roundTrip/2 + time.Duration(clockDrift*float64(now-s.at)); i == 0 || err < least {
			least, offset, roundTrip = err, s.offset, s.roundTrip
		}
	}
	return offset, roundTrip
}
