package fsm

import (
	"slices"
	"time"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Limits of the de-duplication table.
const (
	requestMaxCount = 65_536
	requestMaxAge   = int64(10 * time.Minute)
	// requestMaxAhead is how far a requester's clock may be ahead of the state's time. A request from far ahead, once
	// forgotten, would make all others too old.
	requestMaxAhead = int64(time.Minute)
)

// requests remembers the results of requests, so that a retry has no second effect.
//
// Of a request it keeps when that was first made, which is the same in all its retries. To forget it raises forgotten
// to that time, and a request from then or before is refused: so none has an effect twice, whatever the clocks of
// proposers and requesters say. Ages count by the proposer's time of the command at hand, not by the state's: after a
// leader whose clock was hours ahead, the state's time stands still for as long, and everything new would be
// forgotten at once.
type requests struct {
	rows      []*logpb.Remembered // in the order of the log, the oldest first
	byID      map[string]*logpb.Remembered
	forgotten int64 // unix ns
}

func newRequests() requests {
	return requests{byID: map[string]*logpb.Remembered{}}
}

// first is the result of the request, nil if it isn't remembered.
func (r *requests) first(id string) *logpb.Result {
	return r.byID[id].GetResult()
}

func (r *requests) remember(cmd *logpb.Command, result *logpb.Result) {
	r.put(&logpb.Remembered{
		RequestId:       cmd.GetRequestId(),
		RequestedUnixNs: cmd.GetRequestedUnixNs(),
		Result:          result,
	})
	r.trim()
}

func (r *requests) trim() {
	for len(r.rows) > requestMaxCount {
		r.forgetOldest()
	}
}

func (r *requests) put(row *logpb.Remembered) {
	r.rows = append(r.rows, row)
	r.byID[row.GetRequestId()] = row
}

// age forgets the oldest requests that are too old at a time.
func (r *requests) age(now int64) {
	now = max(now, 0)
	for len(r.rows) > 0 && now-r.rows[0].GetRequestedUnixNs() > requestMaxAge {
		r.forgetOldest()
	}
}

func (r *requests) forgetOldest() {
	row := r.rows[0]
	r.rows[0] = nil // append moves the rest to another array now and then, this one may live until then
	r.rows = r.rows[1:]
	delete(r.byID, row.GetRequestId())
	r.forgotten = max(r.forgotten, row.GetRequestedUnixNs())
}

func (r *requests) all() []*logpb.Remembered { return slices.Clone(r.rows) }
