package scheduler

import (
	"math"
	"slices"
	"time"
)

// never is later than every deadline.
const never = Instant(math.MaxInt64)

// model is a model: what runs, what waits, where it is.
type model struct {
	Model
	// known: it was added and not removed. A model may be held, resident or
	// profiled before it is added.
	known, removed bool
	// replacement takes over what waits, and what comes back from workers.
	replacement *model

	timings []*timing
	places  []*place
	usable  int // places that may be used
	present int // of these, with weights resident or on the way

	queues   []*queue   // no empty one
	spare    []*queue   // empty ones, for reuse
	suspects []*request // that wait, the most urgent first
	waiting  int        // requests, the suspects among them
	rows     int        // of the waiting requests
	timed    int        // of these, the rows of requests with a deadline
	active   int        // index in core.active; −1: nothing waits
	slot     int32      // index in core.keys
	runs     bitset     // devices, by order, that have its weights and may run it
	stirred  bool       // it is in core.moved

	// expiry is no later than the first instant at which a waiting request is too
	// late; 0: none has a deadline.
	expiry Instant
	// mixed: requests of several rows have come, which may be too late before
	// those in front of them.
	mixed bool
	// again is when the strategy wants to look at it once more; 0: at no time.
	again Instant
	alarm alarm

	// orphaned is since when requests wait and no worker can run them.
	orphaned Instant
	// changed: it is in core.changed. cold: it is in core.cold.
	changed, cold bool
	// obliged is when a batch of it last had requests without a deadline: only from
	// then on the others' patience counts, so that a backlog of them does not become
	// due as a whole.
	obliged Instant
	// missed is when a request of each rank was last too late, or given up.
	missed [ranks]Instant
	// warm: wanted on so many devices although nothing waits.
	warm int

	demand demanded

	doubt    doubt
	trials   int  // Infers that are trials, but for abandoned ones
	wary     bool // in core.wary
	stopped  bool // it is blamed
	answered bool // an Infer of it was OK
}

// timing is the model's timing on a kind of device; it may be unprofiled.
func (m *model) timing(kind string) *timing {
	for _, t := range m.timings {
		if t.kind == kind {
			return t
		}
	}
	t := &timing{kind: kind}
	m.timings = append(m.timings, t)
	return t
}

// refresh counts anew where the model can run.
func (m *model) refresh() {
	for _, pl := range m.places {
		pl.recount()
	}
}

// tooBig says that the model is held and profiled, and fits nowhere.
func (m *model) tooBig() bool {
	return m.usable == 0 && slices.ContainsFunc(m.places, func(pl *place) bool {
		return pl.held && m.known && pl.timing.profiled
	})
}

// fastest is the best execution time of so many rows on any usable device.
func (m *model) fastest(now Instant, rows int) (d time.Duration, ok bool) {
	for _, t := range m.timings {
		if t.usable == 0 {
			continue
		}
		if e := t.execution(now, rows); !ok || e < d {
			d, ok = e, true
		}
	}
	return d, ok
}

// bestCase is the time to an answer if nothing else had to be done. cold is
// the part of it that is spent on loading weights.
func (m *model) bestCase(now Instant, rows int) (d, cold time.Duration) {
	best := time.Duration(math.MaxInt64)
	for _, t := range m.timings {
		if t.usable == 0 {
			continue
		}
		e, load := t.execution(now, rows), time.Duration(0)
		if t.present == 0 {
			load = t.load.estimate(now)
		}
		if e+load < best {
			best, cold = e+load, load
		}
	}
	return best, cold
}

// count adds to the waiting rows, for a request of that sort.
func (m *model) count(r *request, rows int) {
	m.rows += rows
	if r.Deadline != 0 {
		m.timed += rows
	}
}

// batchRows is the most rows in a batch.
func (m *model) batchRows() int { return max(1, m.MaxRows) }

// queue is the queue that a request belongs to, made when it is missing.
func (m *model) queue(r *request) *queue {
	for _, q := range m.queues {
		if q.class == r.Class && q.rank == r.rank && q.bound == r.bound {
			return q
		}
	}
	var q *queue
	if n := len(m.spare); n > 0 {
		q, m.spare = m.spare[n-1], m.spare[:n-1]
	} else {
		q = &queue{}
	}
	q.class, q.rank, q.bound = r.Class, r.rank, r.bound
	m.queues = append(m.queues, q)
	return q
}

// release takes an empty queue out.
func (m *model) release(q *queue) {
	i := slices.Index(m.queues, q)
	m.queues = slices.Delete(m.queues, i, i+1)
	if q.bound = nil; len(m.spare) < 2 {
		m.spare = append(m.spare, q)
	}
}

// head is the most urgent of the waiting requests, nil when none waits.
func (m *model) head(age time.Duration) *request {
	var first *request
	if len(m.suspects) > 0 {
		first = m.suspects[0]
	}
	for _, q := range m.queues {
		for _, l := range [...][]*request{q.timed, q.loose} {
			if len(l) > 0 && (first == nil || moreUrgent(l[0], first, age)) {
				first = l[0]
			}
		}
	}
	return first
}

// lastDeadline is the latest deadline of the waiting requests; never when one
// of them has none.
func (m *model) lastDeadline() Instant {
	var last Instant
	for _, r := range m.suspects {
		if r.Deadline == 0 {
			return never
		}
		last = max(last, r.Deadline)
	}
	for _, q := range m.queues {
		if len(q.loose) > 0 {
			return never
		}
		last = max(last, q.timed[len(q.timed)-1].Deadline)
	}
	return last
}

func moreUrgent(a, b *request, age time.Duration) bool {
	ua, ub := a.urgency(age), b.urgency(age)
	return ua < ub || ua == ub && a.seq < b.seq
}
