package controller

import (
	"time"

	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// This file carries out what the policy decides: actions go to sessions,
// results come back as events. All of it runs on the dispatcher's loop.

// workerUp gives the policy a worker.
func (d *dispatcher) workerUp(s *session, w *scheduler.Worker) {
	d.sessions[w.Name] = s
	kinds := make([]string, len(w.Devices))
	for i, device := range w.Devices {
		kinds[i] = device.Kind
	}
	d.kinds[w.Name] = kinds
	d.event(scheduler.WorkerUp{Worker: w})
}

// workerDown takes a worker from the policy. Requests whose results came but
// whose tensors did not are submitted again: inference is repeatable.
func (d *dispatcher) workerDown(s *session, name string, died bool) {
	if d.sessions[name] != s {
		return
	}
	delete(d.sessions, name)
	delete(d.streaks, name)
	delete(d.kinds, name)
	d.event(scheduler.WorkerDown{Name: name, Died: died})
	mishap := "worker " + name + " fell silent while it had it"
	if died {
		mishap = "worker " + name + " died while it had it"
	}
	for _, t := range d.byTry {
		if t.at != s {
			continue
		}
		t.mishap(name, mishap)
		if t.done {
			t.output, t.executed = nil, true
			d.submit(t)
		}
	}
}

// reported gives the policy a worker's own word on what is on its devices.
func (d *dispatcher) reported(s *session, w *scheduler.Worker) {
	if d.sessions[w.Name] == s && d.started {
		d.event(scheduler.Reported{Worker: w})
	}
}

// abandon gives up on a batch whose result is overdue. Its requests are on their
// way elsewhere; the worker need not begin with them any more.
func (d *dispatcher) abandon(id scheduler.ActionID) (worker string) {
	r := d.actions[id]
	if r == nil {
		return ""
	}
	mishap := "worker " + r.action.Worker + " did not answer in time"
	for i, t := range r.tickets {
		if t.try == r.tries[i] {
			t.mishap(r.action.Worker, mishap)
			r.session.cancelRequest(t.envelope.RequestId, t.try)
			t.at = nil
		}
	}
	d.log.Warn("a device does not answer in time; its requests go elsewhere", "worker", r.action.Worker, "device", r.action.Device,
		"model", r.action.Model, "requests", len(r.tickets))
	return r.action.Worker
}

// carryOut sends an action to its worker. When the session is gone the policy
// will hear of that as WorkerDown.
func (d *dispatcher) carryOut(a scheduler.Action) {
	s := d.sessions[a.Worker]
	if s == nil {
		return
	}
	d.metrics.actions.WithLabelValues(a.Worker).Inc()
	r := &running{action: a, session: s}
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
		delete(d.byTry, t.try)
		d.lastTry++
		t.at, t.try, t.sent, t.output, t.fault = s, d.lastTry, now, nil, ""
		d.byTry[t.try] = t
		r.tickets, r.tries = append(r.tickets, t), append(r.tries, t.try)
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
	if r.action.Kind == scheduler.Infer {
		d.judge(r.action, event.Outcome)
		if kinds := d.kinds[r.action.Worker]; event.Outcome == scheduler.OK && r.action.Device < len(kinds) {
			d.ran.note(ranKey{r.action.Model, kinds[r.action.Device], r.action.Rows}, event.Engine)
		}
	}
	for i, t := range r.tickets {
		if t.try != r.tries[i] {
			continue // it has been given up here
		}
		t.result, t.engine = now, event.Engine
		t.predicted, t.batchRows = r.action.Expected, r.action.Rows
		code, message := result.Code, result.Message
		if i < len(result.Items) {
			code, message = result.Items[i].Code, result.Items[i].Message
		}
		t.fault, t.faultCode = message, code
		if event.Outcome == scheduler.Refused || event.Outcome == scheduler.Skipped {
			t.at = nil // it is in nobody's hands
		}
		t.executed = t.executed || code == sessionpb.ResultCode_RESULT_CODE_LOST
		switch code {
		case sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT:
			event.Rejected = append(event.Rejected, t.id)
		case sessionpb.ResultCode_RESULT_CODE_PAYLOAD_MISSING, sessionpb.ResultCode_RESULT_CODE_CANCELLED:
			event.Returned = append(event.Returned, t.id)
			t.at = nil
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

// judge counts failures in a row.
func (d *dispatcher) judge(a scheduler.Action, o scheduler.Outcome) {
	switch o {
	case scheduler.OK:
		d.streaks.succeeded(a.Worker, uint64(a.Model))
	case scheduler.Failed:
		if d.streaks.failed(a.Worker, uint64(a.Model)) {
			d.workers.atFault(a.Worker)
		}
	}
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
