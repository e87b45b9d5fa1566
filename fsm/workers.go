package fsm

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

func (s *State) registerWorker(asked *logpb.Worker) *logpb.Result {
	w := proto.CloneOf(asked)
	if err := normaliseWorker(w); err != nil {
		return refuseInvalid(err)
	}
	w.Status = logpb.WorkerStatus_WORKER_STATUS_READY
	w.RegisteredUnixNs = s.now
	w.DrainUntilUnixNs, w.Checks = 0, nil
	if old := s.Worker(w.GetName()); old != nil {
		if old.GetIncarnation() == w.GetIncarnation() {
			w.RegisteredUnixNs, w.Checks = old.GetRegisteredUnixNs(), old.GetChecks()
		} else {
			s.dropHoldingsOf(w.GetName())
		}
		w.Status = statusAfterRegistration(old, w.GetIncarnation())
		if w.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_DRAINING {
			w.DrainUntilUnixNs = old.GetDrainUntilUnixNs()
		}
	}
	s.storeWorker(w)
	return &logpb.Result{}
}

// statusAfterRegistration: a cordon or an eviction is an operator's and outlives restarts; a drain ends with the process
// that drained.
func statusAfterRegistration(old *logpb.Worker, incarnation string) logpb.WorkerStatus {
	switch old.GetStatus() {
	case logpb.WorkerStatus_WORKER_STATUS_CORDONED, logpb.WorkerStatus_WORKER_STATUS_EVICTED:
		return old.GetStatus()
	case logpb.WorkerStatus_WORKER_STATUS_DRAINING:
		if old.GetIncarnation() == incarnation {
			return logpb.WorkerStatus_WORKER_STATUS_DRAINING
		}
	}
	return logpb.WorkerStatus_WORKER_STATUS_READY
}

func (s *State) setWorkerStatus(c *logpb.SetWorkerStatus) *logpb.Result {
	_, known := logpb.WorkerStatus_name[int32(c.GetStatus())]
	if !known || c.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_EVICTED && s.version() < 3 {
		return refuse(logpb.Reason_REASON_INVALID, "no worker has the status %d", c.GetStatus())
	}
	old, refusal := s.registered(c.GetName(), c.GetIncarnation())
	if refusal != nil {
		return refusal
	}
	if c.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_LOST && s.version() >= 3 && old.GetStatus() != logpb.WorkerStatus_WORKER_STATUS_READY {
		return &logpb.Result{} // what an operator has decided meanwhile is worth more
	}
	w := proto.CloneOf(old)
	w.Status, w.DrainUntilUnixNs = c.GetStatus(), 0
	if c.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_DRAINING && s.version() >= 3 {
		w.DrainUntilUnixNs = c.GetDrainUntilUnixNs()
	}
	s.storeWorker(w)
	return &logpb.Result{}
}

func (s *State) removeWorker(c *logpb.RemoveWorker) *logpb.Result {
	w, refusal := s.registered(c.GetName(), c.GetIncarnation())
	if refusal != nil {
		return refusal
	}
	s.dropWorker(w.GetName())
	return &logpb.Result{}
}

// registered finds an incarnation of a worker, or with an empty incarnation whichever is registered.
func (s *State) registered(name, incarnation string) (*logpb.Worker, *logpb.Result) {
	w := s.Worker(name)
	if w == nil {
		return nil, refuse(logpb.Reason_REASON_UNKNOWN_WORKER, "no worker %q is registered; `orrery worker list` shows the workers", name)
	}
	if incarnation != "" && incarnation != w.GetIncarnation() {
		return nil, refuse(logpb.Reason_REASON_UNKNOWN_WORKER, "worker %q is registered with incarnation %q, not %q: it has been restarted",
			name, w.GetIncarnation(), incarnation)
	}
	return w, nil
}

// normaliseWorker checks a worker that wants to be registered and sorts its labels.
func normaliseWorker(w *logpb.Worker) error {
	switch {
	case w.GetName() == "":
		return fmt.Errorf("the worker has no name: give it one that it keeps")
	case w.GetIncarnation() == "":
		return fmt.Errorf("worker %q has no incarnation: it must draw a new one at each start", w.GetName())
	case w.GetSessionAddress() == "":
		return fmt.Errorf("worker %q has no session address: a controller could not reach it", w.GetName())
	case !(w.GetSpeed() > 0) || math.IsInf(w.GetSpeed(), 1): // so that not-a-number fails as well
		return fmt.Errorf("worker %q has speed %v: it must be above 0 and finite", w.GetName(), w.GetSpeed())
	}
	switch w.GetKind() {
	case logpb.WorkerKind_WORKER_KIND_SESSION:
		if len(w.GetDevices()) == 0 {
			return fmt.Errorf("worker %q has no devices: it needs at least one", w.GetName())
		}
	case logpb.WorkerKind_WORKER_KIND_HTTP: // tells nothing about its devices
	default:
		return fmt.Errorf("worker %q is of kind %d, which is neither session nor http", w.GetName(), w.GetKind())
	}
	if err := checkDevices(w.GetDevices()); err != nil {
		return fmt.Errorf("worker %q: %w", w.GetName(), err)
	}
	for _, e := range w.GetEngines() {
		if e.GetName() == "" {
			return fmt.Errorf("worker %q has an engine without a name", w.GetName())
		}
	}
	if err := sortLabels(w.GetLabels()); err != nil {
		return fmt.Errorf("worker %q: %w", w.GetName(), err)
	}
	return nil
}

func checkDevices(devices []*logpb.Device) error {
	seen := make(map[uint32]bool, len(devices))
	for _, d := range devices {
		switch {
		case seen[d.GetIndex()]:
			return fmt.Errorf("two devices have the index %d", d.GetIndex())
		case d.GetKind() == "":
			return fmt.Errorf("device %d has no kind", d.GetIndex())
		case d.GetPageBytes() == 0:
			return fmt.Errorf("device %d has pages of 0 bytes", d.GetIndex())
		case d.GetPages() == 0:
			return fmt.Errorf("device %d has no pages: give it some memory for weights", d.GetIndex())
		}
		seen[d.GetIndex()] = true
	}
	return nil
}

// sortLabels sorts by key, in place, and fails if a key is empty or there twice.
func sortLabels(labels []*logpb.Label) error {
	slices.SortStableFunc(labels, func(a, b *logpb.Label) int { return cmp.Compare(a.GetKey(), b.GetKey()) })
	for i, l := range labels {
		if l.GetKey() == "" {
			return fmt.Errorf("a label has the value %q and no key", l.GetValue())
		}
		if i > 0 && l.GetKey() == labels[i-1].GetKey() {
			return fmt.Errorf("the label %q is given twice, as %q and %q", l.GetKey(), labels[i-1].GetValue(), l.GetValue())
		}
	}
	return nil
}

// HasLabels says whether a worker has all of the wanted labels. Both are sorted by key.
func HasLabels(w *logpb.Worker, wanted []*logpb.Label) bool {
	for _, l := range wanted {
		i, found := slices.BinarySearchFunc(w.GetLabels(), l.GetKey(), func(have *logpb.Label, key string) int {
			return strings.Compare(have.GetKey(), key)
		})
		if !found || w.GetLabels()[i].GetValue() != l.GetValue() {
			return false
		}
	}
	return true
}

// HasEngine says whether some device of the worker may use the engine; any engine will do if none is named. A device
// that names no engines may use them all.
func HasEngine(w *logpb.Worker, engine string) bool {
	for _, e := range w.GetEngines() {
		if engine != "" && e.GetName() != engine {
			continue
		}
		if slices.ContainsFunc(w.GetDevices(), func(d *logpb.Device) bool {
			return len(d.GetEngines()) == 0 || slices.Contains(d.GetEngines(), e.GetName())
		}) {
			return true
		}
	}
	return false
}
