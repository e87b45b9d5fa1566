package scheduler

import (
	"math"
	"time"
)

// fading is a sum of what there was of late: after its memory a 2.7th is left.
type fading struct {
	sum float64
	at  Instant
}

func (f *fading) add(now Instant, x float64, memory time.Duration) {
	// Within a small part of the memory nothing fades to speak of.
	if now.Sub(f.at) > memory/64 {
		f.sum, f.at = f.now(now, memory), now
	}
	f.sum += x
}

func (f *fading) now(now Instant, memory time.Duration) float64 {
	if f.sum == 0 {
		return 0
	}
	return f.sum * math.Exp(-float64(now.Sub(f.at))/float64(memory))
}
