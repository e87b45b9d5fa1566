// Package errs holds the errors that cross the borders between Orrery's parts:
// each has a machine-readable reason, a text for a person, and says what a
// client may conclude about its request.
package errs

import (
	"errors"
	"fmt"
	"time"
)

// Reason says why something was refused or failed. It is itself an error, so
// that callers branch with errors.Is(err, errs.NoLeader).
type Reason string

// The reasons. Their texts are part of the API: clients see them in
// google.rpc.ErrorInfo.reason.
const (
	// Invalid: the sender must change the request.
	Invalid Reason = "INVALID_ARGUMENT"
	// UnknownModel: no model of that name and version is wanted.
	UnknownModel Reason = "UNKNOWN_MODEL"
	// UnknownWorker: no worker of that name is registered.
	UnknownWorker Reason = "UNKNOWN_WORKER"
	// NotLoaded: the model is wanted but no worker has loaded it.
	NotLoaded Reason = "MODEL_NOT_LOADED"
	// NoWorker: all workers that hold the model are away, or take no work.
	NoWorker Reason = "NO_WORKER"
	// NoEngine: no worker has an engine that runs the model.
	NoEngine Reason = "NO_ENGINE"
	// NoMatch: no worker has the labels that the model asks for.
	NoMatch Reason = "NO_MATCHING_WORKER"
	// NoMemory: the model fits into no worker's host memory.
	NoMemory Reason = "NO_MEMORY"
	// LoadFailed: no worker could load the model.
	LoadFailed Reason = "LOAD_FAILED"
	// NotProfiled: the model's times have not been measured yet.
	NotProfiled Reason = "NOT_PROFILED"
	// ModelBlamed: workers died with the model, so it is not served any more.
	ModelBlamed Reason = "MODEL_BLAMED"
	// RequestBlamed: workers died with the request, so it is not tried again.
	RequestBlamed Reason = "REQUEST_BLAMED"
	// WorkerTimeout: workers did not answer in time.
	WorkerTimeout Reason = "WORKER_TIMEOUT"
	// NoRoom: the weights fit on no device.
	NoRoom Reason = "NO_ROOM"
	// Infeasible: the deadline is sooner than the answer can be.
	Infeasible Reason = "DEADLINE_INFEASIBLE"
	// DeadlinePassed: the deadline passed while the request waited or ran.
	DeadlinePassed Reason = "DEADLINE_PASSED"
	// Cancelled: the client gave up.
	Cancelled Reason = "CANCELLED"
	// Overloaded: a bound on memory or on requests in flight was reached, or more is
	// asked of a model than can be answered in time.
	Overloaded Reason = "OVERLOADED"
	// NoLeader: there is no leader to ask.
	NoLeader Reason = "NO_LEADER"
	// NotLeader: the one asked is not the leader (any more).
	NotLeader Reason = "NOT_LEADER"
	// Unreachable: the connection failed, or nobody listens there.
	Unreachable Reason = "UNREACHABLE"
	// Starting: the cluster does not serve yet.
	Starting Reason = "STARTING"
	// StaleModel: the request was checked against a model that the leader has
	// replaced; check again and resend.
	StaleModel Reason = "STALE_MODEL"
	// LateLoad: loads are over, and the settings do not admit late ones.
	LateLoad Reason = "LATE_LOAD"
	// Conflict: it exists already, differently.
	Conflict Reason = "CONFLICT"
	// TooOld: the command is older than the de-duplication table remembers.
	TooOld Reason = "TOO_OLD"
	// ExecutionFailed: the engine failed.
	ExecutionFailed Reason = "EXECUTION_FAILED"
	// UnknownOutcome: it may or may not have been done.
	UnknownOutcome Reason = "UNKNOWN_OUTCOME"
	// ShuttingDown: this process is going away.
	ShuttingDown Reason = "SHUTTING_DOWN"
	// Precondition: the state does not allow it.
	Precondition Reason = "FAILED_PRECONDITION"
	// Internal: a defect.
	Internal Reason = "INTERNAL"
)

// Reasons are all of them, for tests that walk the table.
func Reasons() []Reason {
	return []Reason{Invalid, UnknownModel, UnknownWorker, NotLoaded, NoWorker, NoEngine, NoMatch, NoMemory, LoadFailed,
		NotProfiled, ModelBlamed, RequestBlamed, WorkerTimeout, NoRoom, Infeasible,
		DeadlinePassed, Cancelled, Overloaded, NoLeader, NotLeader, Unreachable, Starting, StaleModel, LateLoad,
		Conflict, TooOld, ExecutionFailed, UnknownOutcome, ShuttingDown, Precondition, Internal}
}

// Error makes a Reason usable with errors.Is.
func (r Reason) Error() string { return string(r) }

// Execution says what a client may conclude about a request that failed.
type Execution int

// The three possibilities.
const (
	MaybeExecuted Execution = iota
	NotExecuted
	Executed
)

// Error is a refusal or failure.
type Error struct {
	Reason    Reason
	Message   string
	Execution Execution
	// RetryAfter, when above 0, is when a retry makes sense.
	RetryAfter time.Duration
}

// Error is the text for a person.
func (e *Error) Error() string { return e.Message }

// Is matches the error's Reason.
func (e *Error) Is(target error) bool { return target == e.Reason }

// New makes an error about something that was not executed.
func New(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Message: fmt.Sprintf(format, args...), Execution: NotExecuted}
}

// Maybe makes an error about something that may have been executed.
func Maybe(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Message: fmt.Sprintf(format, args...), Execution: MaybeExecuted}
}

// After returns a copy of e that suggests a retry after d.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// From finds the *Error in err's chain, or wraps err as Internal.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if r, ok := errors.AsType[Reason](err); ok {
		return Maybe(r, "%v", err)
	}
	return Maybe(Internal, "%v", err)
}
