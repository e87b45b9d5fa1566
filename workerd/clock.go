package workerd

import (
	"math"
	"time"
)

// maxDrift bounds Options.ClockDrift, far beyond any clock that is sold.
const maxDrift = 0.1

// clock is the worker's clock, in nanoseconds. It starts anywhere and may be fast or slow: nothing but windows of actions, and
// times that are compared with them, is meant in it.
func (w *Worker) clock() int64 {
	elapsed := time.Since(w.start)
	return int64(elapsed + time.Duration(float64(elapsed)*w.options.ClockDrift) + w.options.ClockOffset)
}

// real is how long to wait until the worker's clock has gone on by ns. It is rounded up: a timer that rang just before the
// instant would have its reader look again and again.
func (w *Worker) real(ns int64) time.Duration {
	if w.options.ClockDrift == 0 {
		return time.Duration(ns)
	}
	return time.Duration(math.Ceil(float64(ns) / (1 + w.options.ClockDrift)))
}
