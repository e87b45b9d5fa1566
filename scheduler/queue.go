package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"sort"
	"time"
)

// request is a request that has not been completed.
type request struct {
	*Request
	rows  int
	seq   uint64
	model *model
	// action is the Infer that it is part of; nil while it waits.
	action *action
	// started: a worker that went away, or did not answer, may have run it.
	started bool
	// deaths counts the workers that died with it; above 0 it is a suspect, and
	// changes only while it does not wait. unanswered counts the devices that
	// did not answer in time.
	deaths, unanswered uint8
	// waits: it is in a queue. over: it has been completed.
	waits, over bool

	when  Instant // the key in timers
	index int     // the place in timers; −1: not there
}

// urgency orders requests of any sort: the deadline, or for best effort
// the instant at which it has waited long enough to be treated as due.
func (r *request) urgency(age time.Duration) Instant {
	if r.Deadline != 0 {
		return r.Deadline
	}
	return r.Arrived.Add(age)
}

// queue holds the waiting requests of one model and one shape class, which
// may run together. A step looks at its ends, or searches it by halves.
type queue struct {
	class string
	timed []*request // by deadline
	loose []*request // best effort, by arrival
}

func (q *queue) empty() bool { return len(q.timed) == 0 && len(q.loose) == 0 }

// list is the one of the two that r belongs to.
func (q *queue) list(r *request) *[]*request {
	if r.Deadline != 0 {
		return &q.timed
	}
	return &q.loose
}

func byUrgency(a, b *request) int {
	return cmp.Or(cmp.Compare(a.urgency(0), b.urgency(0)), cmp.Compare(a.seq, b.seq))
}

func (q *queue) add(r *request) {
	l := q.list(r)
	i := len(*l)
	if i > 0 && byUrgency((*l)[i-1], r) > 0 {
		i, _ = slices.BinarySearchFunc(*l, r, byUrgency)
	}
	*l = slices.Insert(*l, i, r)
}

func (q *queue) remove(r *request) {
	l := q.list(r)
	if i, ok := slices.BinarySearchFunc(*l, r, byUrgency); ok {
		*l = cut(*l, i, i+1)
	}
}

// since is the index of the first request whose deadline is not before t.
func (q *queue) since(t Instant) int {
	return sort.Search(len(q.timed), func(i int) bool { return q.timed[i].Deadline >= t })
}

// cut removes s[i:j] by moving the shorter side.
func cut(s []*request, i, j int) []*request {
	if i > len(s)-j {
		return slices.Delete(s, i, j)
	}
	copy(s[j-i:], s[:i])
	clear(s[:j-i])
	return s[j-i:]
}

// timers are the requests that have a deadline, by the instant at which
// something has to happen to them.
type timers []*request

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(t[i].when, t[j].when), cmp.Compare(t[i].seq, t[j].seq)) < 0
}
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	r := x.(*request)
	r.index = len(*t)
	*t = append(*t, r)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	last := len(*t) - 1
	r := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	r.index = -1
	return r
}

func (t *timers) set(r *request, when Instant) {
	r.when = when
	if r.index < 0 {
		heap.Push(t, r)
	} else {
		heap.Fix(t, r.index)
	}
}

func (t *timers) drop(r *request) {
	if r.index >= 0 {
		heap.Remove(t, r.index)
	}
}
