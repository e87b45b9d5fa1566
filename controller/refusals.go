package controller

import (
	"fmt"
	"strings"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// refusal is the error that a client sees for a completion.
func (d *dispatcher) refusal(t *ticket, c *scheduler.Completion) error {
	e := d.explain(t, c)
	if len(t.mishaps) > 0 {
		e.Message += "; " + strings.Join(t.mishaps, ", and ")
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

func (d *dispatcher) explain(t *ticket, c *scheduler.Completion) *errs.Error {
	waited := d.now().Sub(t.arrived).Round(time.Microsecond)
	switch c.Reason {
	case scheduler.Rejected:
		if t.faultCode == sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED {
			return errs.New(errs.ExecutionFailed, "model %s could not be run: %s", t.modelName(), t.fault)
		}
		return errs.New(errs.Invalid, "the worker refused the request: %s", t.fault)
	case scheduler.ExecutionFailed:
		return errs.New(errs.ExecutionFailed, "model %s could not be run: %s", t.modelName(), t.fault)
	case scheduler.Poisonous:
		return errs.New(errs.RequestBlamed,
			"the request for model %s is not tried again, for workers die with it; look at its input, and at what the workers said last", t.modelName())
	case scheduler.Unanswered:
		return errs.New(errs.WorkerTimeout, "the request for model %s is not tried again, for no worker answers with it in time", t.modelName())
	case scheduler.Infeasible:
		return errs.New(errs.Infeasible, "the request for model %s has %v left, but can't be answered sooner than in %v",
			t.modelName(), t.deadline.Sub(t.arrived).Round(time.Microsecond), c.Possible.Sub(t.arrived).Round(time.Microsecond))
	case scheduler.TooLate:
		return errs.New(errs.DeadlinePassed, "after %v in the queue the request for model %s can't be answered before its deadline any more", waited, t.modelName())
	case scheduler.GivenUp:
		return errs.New(errs.Overloaded, "more is asked of model %s than can be answered in time: after %v in the queue the request was given up for the sake of others; with %v left it would probably have been answered",
			t.modelName(), waited, c.Possible.Sub(d.now()).Round(time.Millisecond))
	case scheduler.DeadlinePassed:
		return errs.New(errs.DeadlinePassed, "the deadline of the request for model %s passed, or could not be met any more, after %v, when it had been at a worker", t.modelName(), waited)
	case scheduler.NoWorker:
		return d.obstacle(t, obstacle{errs.NoWorker, "no worker that holds it takes work", "see `orrery worker list`"})
	case scheduler.NoRoom:
		return d.obstacle(t, obstacle{errs.NoRoom, "its weights fit on no device of the workers that hold it", "give one a larger weights_cache"})
	case scheduler.ModelStopped:
		return d.obstacle(t, obstacle{errs.ModelBlamed, "workers died with it", "see `orrery model status`"})
	case scheduler.UnknownModel:
		return errs.New(errs.UnknownModel, "model %s has been unloaded", t.modelName())
	case scheduler.Cancelled:
		return errs.New(errs.Cancelled, "the client cancelled the request")
	}
	return errs.New(errs.Internal, "the scheduler gave up on the request: %s", c.Reason)
}

// obstacle says why nobody can serve a request's model, and what would help.
func (d *dispatcher) obstacle(t *ticket, found obstacle) *errs.Error {
	return refuse(d.replica, uint64(t.model), t.envelope.Header.GetModelName(), d.workers.live(), found)
}

// modelName is for messages.
func (t *ticket) modelName() string { return fmt.Sprintf("%q", t.envelope.Header.GetModelName()) }
