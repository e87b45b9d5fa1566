package workerd

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// never is later than any instant of a worker's clock.
const never = math.MaxInt64

// origin is where a job came from, and where its answer goes.
type origin interface {
	// begin is called when an Infer starts: from now on its items can't be cancelled and no payload is waited for. The lock
	// is held.
	begin(j *job)
	// deliver takes the answers' tensors of an Infer. The lock is not held.
	deliver(outputs []*exchangepb.Envelope)
	// settle takes the result, of every job once. The lock is held.
	settle(j *job, r *sessionpb.Result)
}

// job is an action on its way through an executor. The worker's lock guards it until it runs.
type job struct {
	from   origin // nil in tests of the queue
	action *sessionpb.Action

	// In nanoseconds of the worker's clock.
	received int64
	started  int64 // 0 as long as it waits
	earliest int64 // when it arrived, if the action has no bound
	latest   int64 // never: no bound

	// ready says whether the job can begin now that its window is open; nil means yes. Called with the lock held.
	ready func(now int64) bool
	// patience, when not 0, is an instant at which ready may change its mind.
	patience int64
	// run does the work, without the lock. The result needs only what is special about it.
	run func(ctx context.Context, j *job) (*sessionpb.Result, error)

	// measurement is what a Profile has come to, from its first slice on.
	measurement *measurement
	// items are the requests of an Infer, in the action's order.
	items []*item
	// dropped: the session that asked for it is over, nobody waits for the result. unwanted: a measurement whose model is to
	// be unloaded.
	dropped, unwanted bool
}

func newJob(from origin, a *sessionpb.Action, now int64) *job {
	j := &job{from: from, action: a, received: now, earliest: now, latest: never}
	if a.GetEarliestNs() != 0 {
		j.earliest = a.GetEarliestNs()
	}
	if a.GetLatestNs() != 0 {
		j.latest = a.GetLatestNs()
	}
	return j
}

// queue holds what waits, by earliest start and then by arrival. It is pure: the caller says what time it is.
type queue struct {
	jobs []*job
}

// push adds a job behind those that may start as early.
func (q *queue) push(j *job) {
	at, _ := slices.BinarySearchFunc(q.jobs, j, func(e, j *job) int {
		return cmp.Or(cmp.Compare(e.earliest, j.earliest), -1)
	})
	q.jobs = slices.Insert(q.jobs, at, j)
}

// next removes and returns the first job that may begin now, nil if there is none. One that isn't ready lets others
// pass.
func (q *queue) next(now int64) *job {
	for i, j := range q.jobs {
		if j.earliest > now {
			return nil
		}
		if j.latest >= now && (j.ready == nil || j.ready(now)) {
			q.jobs = slices.Delete(q.jobs, i, i+1)
			return j
		}
	}
	return nil
}

// late removes and returns the jobs whose window has closed.
func (q *queue) late(now int64) []*job {
	return q.remove(func(j *job) bool { return j.latest < now })
}

// remove removes and returns the jobs for which unwanted is true.
func (q *queue) remove(unwanted func(*job) bool) []*job {
	var removed []*job
	q.jobs = slices.DeleteFunc(q.jobs, func(j *job) bool {
		if !unwanted(j) {
			return false
		}
		removed = append(removed, j)
		return true
	})
	return removed
}

// wakeAt returns the next instant at which time alone makes a job late or, if one more may run, ready; never if there is
// none.
func (q *queue) wakeAt(now int64, free bool) int64 {
	at := int64(never)
	for _, j := range q.jobs {
		if j.latest < never {
			at = min(at, j.latest+1)
		}
		if free && j.earliest > now {
			at = min(at, j.earliest)
		}
		if free && j.patience > now {
			at = min(at, j.patience)
		}
	}
	return at
}
