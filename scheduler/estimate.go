package scheduler

import "time"

const (
	// windowSize is how many measurements an estimate looks back on.
	windowSize = 10
	// windowTrust is how many of them make the profile unnecessary.
	windowTrust = 5
	// windowStale is how long they count after the newest of them. An
	// estimate that makes every request infeasible is never measured again;
	// forgetting it is the way out.
	windowStale = 2 * time.Second
)

// window estimates one duration, a little on the safe side, from what the
// profile says and from what was measured lately.
//
// The estimate is the second largest of the last ten measurements. The largest
// would let one hiccup (a page fault, a busy host) shrink every batch and
// refuse tight deadlines until ten more results have pushed it out; something
// that happens twice in ten is how the device is now.
type window struct {
	seed   time.Duration
	last   [windowSize]time.Duration
	count  int // measurements ever
	newest Instant
	value  time.Duration
}

func (w *window) reset(seed time.Duration) { *w = window{seed: seed, value: seed} }

func (w *window) record(now Instant, d time.Duration) {
	if d <= 0 {
		return
	}
	if now.Sub(w.newest) > windowStale {
		w.count = 0
	}
	w.last[w.count%windowSize] = d
	w.count++
	w.newest = now

	var first, second time.Duration
	for _, m := range w.last[:min(w.count, windowSize)] {
		if m > first {
			first, second = m, first
		} else {
			second = max(second, m)
		}
	}
	w.value = second
	if w.count < windowTrust {
		w.value = max(w.seed, first)
	}
}

func (w *window) estimate(now Instant) time.Duration {
	if w.count == 0 || now.Sub(w.newest) > windowStale {
		return w.seed
	}
	return w.value
}

// bucket is the execution time of batches up to so many rows.
type bucket struct {
	rows int
	window
}

// timing is how long a model takes on one kind of device.
type timing struct {
	kind string
	// profiled: without a profile the kind is not used for the model.
	profiled bool
	exec     []bucket
	load     window
	// usable devices of this kind may be given the model; on present ones of
	// them its weights are resident or on the way. See model.refresh.
	usable, present int
}

func (t *timing) seed(p *Profile) {
	t.profiled = len(p.Execution) > 0
	t.exec = make([]bucket, len(p.Execution))
	for i, e := range p.Execution {
		t.exec[i].rows = e.Rows
		t.exec[i].reset(e.Time)
	}
	t.load.reset(p.WeightsLoad)
}

// execution is how long a batch of so many rows should take. It never shrinks
// with more rows. Past the profile it grows in proportion.
func (t *timing) execution(now Instant, rows int) time.Duration {
	var d time.Duration
	for i := range t.exec {
		d = max(d, t.exec[i].estimate(now))
		if t.exec[i].rows >= rows {
			return d
		}
	}
	last := t.exec[len(t.exec)-1].rows
	return d * time.Duration((rows+last-1)/last)
}

func (t *timing) recordExecution(now Instant, rows int, d time.Duration) {
	for i := range t.exec {
		if t.exec[i].rows >= rows {
			t.exec[i].record(now, d)
			return
		}
	}
}
