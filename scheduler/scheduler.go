// Package scheduler decides what to do next: events in, actions out.
//
// Policies are pure. They have no clock, no goroutine and no I/O: the caller
// says what happened and what time it is, and carries out what they decide.
// So the same code runs in the product, in the simulator and in tests.
package scheduler

import "time"

// Instant is a point in time: nanoseconds since an epoch that the caller
// chose and keeps. 0 means "none" where an instant is optional.
type Instant int64

// Add returns t + d.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns t − u.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// ModelID is the replicated, never reused id of a model.
type ModelID uint64

// RequestID is the caller's handle of a request, unique within its lifetime.
type RequestID uint64

// ActionID numbers the actions of one policy, from 1.
type ActionID uint64

// Model is what a policy has to know of a model.
type Model struct {
	ID ModelID
	// MaxRows is the most rows in a batch, at least 1.
	MaxRows int
	// Batched says that requests of one shape class may run together.
	Batched      bool
	WeightsBytes int64
	// Pinned is on how many devices its weights are to be and to stay, also while
	// nothing waits for it.
	Pinned int
}

// Resident is a model whose weights are on a device.
type Resident struct {
	Model ModelID
	Pages int
}

// Device is a GPU, or the CPU.
type Device struct {
	// Kind: devices of one kind share profiles.
	Kind      string
	Pages     int
	PageBytes int64
	// Resident is what the worker says is on the device right now.
	Resident []Resident
}

// Worker is a worker that can be given work.
type Worker struct {
	Name    string
	Devices []Device
	// Holds are the models in its host memory.
	Holds []ModelID
	Speed float64
}

// RowsTime is the expected execution time of a batch of so many rows.
type RowsTime struct {
	Rows int
	Time time.Duration
}

// Profile is the expected timing of a model on a kind of device.
type Profile struct {
	Model       ModelID
	DeviceKind  string
	WeightsLoad time.Duration
	// Execution is ascending by rows. Between two entries it is interpolated; a
	// batch past the last takes as long as so many of the last.
	Execution []RowsTime
}

// Request is one inference request.
type Request struct {
	ID    RequestID
	Model ModelID
	Rows  int
	// Class: only requests of equal shape classes merge into a batch.
	Class   string
	Arrived Instant
	// Deadline is when the answer must have left the controller. 0: best effort.
	Deadline Instant
	// Priority: 1 is the highest, larger is lower, 0 is the default level.
	Priority uint64
	Tenant   string
}

// State is what a policy starts from.
type State struct {
	Workers  []Worker
	Models   []Model
	Profiles []Profile
}

// Event is something that happened.
type Event interface{ event() }

type (
	// Start is the first event of every policy.
	Start struct{ State *State }
	// Submit hands over a request. From now on the policy answers for it: it
	// will be the subject of exactly one Completion. It keeps the pointer.
	Submit struct{ Request *Request }
	// Cancel says that nobody waits for the request any more.
	Cancel struct{ Request RequestID }
	// Finished brings the result of an action.
	Finished struct{ Result *Result }
	// WorkerUp adds a worker, with what it really holds; a worker of that
	// name that was up before is replaced, its actions are lost.
	WorkerUp struct{ Worker *Worker }
	// WorkerDown takes a worker out: its actions are lost.
	WorkerDown struct {
		Name string
		// Died: its process died, as far as can be told; the connection was
		// closed by the other side. Else it went silent, was cut off or left.
		Died bool
	}
	// Reported brings what a worker says is on its devices (Devices[i].Resident)
	// at a point at which it had taken in all actions whose results have been
	// given to the policy so far. Actions without a result may or may not be
	// reflected. Worker.Holds is ignored.
	Reported struct{ Worker *Worker }
	// Held says that a worker's host memory now holds just these models.
	Held struct {
		Worker string
		Models []ModelID
	}
	// ModelAdded makes a model known, or changes what was known of it; Held and
	// ProfileChanged make it usable.
	ModelAdded struct{ Model *Model }
	// ModelRemoved ends a model; its waiting requests are completed.
	ModelRemoved struct{ Model ModelID }
	// ModelReplaced moves the waiting requests of one model to another.
	ModelReplaced struct{ Old, New ModelID }
	// ModelBlamed says that the cluster has agreed that the model is not to be
	// served, because workers died with it; or that it is to be served again.
	ModelBlamed struct {
		Model  ModelID
		Blamed bool
	}
	// ProfileChanged brings new timings.
	ProfileChanged struct{ Profile *Profile }
	// Prefetch asks for a model's weights on so many devices although nothing
	// waits for it, where that displaces nothing that is waited for.
	Prefetch struct {
		Model   ModelID
		Devices int
	}
	// PolicyChanged has the policy of that name decide from now on, over the same
	// books: what waits is handed over, what runs stays. An unknown name changes
	// nothing; New says which there are.
	PolicyChanged struct{ Policy string }
	// Lend gives the caller so many pages of a device for a purpose of its own, once
	// they are free or can be had by evicting what nothing waits for; then the policy
	// leaves them alone. It replaces what was asked for before; 0 gives all back.
	Lend struct {
		Worker        string
		Device, Pages int
	}
)

func (Start) event()          {}
func (Submit) event()         {}
func (Cancel) event()         {}
func (Finished) event()       {}
func (WorkerUp) event()       {}
func (WorkerDown) event()     {}
func (Reported) event()       {}
func (Held) event()           {}
func (ModelAdded) event()     {}
func (ModelRemoved) event()   {}
func (ModelReplaced) event()  {}
func (ModelBlamed) event()    {}
func (ProfileChanged) event() {}
func (Prefetch) event()       {}
func (PolicyChanged) event()  {}
func (Lend) event()           {}

// Outcome is how an action ended.
type Outcome int

const (
	// OK: it was done.
	OK Outcome = iota
	// Refused: the worker did not start it (too late, weights not there, …).
	// Nothing was executed.
	Refused
	// Failed: it was started and went wrong.
	Failed
	// Skipped: as Refused, but for a reason that says nothing about the device
	// or the weights: its requests were at fault, or nobody wanted it any more.
	Skipped
)

// Result is the end of an action.
type Result struct {
	Action  ActionID
	Outcome Outcome
	// Engine is the measured time: execution, or the transfer of weights.
	Engine time.Duration
	// Rejected are the requests of the batch that failed alone; the others
	// share Outcome.
	Rejected []RequestID
	// Returned are the requests of the batch that were not executed and may be
	// tried again.
	Returned []RequestID
	// Absent says, with Refused or Failed, that the model's weights are not
	// on the device.
	Absent bool
}

// Kind is what an action does.
type Kind int

// The kinds of actions.
const (
	LoadWeights Kind = iota + 1
	EvictWeights
	Infer
)

// String is the action's name.
func (k Kind) String() string {
	switch k {
	case LoadWeights:
		return "LoadWeights"
	case EvictWeights:
		return "EvictWeights"
	case Infer:
		return "Infer"
	default:
		return "unknown"
	}
}

// Action is something that a worker is to do. Actions on one device reach the
// worker in the order in which they were decided.
type Action struct {
	ID     ActionID
	Kind   Kind
	Worker string
	Device int
	Model  ModelID
	// Earliest and Latest bound the start. Latest 0: no bound.
	Earliest, Latest Instant
	// Expected is how long it should take.
	Expected time.Duration
	// Requests and Rows are the batch of an Infer.
	Requests []RequestID
	Rows     int
}

// Reason is why a request is complete.
type Reason int

const (
	// Done: it was executed; the answer is on its way.
	Done Reason = iota
	// Rejected: the worker found fault with this request, or it has more rows
	// than the model's batches.
	Rejected
	// ExecutionFailed: the engine failed.
	ExecutionFailed
	// TooLate: it can't be answered in time any more and was never started.
	TooLate
	// DeadlinePassed: its deadline passed while it was at a worker, or it was
	// lost with a worker, or taken back from one, too late to be run again.
	DeadlinePassed
	// Infeasible: at its arrival it could not be answered in time.
	Infeasible
	// NoWorker: no worker that is up holds the model.
	NoWorker
	// NoRoom: the weights fit on no device of the workers that hold the model.
	NoRoom
	// UnknownModel: the model does not exist, or was removed.
	UnknownModel
	// Cancelled: the client gave up.
	Cancelled
	// Poisonous: workers died with the request twice.
	Poisonous
	// Unanswered: two devices did not answer with it in time.
	Unanswered
	// ModelStopped: its model is blamed for the death of workers.
	ModelStopped
	// GivenUp: there is more than can be answered in time, and others go first or
	// let batches be fuller.
	GivenUp
)

// String is the reason's name.
func (r Reason) String() string {
	names := [...]string{"Done", "Rejected", "ExecutionFailed", "TooLate", "DeadlinePassed",
		"Infeasible", "NoWorker", "NoRoom", "UnknownModel", "Cancelled",
		"Poisonous", "Unanswered", "ModelStopped", "GivenUp"}
	if r < 0 || int(r) >= len(names) {
		return "unknown"
	}
	return names[r]
}

// Completion ends a request.
type Completion struct {
	Request RequestID
	Reason  Reason
	// Action is the one that executed it, when Reason is Done, Rejected or
	// ExecutionFailed.
	Action ActionID
	// Started says that it may have been executed, wholly or in part: a
	// worker had it and did not refuse it.
	Started bool
	// Possible is, for Infeasible, TooLate and GivenUp, the earliest instant at
	// which it could have been answered.
	Possible Instant
	// RetryAfter is when a retry makes sense. 0: unknown.
	RetryAfter time.Duration
}

// Repair is a difference between what the policy believed of a device and what
// its worker reported; the policy now believes the worker.
type Repair struct {
	Worker string
	Device int
	Model  ModelID
	// Present says that, according to the worker, the weights are there.
	Present bool
}

// Blame is the verdict on a model that kills workers.
type Blame struct {
	Model ModelID
	// Workers died with it; sorted names.
	Workers []string
}

// Decisions is the output of a step. The caller may reuse it after Reset.
type Decisions struct {
	Actions     []Action
	Completions []Completion
	Repairs     []Repair
	// Abandoned are Infers of which nothing is expected any more, although the
	// worker may still run them: the caller should cancel their requests there.
	// The requests may be in new actions already.
	Abandoned []ActionID
	// Blamed are models that must not be served any more, here or by a
	// successor; each is named once, until it is pardoned by ModelBlamed.
	Blamed []Blame
	// Wake is when the policy wants to be stepped at the latest, also without
	// an event. 0: not needed.
	Wake Instant
}

// Reset empties d and keeps its memory.
func (d *Decisions) Reset() {
	d.Actions, d.Completions, d.Wake = d.Actions[:0], d.Completions[:0], 0
	d.Repairs, d.Abandoned, d.Blamed = d.Repairs[:0], d.Abandoned[:0], d.Blamed[:0]
}

// Policy is a way of scheduling. It is used by one goroutine.
type Policy interface {
	// Step takes in what happened, in order, at instant now (which never goes
	// back), and appends what to do to out. A step without events says that
	// time has passed.
	Step(now Instant, events []Event, out *Decisions)
}
