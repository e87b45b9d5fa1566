package workerd

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// ask is one request of a controller without a leader.
type ask struct {
	item  *item
	reply func(*exchangepb.Envelope)
	stop  func() bool // ends the watch on the caller
	gone  bool        // the caller left while it ran
	// Worker's clock.
	received, deadline int64
}

// directBatch is a job made of such requests, of one model and one shape class: they wait together, in the place of the
// first. The worker's lock guards it.
type directBatch struct {
	w      *Worker
	device *device
	model  *model
	class  string
	job    *job
	rows   int
	asks   []*ask // in the order of job.items
	// begun: it takes no others, and none can be cancelled.
	begun bool
	// alone: it is one that failed together with others, and runs again by itself.
	alone bool
	// outputs are the answers, by request.
	outputs map[itemKey][]byte
}

func newDirectBatch(w *Worker, d *device, m *model, class string) *directBatch {
	b := &directBatch{w: w, device: d, model: m, class: class, outputs: map[itemKey][]byte{}}
	b.job = newJob(b, &sessionpb.Action{
		Device: uint32(d.index), ModelId: m.id, Body: &sessionpb.Action_Infer{Infer: &sessionpb.Infer{}},
	}, w.clock())
	b.job.run = d.infer
	return b
}

// submit queues the batch, to be started until its deadline.
func (b *directBatch) submit(deadline int64) error {
	b.job.latest = deadline
	return b.device.inference.submit(b.job)
}

// fits says whether a request may become part of the batch.
func (b *directBatch) fits(m *model, class string, it *item) bool {
	if b.begun || b.alone || b.model != m || b.class != class || b.rows+it.rows > maxRows(m) {
		return false
	}
	for _, a := range b.asks {
		if a.item.key == it.key {
			return false
		}
	}
	return true
}

// add makes a request part of the batch.
func (b *directBatch) add(a *ask) {
	a.item.job = b.job
	b.asks = append(b.asks, a)
	b.job.items = append(b.job.items, a.item)
	b.rows += a.item.rows
	b.job.latest = max(b.job.latest, a.deadline)
}

// cancel is called when nobody waits for a request any more. It takes the lock.
func (b *directBatch) cancel(a *ask) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if b.begun {
		a.gone = true
		return
	}
	a.item.cancelled, a.item.request = true, nil
	for _, it := range b.job.items {
		if !it.cancelled {
			return
		}
	}
	for _, j := range b.device.inference.cancel(func(j *job) bool { return j == b.job }) {
		b.w.answer(j, nil, errCancelled)
	}
}

// begin implements origin. A request that can't be answered before its deadline is left out.
func (b *directBatch) begin(j *job) {
	b.begun = true
	end := j.started + b.device.takes(b.model.id, b.rows)
	for _, a := range b.asks {
		if a.deadline < end {
			a.item.err = refusef(sessionpb.ResultCode_RESULT_CODE_TOO_LATE, "%v were left when it could be started, and it takes about %v",
				time.Duration(a.deadline-j.started), time.Duration(end-j.started))
		}
	}
}

// deliver implements origin.
func (b *directBatch) deliver(outputs []*exchangepb.Envelope) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	for _, e := range outputs {
		b.outputs[itemKey{e.RequestId, e.Attempt}] = e.Payload
	}
}

// settle implements origin: it answers all requests.
func (b *directBatch) settle(j *job, r *sessionpb.Result) {
	for i, a := range b.asks {
		code, message := r.GetCode(), r.GetMessage()
		if i < len(r.GetItems()) {
			code, message = r.Items[i].Code, r.Items[i].Message
		}
		// One request may have spoilt it for the others.
		if code == sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED && len(b.asks) > 1 && b.again(a) {
			continue
		}
		b.answer(j, a, r, code, message)
	}
}

// again has a request run by itself. It says false when that can't be.
func (b *directBatch) again(a *ask) bool {
	w := b.w
	if a.gone || w.closing || w.current != nil && !w.current.quiet(w.clock()) {
		return false
	}
	alone := newDirectBatch(w, b.device, b.model, b.class)
	alone.alone = true
	if alone.submit(a.deadline) != nil {
		return false
	}
	alone.add(a)
	return true
}

// answer ends one request.
func (b *directBatch) answer(j *job, a *ask, r *sessionpb.Result, code sessionpb.ResultCode, message string) {
	w := b.w
	w.direct.requests--
	w.direct.bytes -= a.item.bytes
	w.direct.results[code]++
	a.stop()
	if code != sessionpb.ResultCode_RESULT_CODE_OK {
		a.reply(&exchangepb.Envelope{Answer: grpcerr.Answer(b.fault(code, message))})
		return
	}
	a.reply(&exchangepb.Envelope{Payload: b.outputs[a.item.key], Answer: &exchangepb.Answer{
		Code: uint32(codes.OK), Execution: exchangepb.Execution_EXECUTION_EXECUTED,
		Worker: w.options.Name, Emulated: b.model.info.Emulated, Degraded: true,
		Stages: []*exchangepb.Stage{
			{Name: "queue", DurationNs: j.started - a.received},
			{Name: "worker", DurationNs: r.GetEndedNs() - j.started},
			{Name: "engine", DurationNs: r.GetEngineNs()},
		},
	}})
}

// fault is the error for a code that is not OK.
func (b *directBatch) fault(code sessionpb.ResultCode, message string) error {
	reason := directReason(code)
	if b.alone || b.begun && (reason == errs.ExecutionFailed || reason == errs.ShuttingDown) {
		return errs.Maybe(reason, "%s", message)
	}
	return errs.New(reason, "%s", message)
}

// directReason is what a controller is told for a code.
func directReason(code sessionpb.ResultCode) errs.Reason {
	switch code {
	case sessionpb.ResultCode_RESULT_CODE_STALE:
		return errs.NotLeader
	case sessionpb.ResultCode_RESULT_CODE_TOO_LATE:
		return errs.DeadlinePassed
	case sessionpb.ResultCode_RESULT_CODE_CANCELLED:
		return errs.Cancelled
	case sessionpb.ResultCode_RESULT_CODE_SHUTTING_DOWN:
		return errs.ShuttingDown
	case sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT:
		return errs.Invalid
	case sessionpb.ResultCode_RESULT_CODE_UNKNOWN_MODEL, sessionpb.ResultCode_RESULT_CODE_WEIGHTS_NOT_PRESENT:
		return errs.NotLoaded
	default:
		return errs.ExecutionFailed
	}
}

// directCode is the code under which a refusal that never reached a queue is counted.
func directCode(err error) sessionpb.ResultCode {
	switch errs.From(err).Reason {
	case errs.NotLeader:
		return sessionpb.ResultCode_RESULT_CODE_STALE
	case errs.Overloaded:
		return sessionpb.ResultCode_RESULT_CODE_TOO_EARLY
	case errs.DeadlinePassed:
		return sessionpb.ResultCode_RESULT_CODE_TOO_LATE
	case errs.ShuttingDown:
		return sessionpb.ResultCode_RESULT_CODE_SHUTTING_DOWN
	case errs.NotLoaded:
		return sessionpb.ResultCode_RESULT_CODE_WEIGHTS_NOT_PRESENT
	case errs.Precondition:
		return sessionpb.ResultCode_RESULT_CODE_NOT_REGISTERED
	default:
		return sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT
	}
}
