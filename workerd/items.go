package workerd

import (
	"container/list"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

const (
	// strayFor is how long a payload waits for its action.
	strayFor = 30 * time.Second
	// strayBytes bounds the payloads of a session that wait for their actions; beyond, the oldest go.
	strayBytes = 256 << 20
)

// itemKey names one attempt of a request.
type itemKey struct {
	request string
	attempt uint32
}

// item is one request of a batch. Its payload comes on Data and its place in a batch on Control, in any order.
type item struct {
	key       itemKey
	rows      int
	job       *job // nil: no action has named it yet
	cancelled bool

	arrived bool
	request *inferencepb.ModelInferRequest
	err     error // the payload can't be decoded
	bytes   int

	at    int64         // when a payload without an action arrived
	stray *list.Element // of such a payload
}

// intake joins the payloads of a session with the batches that name them. The worker's lock guards it.
type intake struct {
	items      map[itemKey]*item
	strays     *list.List // payloads without an action (*item), oldest first
	strayBytes int
	limit      int // of strayBytes
}

func newIntake(limit int) *intake {
	return &intake{items: make(map[itemKey]*item), strays: list.New(), limit: limit}
}

// decode reads an envelope. It needs no lock.
func decode(e *exchangepb.Envelope) *item {
	it := &item{
		key:     itemKey{e.GetRequestId(), e.GetAttempt()},
		arrived: true,
		request: new(inferencepb.ModelInferRequest),
		bytes:   len(e.GetPayload()),
	}
	if err := proto.Unmarshal(e.GetPayload(), it.request); err != nil {
		it.err = fmt.Errorf("payload is not a ModelInferRequest: %w", err)
	}
	return it
}

// arrive takes a payload in, and returns the job that waited for it, if any. A second payload for the same key is
// dropped.
func (in *intake) arrive(payload *item, now int64) *job {
	known := in.items[payload.key]
	if known == nil {
		payload.at = now
		payload.stray = in.strays.PushBack(payload)
		in.strayBytes += payload.bytes
		in.items[payload.key] = payload
		in.expire(now)
		return nil
	}
	if known.arrived {
		return nil
	}
	known.arrived, known.request, known.err, known.bytes = true, payload.request, payload.err, payload.bytes
	return known.job
}

// expire drops payloads that have waited too long for an action, and the oldest ones when there are too many bytes.
func (in *intake) expire(now int64) {
	for e := in.strays.Front(); e != nil; e = in.strays.Front() {
		oldest := e.Value.(*item)
		if now-oldest.at < int64(strayFor) && in.strayBytes <= in.limit {
			return
		}
		in.adopt(oldest)
		delete(in.items, oldest.key)
	}
}

// adopt takes a payload off the list of those without an action.
func (in *intake) adopt(it *item) {
	if it.stray != nil {
		in.strays.Remove(it.stray)
		in.strayBytes -= it.bytes
		it.stray = nil
	}
}

// claim gives a batch its items. It fails, and claims nothing, when the batch names one twice or one that another
// batch has.
func (in *intake) claim(j *job, batch []*sessionpb.BatchItem) error {
	seen := make(map[itemKey]bool, len(batch))
	for _, b := range batch {
		key := itemKey{b.GetRequestId(), b.GetAttempt()}
		if known := in.items[key]; seen[key] || known != nil && known.job != nil {
			return refusef(sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT,
				"request %s attempt %d is in a batch already", key.request, key.attempt)
		}
		seen[key] = true
	}
	for _, b := range batch {
		key := itemKey{b.GetRequestId(), b.GetAttempt()}
		it := in.items[key]
		if it == nil {
			it = &item{key: key}
			in.items[key] = it
		}
		in.adopt(it)
		it.rows, it.job = int(b.GetRows()), j
		j.items = append(j.items, it)
	}
	return nil
}

// cancel marks a request that has not started, and returns the job that it is in. A payload that no action has named
// yet is dropped.
func (in *intake) cancel(key itemKey) *job {
	it := in.items[key]
	switch {
	case it == nil:
		return nil
	case it.job == nil:
		in.adopt(it)
		delete(in.items, key)
		return nil
	default:
		it.cancelled = true
		it.request = nil
		return it.job
	}
}

// forget lets go of a job's items, because it starts or never will.
func (in *intake) forget(j *job) {
	for _, it := range j.items {
		if in.items[it.key] == it {
			delete(in.items, it.key)
		}
	}
}

// complete says whether nothing is missing of what can still be run.
func complete(items []*item) bool {
	for _, it := range items {
		if !it.arrived && !it.cancelled {
			return false
		}
	}
	return true
}
