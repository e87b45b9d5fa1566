package scheduler

import (
	"cmp"
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
	// rank: requests of a lower one go first, as far as the strategy ranks.
	rank uint8
	// shift is by how much it is less urgent than its deadline says; below 0: more.
	shift time.Duration
	// bound is the only device that is to run it; nil: any.
	bound *device
	// tenant is whose it is; nil: the strategy does not ask.
	tenant *tenant
}

// urgency orders requests of any sort: the deadline, or for best effort
// the instant at which it has waited long enough to be treated as due.
func (r *request) urgency(age time.Duration) Instant {
	if r.Deadline != 0 {
		return r.Deadline
	}
	return max(r.Arrived, r.model.obliged).Add(age)
}

// queue holds the waiting requests of one model, shape class, rank and device
// that they are bound to. Queues of one class may run together. A step looks at
// the ends of a queue, or searches it by halves.
type queue struct {
	class string
	rank  uint8
	bound *device
	timed []*request // by deadline
	loose []*request // best effort, by arrival
	// room is the memory of which timed and loose are the ends.
	room [2][]*request
}

func (q *queue) empty() bool { return len(q.timed) == 0 && len(q.loose) == 0 }

// list is the one of the two that r belongs to.
func (q *queue) list(r *request) *[]*request {
	if r.Deadline != 0 {
		return &q.timed
	}
	return &q.loose
}

// inList is the order of either list.
func inList(a, b *request) int {
	if a.Deadline != b.Deadline {
		return cmp.Compare(a.Deadline, b.Deadline)
	}
	if a.Deadline == 0 && a.Arrived != b.Arrived {
		return cmp.Compare(a.Arrived, b.Arrived)
	}
	return cmp.Compare(a.seq, b.seq)
}

func (q *queue) add(r *request) {
	l := q.list(r)
	if len(*l) == cap(*l) {
		q.compact(l)
	}
	i := len(*l)
	if i > 0 && inList((*l)[i-1], r) > 0 {
		i, _ = slices.BinarySearchFunc(*l, r, inList)
	}
	*l = slices.Insert(*l, i, r)
}

// compact moves a list to the beginning of its memory, which it has left as its
// front was cut off, or to a larger one.
func (q *queue) compact(l *[]*request) {
	room := &q.room[0]
	if l == &q.loose {
		room = &q.room[1]
	}
	if len(*room) < 2*len(*l)+8 {
		*room = make([]*request, 4*len(*l)+16)
	}
	n := copy(*room, *l)
	clear((*room)[n:])
	*l = (*room)[:n]
}

func (q *queue) remove(r *request) {
	l := q.list(r)
	if i, ok := slices.BinarySearchFunc(*l, r, inList); ok {
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
