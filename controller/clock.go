package controller

import "time"

// clockSamples is how many exchanges the estimate looks back.
const clockSamples = 16

// clock estimates a worker's clock from pings: the exchange with the shortest
// round trip says most, since its one-way times can differ least (the method
// of NTP, RFC 5905). A short window lets it follow a clock that drifts.
type clock struct {
	samples [clockSamples]struct{ offset, roundTrip time.Duration }
	count   int
}

// observe takes in one exchange, in nanoseconds: sent and received on the
// leader's clock, and the worker's in between.
func (c *clock) observe(sent, worker, received int64) {
	s := &c.samples[c.count%clockSamples]
	s.roundTrip = time.Duration(received - sent)
	s.offset = time.Duration(worker - sent - (received-sent)/2)
	c.count++
}

// best returns the worker's clock minus the leader's, and the round trip that
// the estimate was made from.
func (c *clock) best() (offset, roundTrip time.Duration) {
	for i := range min(c.count, clockSamples) {
		if s := c.samples[i]; i == 0 || s.roundTrip < roundTrip {
			offset, roundTrip = s.offset, s.roundTrip
		}
	}
	return offset, roundTrip
}
