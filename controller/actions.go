package controller

import (
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// This file carries out what the policy decides: actions go to sessions,
// results come back as events. All of it runs on the dispatcher's loop.

// workerUp gives the policy a worker.
func (d *dispatcher) workerUp(s *session, w *scheduler.Worker) {
	d.sessions[w.Name] = s
	d.event(scheduler.WorkerUp{Worker: w})
}

// workerDown takes a worker from the policy. Requests whose results came but
// whose tensors did not are submitted again: inference is repeatable.
func (d *dispatcher) workerDown(s *session, name string) {
	if d.sessions[name] != s {
		return
	}
	delete(d.sessions, name)
	d.event(scheduler.WorkerDown{Name: name})
	for _, t := range d.byWire {
		if t.done && t.at == s {
			t.output, t.executed = nil, true
			d.submit(t)
		}
	}
}

// carryOut sends an action to its worker. When the session is gone the policy
// will hear of that as WorkerDown.
func (d *dispatcher) carryOut(a scheduler.Action) {
	s := d.sessions[a.Worker]
	if s == nil {
		return
	}
	r := &running{action: a}
	out := &sessionpb.Action{
		Device: uint32(a.Device), ModelId: uint64(a.Model),
		EarliestNs: int64(a.Earliest), LatestNs: int64(a.Latest),
	}
	switch a.Kind {
	case scheduler.LoadWeights:
		out.Body = &sessionpb.Action_LoadWeights{LoadWeights: &sessionpb.LoadWeights{}}
	case scheduler.EvictWeights:
		out.Body = &sessionpb.Action_EvictWeights{EvictWeights: &sessionpb.EvictWeights{}}
	case scheduler.Infer:
		out.Body = &sessionpb.Action_Infer{Infer: d.batch(s, r)}
	}
	d.actions[a.ID] = r
	s.do(out, func(result *sessionpb.Result) { d.mailbox.post(func() { d.finish(s, r, result) }) })
}

// batch sends the tensors of a batch and returns its description.
func (d *dispatcher) batch(s *session, r *running) *sessionpb.Infer {
	now := d.now()
	batch := &sessionpb.Infer{}
	for _, id := range r.action.Requests {
		t := d.tickets[id]
		if t == nil {
			continue
		}
		t.at, t.sent, t.output, t.fault = s, now, nil, ""
		r.tickets = append(r.tickets, t)
		e := t.envelopeFor(now)
		s.input(e)
		batch.Items = append(batch.Items, &sessionpb.BatchItem{
			RequestId: e.RequestId, Attempt: e.Attempt, Rows: t.envelope.Header.Rows,
		})
	}
	return batch
}

// finish turns a worker's result into an event. A nil result means that the
// session ended: WorkerDown says so to the policy.
func (d *dispatcher) finish(s *session, r *running, result *sessionpb.Result) {
	if d.actions[r.action.ID] != r {
		return
	}
	delete(d.actions, r.action.ID)
	if result == nil {
		return
	}
	event := &scheduler.Result{
		Action: r.action.ID, Outcome: outcome(result.Code), Engine: time.Duration(result.EngineNs), Absent: absent(r.action.Kind, result.Code),
	}
	now := d.now()
	for i, t := range r.tickets {
		t.result, t.engine = now, event.Engine
		code, message := result.Code, result.Message
		if i < len(result.Items) {
			code, message = result.Items[i].Code, result.Items[i].Message
		}
		t.fault, t.faultCode = message, code
		switch code {
		case sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT:
			event.Rejected = append(event.Rejected, t.id)
		case sessionpb.ResultCode_RESULT_CODE_PAYLOAD_MISSING, sessionpb.ResultCode_RESULT_CODE_CANCELLED:
			event.Returned = append(event.Returned, t.id)
		case sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED:
			if result.Code == sessionpb.ResultCode_RESULT_CODE_OK {
				event.Rejected = append(event.Rejected, t.id)
			}
		}
	}
	if event.Outcome != scheduler.OK {
		d.log.Debug("an action was not done", "worker", r.action.Worker, "device", r.action.Device,
			"action", r.action.Kind, "model", r.action.Model, "code", result.Code, "message", result.Message)
	}
	d.event(scheduler.Finished{Result: event})
}

// outcome says what a worker's code means for the schedule. Faults of requests
// are not the device's.
func outcome(c sessionpb.ResultCode) scheduler.Outcome {
	switch c {
	case sessionpb.ResultCode_RESULT_CODE_OK:
		return scheduler.OK
	case sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED:
		return scheduler.Failed
	case sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT, sessionpb.ResultCode_RESULT_CODE_PAYLOAD_MISSING,
		sessionpb.ResultCode_RESULT_CODE_CANCELLED:
		return scheduler.Skipped
	default:
		return scheduler.Refused
	}
}

// absent says whether a failed action tells that the weights are not on the
// device.
func absent(kind scheduler.Kind, c sessionpb.ResultCode) bool {
	switch c {
	case sessionpb.ResultCode_RESULT_CODE_OK, sessionpb.ResultCode_RESULT_CODE_WEIGHTS_IN_USE:
		return false
	case sessionpb.ResultCode_RESULT_CODE_WEIGHTS_NOT_PRESENT, sessionpb.ResultCode_RESULT_CODE_UNKNOWN_MODEL:
		return true
	default:
		return kind == scheduler.LoadWeights
	}
}

// refusal is the error that a client sees for a completion.
func (d *dispatcher) refusal(t *ticket, c *scheduler.Completion) error {
	waited := d.now().Sub(t.arrived).Round(time.Microsecond)
	var e *errs.Error
	switch c.Reason {
	case scheduler.Rejected:
		e = errs.New(errs.Invalid, "the worker refused the request: %s", t.fault)
		if t.faultCode == sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED {
			e = errs.New(errs.ExecutionFailed, "model %s could not be run: %s", t.modelName(), t.fault)
		}
	case scheduler.ExecutionFailed:
		e = errs.New(errs.ExecutionFailed, "model %s could not be run: %s", t.modelName(), orLost(t.fault))
	case scheduler.Infeasible:
		e = errs.New(errs.Infeasible, "the request for model %s has %v left, but can't be answered sooner than in %v",
			t.modelName(), t.deadline.Sub(t.arrived).Round(time.Microsecond), c.Possible.Sub(t.arrived).Round(time.Microsecond))
	case scheduler.TooLate:
		e = errs.New(errs.DeadlinePassed, "after %v in the queue the request for model %s can't be answered before its deadline any more", waited, t.modelName())
	case scheduler.DeadlinePassed:
		e = errs.New(errs.DeadlinePassed, "the deadline passed after %v, while the request for model %s was at a worker", waited, t.modelName())
	case scheduler.NoWorker:
		e = errs.New(errs.NoWorker, "no worker can serve model %s now: %s", t.modelName(), d.whyNoWorker(t))
	case scheduler.NoRoom:
		e = errs.New(errs.NoRoom, "the weights of model %s fit on no device of the workers that hold it; give a worker a larger weights_cache", t.modelName())
	case scheduler.UnknownModel:
		e = errs.New(errs.UnknownModel, "model %s has been unloaded", t.modelName())
	case scheduler.Cancelled:
		e = errs.New(errs.Cancelled, "the client cancelled the request")
	default:
		e = errs.New(errs.Internal, "the scheduler gave up on the request: %s", c.Reason)
	}
	e.Execution = errs.NotExecuted
	if c.Started || t.executed {
		e.Execution = errs.MaybeExecuted
	}
	if c.RetryAfter > 0 {
		e = e.After(c.RetryAfter)
	}
	return e
}

// whyNoWorker says why nobody can serve a request's model, and what would help.
func (d *dispatcher) whyNoWorker(t *ticket) string {
	why := "those that hold it are not connected; see `orrery worker list`"
	d.replica.Read(func(s *fsm.State) {
		m := s.Model(uint64(t.model))
		if m == nil {
			return
		}
		if reason, advice := whyNotServed(s, m); reason != "" {
			why = reason + "; " + advice
		}
	})
	return why
}

// orLost is what to say when no worker told what was wrong.
func orLost(fault string) string {
	if fault == "" {
		return "workers were lost while they had it"
	}
	return fault
}
