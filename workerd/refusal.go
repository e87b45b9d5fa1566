package workerd

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

// refusal is why an action, or one item of a batch, was not carried out.
type refusal struct {
	code    sessionpb.ResultCode
	message string
}

func (r *refusal) Error() string { return r.message }

var (
	errShuttingDown = &refusal{sessionpb.ResultCode_RESULT_CODE_SHUTTING_DOWN, "the worker is shutting down"}
	errMissing      = &refusal{sessionpb.ResultCode_RESULT_CODE_PAYLOAD_MISSING, "payload did not arrive"}
	errCancelled    = &refusal{sessionpb.ResultCode_RESULT_CODE_CANCELLED, "cancelled before it started"}
)

func refusef(code sessionpb.ResultCode, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

func unknownModel(id uint64) *refusal {
	return refusef(sessionpb.ResultCode_RESULT_CODE_UNKNOWN_MODEL, "model %d is not in host memory; load it first", id)
}

func weightsInUse(id uint64, by string) *refusal {
	return refusef(sessionpb.ResultCode_RESULT_CODE_WEIGHTS_IN_USE, "the weights of model %d are in use by %s", id, by)
}

// codeOf says with which code an error is answered. What is not a refusal comes from an engine.
func codeOf(err error) sessionpb.ResultCode {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	switch {
	case err == nil:
		return sessionpb.ResultCode_RESULT_CODE_OK
	case errors.Is(err, engine.ErrInvalidInput):
		return sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT
	case errors.Is(err, engine.ErrBadSource):
		return sessionpb.ResultCode_RESULT_CODE_BAD_SOURCE
	case errors.Is(err, context.Canceled):
		return sessionpb.ResultCode_RESULT_CODE_SHUTTING_DOWN
	default:
		return sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED
	}
}

// panicked is the error that a panic of an engine, or of the code that reads what a client sent, is turned into.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// contain calls f, which holds no lock, and makes its panic an error.
func contain(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{value: v, stack: debug.Stack()}
		}
	}()
	return f()
}
