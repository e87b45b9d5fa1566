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
		w.value = max(w.seed, second)
	}
}

func (w *window) estimate(now Instant) time.Duration {
	if w.stale(now) {
		return w.seed
	}
	return w.value
}

func (w *window) stale(now Instant) bool {
	return w.count == 0 || now.Sub(w.newest) > windowStale
}

// timing is how long a model takes on one kind of device.
type timing struct {
	kind string
	// profiled: without a profile the kind is not used for the model.
	profiled bool
	profile  []RowsTime
	// measured[rows] is of batches of just so many rows; nil: there was none.
	measured []*window
	load     window
	// usable devices of this kind may be given the model; on present ones of
	// them its weights are resident or on the way. See place.recount.
	usable, present int

	// table[rows] is what profile and measurements come to, until fresh.
	table []time.Duration
	fresh Instant
}

func (t *timing) seed(p *Profile) {
	t.profiled = len(p.Execution) > 0
	t.profile = p.Execution
	t.load.reset(p.WeightsLoad)
	t.measured, t.table, t.fresh = nil, nil, -1
	if t.profiled {
		largest := p.Execution[len(p.Execution)-1].Rows
		t.measured, t.table = make([]*window, largest+1), make([]time.Duration, largest+1)
	}
}

// execution is how long a batch of so many rows should take. It never shrinks
// with more rows. Past the profile it grows in proportion.
func (t *timing) execution(now Instant, rows int) time.Duration {
	if now > t.fresh {
		t.tabulate(now)
	}
	if rows < len(t.table) {
		return t.table[rows]
	}
	last := len(t.table) - 1
	return t.table[last] * time.Duration((rows+last-1)/last)
}

// tabulate computes the table; it holds until a measurement comes, or one of the
// windows is out of date.
func (t *timing) tabulate(now Instant) {
	t.fresh = now.Add(windowStale)
	largest := time.Duration(0)
	for rows := 1; rows < len(t.table); rows++ {
		d := time.Duration(0)
		if w := t.measured[rows]; w != nil && !w.stale(now) {
			d = w.value
			t.fresh = min(t.fresh, w.newest.Add(windowStale))
		} else {
			d = t.profiledTime(rows)
		}
		largest = max(largest, d)
		t.table[rows] = largest
	}
}

// profiledTime is what the profile says of so many rows: between two sizes it is
// interpolated.
func (t *timing) profiledTime(rows int) time.Duration {
	if last := t.profile[len(t.profile)-1]; rows > last.Rows {
		return last.Time * time.Duration((rows+last.Rows-1)/last.Rows)
	}
	i := 0
	for t.profile[i].Rows < rows {
		i++
	}
	above := t.profile[i]
	if i == 0 || above.Rows == rows {
		return above.Time
	}
	below := t.profile[i-1]
	return below.Time + (above.Time-below.Time)*time.Duration(rows-below.Rows)/time.Duration(above.Rows-below.Rows)
}

// record takes in what a batch of so many rows took.
func (t *timing) record(now Instant, rows int, d time.Duration) {
	if rows >= len(t.measured) {
		return
	}
	w := t.measured[rows]
	if w == nil {
		w = &window{}
		w.reset(t.profiledTime(rows))
		t.measured[rows] = w
	}
	before, stale := w.value, w.stale(now)
	w.record(now, d)
	if w.value != before || stale {
		t.fresh = -1
	}
}

// pace says how much slower a device is than its kind.
//
// It looks at the last results on the device, at most two of each model, each as a
// multiple of what the profile says of the kind. When more than half of them are
// slower than slowFrom the device is slow, by the second largest of them; what it
// takes then says nothing about its kind, and its estimates are the profile's times
// that factor. (If one model alone is slow its profile is wrong, not the device.) One
// estimate for each (model, device, rows) would have to be learnt anew for each model
// of a device that has become slow.
type pace struct {
	last   [paceSize]paced
	newest Instant
	factor float64 // 0: as its kind
}

// paced is a result.
type paced struct {
	model ModelID
	at    Instant // 0: there is none
	ratio float64
}

const (
	paceSize = 6
	// slowFrom is above what jitter and the noise of a shared machine come to.
	slowFrom = 1.3
)

func (p *pace) record(now Instant, model ModelID, ratio float64) {
	p.newest = now
	oldest, own, mine := 0, -1, 0
	for i := range p.last {
		x := &p.last[i]
		if now.Sub(x.at) > windowStale {
			*x = paced{}
		}
		if x.at < p.last[oldest].at {
			oldest = i
		}
		if x.at != 0 && x.model == model {
			if mine++; own < 0 || x.at < p.last[own].at {
				own = i
			}
		}
	}
	if mine >= 2 {
		oldest = own
	}
	p.last[oldest] = paced{model, now, ratio}

	n, slow, first, second := 0, 0, 0.0, 0.0
	for i := range p.last {
		x := &p.last[i]
		if x.at == 0 {
			continue
		}
		n++
		if x.ratio > slowFrom {
			slow++
		}
		if x.ratio > first {
			first, second = x.ratio, first
		} else {
			second = max(second, x.ratio)
		}
	}
	p.factor = 0
	if slow > 1 && 2*slow > n {
		p.factor = second
	}
}

// at is how many times longer than the profile says everything takes; 0: the
// device is as its kind.
func (p *pace) at(now Instant) float64 {
	if now.Sub(p.newest) > windowStale {
		return 0
	}
	return p.factor
}

// roundTrip is the time that an action on an idle engine, of execution or of
// transfers, spends outside of it: on its way, in queues, on the way back. It is measured with each of
// them.
type roundTrip struct {
	seed        time.Duration
	last        [roundTrips]time.Duration
	count       int
	newest      Instant
	heard       Instant // when the worker last gave a result
	most, least time.Duration
}

// roundTrips is how many are looked back on. There are more of them than of
// measurements of one model, and a deadline is missed when one is too short.
const roundTrips = 32

func (r *roundTrip) record(now Instant, d time.Duration) {
	if now.Sub(r.heard) > windowStale {
		r.count = 0
	}
	r.last[r.count%roundTrips] = max(0, d)
	r.count++
	r.newest = now
	first, second := time.Duration(0), time.Duration(0)
	r.least = r.last[0]
	for _, m := range r.last[:min(r.count, roundTrips)] {
		if m > first {
			first, second = m, first
		} else {
			second = max(second, m)
		}
		r.least = min(r.least, m)
	}
	r.most = second
	if r.count < windowTrust {
		r.most = max(r.seed, second)
	}
}

// lag is what to expect of the next one, with a twentieth to spare. A worker that
// has always had something to do has not been measured for long: then it is what it
// took at least, and half as much again, in case the rest was a stall. Of one that
// has given no result at all for long nothing is known: an estimate that makes
// everything infeasible has to be forgotten.
func (r *roundTrip) lag(now Instant) time.Duration {
	most := r.most + r.most/20
	switch {
	case r.count == 0:
		return r.seed
	case now.Sub(r.heard) > windowStale:
		return min(r.seed, most)
	case now.Sub(r.newest) > windowStale:
		return min(most, r.least+r.least/2+time.Millisecond)
	}
	return most
}

// back is what the result needs at least. An action that starts so late that it has
// just that is likely not in time, but one that is not started never is.
func (r *roundTrip) back(now Instant) time.Duration {
	if r.count < windowTrust {
		return r.lag(now) / 2
	}
	return min(r.lag(now), r.least) / 2
}

// jitter is by how much a result may be later, on its way, than the one before.
func (r *roundTrip) jitter(now Instant) time.Duration {
	if r.count < windowTrust {
		return r.lag(now) / 4
	}
	return max(0, min(r.lag(now), r.most)-r.least) / 2
}
