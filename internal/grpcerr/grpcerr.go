// Package grpcerr is the one table between Orrery's reasons and gRPC's codes,
// and the conversions of errors that cross the wire, in a status or in an
// envelope's answer.
package grpcerr

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/exchangepb"
)

// Domain is the ErrorInfo.domain of every error.
const Domain = "orrery"

// executionKey is the ErrorInfo.metadata key that says whether a request ran.
const executionKey = "execution"

// Code is the gRPC code of a reason. Shedding is RESOURCE_EXHAUSTED, not
// UNAVAILABLE, since many clients retry the latter by themselves.
func Code(r errs.Reason) codes.Code {
	switch r {
	case errs.Invalid:
		return codes.InvalidArgument
	case errs.UnknownModel, errs.UnknownWorker:
		return codes.NotFound
	case errs.NotLoaded, errs.NotProfiled, errs.NoRoom, errs.NoEngine, errs.NoMatch, errs.NoMemory, errs.LoadFailed,
		errs.ModelBlamed, errs.RequestBlamed, errs.LateLoad, errs.Precondition:
		return codes.FailedPrecondition
	case errs.NoWorker, errs.NoLeader, errs.NotLeader, errs.Unreachable, errs.Starting, errs.ShuttingDown, errs.WorkerTimeout:
		return codes.Unavailable
	case errs.Infeasible, errs.DeadlinePassed:
		return codes.DeadlineExceeded
	case errs.Cancelled:
		return codes.Canceled
	case errs.Overloaded:
		return codes.ResourceExhausted
	case errs.StaleModel, errs.TooOld:
		return codes.Aborted
	case errs.Conflict:
		return codes.AlreadyExists
	case errs.UnknownOutcome:
		return codes.Unknown
	default:
		return codes.Internal
	}
}

// reasonOf is the way back for a status without details: somebody else's.
func reasonOf(c codes.Code) errs.Reason {
	switch c {
	case codes.InvalidArgument, codes.OutOfRange:
		return errs.Invalid
	case codes.NotFound:
		return errs.UnknownModel
	case codes.FailedPrecondition:
		return errs.Precondition
	case codes.Unavailable:
		return errs.Unreachable
	case codes.DeadlineExceeded:
		return errs.DeadlinePassed
	case codes.Canceled:
		return errs.Cancelled
	case codes.ResourceExhausted:
		return errs.Overloaded
	case codes.AlreadyExists:
		return errs.Conflict
	case codes.Unknown:
		return errs.UnknownOutcome
	default:
		return errs.Internal
	}
}

var executions = map[errs.Execution]string{
	errs.MaybeExecuted: "unknown",
	errs.NotExecuted:   "not executed",
	errs.Executed:      "executed",
}

// Status turns an error into one that gRPC sends, with ErrorInfo and
// RetryInfo. A nil error stays nil, a gRPC status passes.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*errs.Error](err); !ok {
		if _, ok := status.FromError(err); ok {
			return err
		}
	}
	e := orContext(err)
	st := status.New(Code(e.Reason), e.Message)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: string(e.Reason), Domain: Domain,
		Metadata: map[string]string{executionKey: executions[e.Execution]},
	}}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if with, err := st.WithDetails(details...); err == nil {
		st = with
	}
	return st.Err()
}

// orContext gives errors of a context their reason.
func orContext(err error) *errs.Error {
	if e, ok := errors.AsType[*errs.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errs.Maybe(errs.DeadlinePassed, "the deadline passed: %v", err)
	case errors.Is(err, context.Canceled):
		return errs.Maybe(errs.Cancelled, "the call was cancelled: %v", err)
	}
	return errs.From(err)
}

// FromStatus turns what gRPC received into an *errs.Error. A nil error stays
// nil.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return orContext(err)
	}
	e := errs.Maybe(reasonOf(st.Code()), "%s", st.Message())
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.Domain != Domain {
				continue
			}
			e.Reason = errs.Reason(d.Reason)
			for x, text := range executions {
				if d.Metadata[executionKey] == text {
					e.Execution = x
				}
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay.AsDuration()
		}
	}
	return e
}

// Answer turns an error into the answer of an envelope.
func Answer(err error) *exchangepb.Answer {
	e := orContext(err)
	a := &exchangepb.Answer{
		Code: uint32(Code(e.Reason)), Reason: string(e.Reason), Message: e.Message,
		RetryAfterNs: int64(e.RetryAfter),
	}
	switch e.Execution {
	case errs.NotExecuted:
		a.Execution = exchangepb.Execution_EXECUTION_NOT_EXECUTED
	case errs.Executed:
		a.Execution = exchangepb.Execution_EXECUTION_EXECUTED
	}
	return a
}

// FromAnswer is the error in an answer; nil when it is a success.
func FromAnswer(a *exchangepb.Answer) error {
	if a.GetCode() == uint32(codes.OK) {
		return nil
	}
	e := errs.Maybe(errs.Reason(a.Reason), "%s", a.Message)
	switch a.Execution {
	case exchangepb.Execution_EXECUTION_NOT_EXECUTED:
		e.Execution = errs.NotExecuted
	case exchangepb.Execution_EXECUTION_EXECUTED:
		e.Execution = errs.Executed
	}
	if a.RetryAfterNs > 0 {
		e.RetryAfter = time.Duration(a.RetryAfterNs)
	}
	return e
}
