package fsm

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestARegistrationIsChecked(t *testing.T) {
	for words, spoil := range map[string]func(*logpb.Worker){
		"no name":                     func(w *logpb.Worker) { w.Name = "" },
		"no incarnation":              func(w *logpb.Worker) { w.Incarnation = "" },
		"no session address":          func(w *logpb.Worker) { w.SessionAddress = "" },
		"no devices":                  func(w *logpb.Worker) { w.Devices = nil },
		"of kind 9":                   func(w *logpb.Worker) { w.Kind = 9 },
		"device 0 has no kind":        func(w *logpb.Worker) { w.Devices[0].Kind = "" },
		"pages of 0 bytes":            func(w *logpb.Worker) { w.Devices[0].PageBytes = 0 },
		"device 0 has no pages":       func(w *logpb.Worker) { w.Devices[0].Pages = 0 },
		"two devices have the index":  func(w *logpb.Worker) { w.Devices = append(w.Devices, w.Devices[0]) },
		"speed 0":                     func(w *logpb.Worker) { w.Speed = 0 },
		"speed NaN":                   func(w *logpb.Worker) { w.Speed = math.NaN() },
		"speed +Inf":                  func(w *logpb.Worker) { w.Speed = math.Inf(1) },
		"engine without a name":       func(w *logpb.Worker) { w.Engines[0].Name = "" },
		"no key":                      func(w *logpb.Worker) { w.Labels[0].Key = "" },
		`label "zone" is given twice`: func(w *logpb.Worker) { w.Labels = append(w.Labels, &logpb.Label{Key: "zone", Value: "b"}) },
	} {
		t.Run(words, func(t *testing.T) {
			r := register("w1", "i1")
			spoil(r.Worker)
			newCluster(t).refused(r, logpb.Reason_REASON_INVALID, words)
		})
	}
	newCluster(t).refused(&logpb.RegisterWorker{}, logpb.Reason_REASON_INVALID, "no name")
}

func TestRegistration(t *testing.T) {
	l := newCluster(t)
	r := register("w1", "i1")
	r.Worker.Labels = []*logpb.Label{{Key: "zone", Value: "a"}, {Key: "gpu", Value: "no"}}
	r.Worker.Status = logpb.WorkerStatus_WORKER_STATUS_LOST // not the worker's to say
	l.ok(r)
	w := l.state.Worker("w1")
	equal(t, "labels", w.GetLabels(), []*logpb.Label{{Key: "gpu", Value: "no"}, {Key: "zone", Value: "a"}})
	equal(t, "status", w.GetStatus(), logpb.WorkerStatus_WORKER_STATUS_READY)
	equal(t, "registered", w.GetRegisteredUnixNs(), l.now)

	l.ok(&logpb.RegisterWorker{Worker: &logpb.Worker{
		Name: "http", Incarnation: "i", Kind: logpb.WorkerKind_WORKER_KIND_HTTP, SessionAddress: "http://10.0.0.1:21002", Speed: 2,
	}})
	equal(t, "workers", names(l.state.Workers()), "http w1")
}

func TestRegisteringAgain(t *testing.T) {
	l := serving(t)
	since := l.state.Worker("w1").GetRegisteredUnixNs()
	r := register("w1", "i1")
	r.Worker.SessionAddress = "elsewhere:1"
	l.ok(r)
	w := l.state.Worker("w1")
	equal(t, "address", w.GetSessionAddress(), "elsewhere:1")
	equal(t, "registered", w.GetRegisteredUnixNs(), since)
	equal(t, "holdings of the same incarnation", len(l.state.HoldingsOf("w1")), 1)

	l.ok(register("w1", "i2"))
	equal(t, "registered", l.state.Worker("w1").GetRegisteredUnixNs(), l.now)
	equal(t, "holdings of a new one", len(l.state.HoldingsOf("w1")), 0)
	equal(t, "holdings of the other", len(l.state.HoldingsOf("w2")), 1)
}

func TestStatusAfterRegistration(t *testing.T) {
	const (
		ready, cordoned = logpb.WorkerStatus_WORKER_STATUS_READY, logpb.WorkerStatus_WORKER_STATUS_CORDONED
		draining, lost  = logpb.WorkerStatus_WORKER_STATUS_DRAINING, logpb.WorkerStatus_WORKER_STATUS_LOST
		evicted         = logpb.WorkerStatus_WORKER_STATUS_EVICTED
	)
	for _, c := range []struct{ before, same, restarted logpb.WorkerStatus }{
		{ready, ready, ready}, {cordoned, cordoned, cordoned}, {draining, draining, ready}, {lost, ready, ready}, {evicted, evicted, evicted},
	} {
		for incarnation, want := range map[string]logpb.WorkerStatus{"i1": c.same, "i2": c.restarted} {
			l := raised(t)
			l.ok(register("w1", "i1"))
			l.ok(&logpb.SetWorkerStatus{Name: "w1", Status: c.before})
			l.ok(register("w1", incarnation))
			equal(t, c.before.String()+" then "+incarnation, l.state.Worker("w1").GetStatus(), want)
		}
	}
}

func TestStatusAndRemovalNeedTheRightIncarnation(t *testing.T) {
	l := serving(t)
	cordoned := logpb.WorkerStatus_WORKER_STATUS_CORDONED
	l.refused(&logpb.SetWorkerStatus{Name: "w9", Status: cordoned}, logpb.Reason_REASON_UNKNOWN_WORKER, `"w9"`)
	l.refused(&logpb.SetWorkerStatus{Name: "w1", Incarnation: "i0", Status: cordoned}, logpb.Reason_REASON_UNKNOWN_WORKER, `"i1", not "i0"`)
	l.refused(&logpb.SetWorkerStatus{Name: "w1", Status: 9}, logpb.Reason_REASON_INVALID, "status 9")
	l.ok(&logpb.SetWorkerStatus{Name: "w1", Incarnation: "i1", Status: cordoned})
	equal(t, "status", l.state.Worker("w1").GetStatus(), cordoned)
	equal(t, "holdings", len(l.state.HoldingsOf("w1")), 1)

	l.refused(&logpb.RemoveWorker{Name: "w9"}, logpb.Reason_REASON_UNKNOWN_WORKER, `"w9"`)
	l.refused(&logpb.RemoveWorker{Name: "w1", Incarnation: "i0"}, logpb.Reason_REASON_UNKNOWN_WORKER, `"i1", not "i0"`)
	l.ok(&logpb.RemoveWorker{Name: "w1"})
	l.ok(&logpb.RemoveWorker{Name: "w2", Incarnation: "i1"})
	equal(t, "workers", len(l.state.Workers()), 0)
	equal(t, "holdings", len(l.state.Holdings(1)), 0)
	equal(t, "models", len(l.state.Models()), 1)
}

func TestADrainHasItsDeadline(t *testing.T) {
	l := raised(t)
	l.ok(register("w1", "i1"))
	drain := &logpb.SetWorkerStatus{Name: "w1", Status: logpb.WorkerStatus_WORKER_STATUS_DRAINING, DrainUntilUnixNs: start + 7}
	l.ok(drain)
	until := func() int64 { return l.state.Worker("w1").GetDrainUntilUnixNs() }
	equal(t, "until", until(), start+7)
	l.ok(register("w1", "i1"))
	equal(t, "after the same incarnation registers again", until(), start+7)
	l.ok(&logpb.SetWorkerStatus{Name: "w1", Status: logpb.WorkerStatus_WORKER_STATUS_CORDONED, DrainUntilUnixNs: start + 7})
	equal(t, "cordoned", until(), int64(0))
	l.ok(drain)
	lying := register("w1", "i2")
	lying.Worker.DrainUntilUnixNs = 5 // not the worker's to say
	l.ok(lying)
	equal(t, "restarted", until(), int64(0))
}

// The leader marks a worker as lost on what it knew a moment ago.
func TestWhatAnOperatorDecidedIsNotLost(t *testing.T) {
	for _, status := range []logpb.WorkerStatus{
		logpb.WorkerStatus_WORKER_STATUS_CORDONED, logpb.WorkerStatus_WORKER_STATUS_DRAINING, logpb.WorkerStatus_WORKER_STATUS_EVICTED,
	} {
		l := raised(t)
		l.ok(register("w1", "i1"))
		l.ok(&logpb.SetWorkerStatus{Name: "w1", Status: status})
		l.ok(&logpb.SetWorkerStatus{Name: "w1", Status: logpb.WorkerStatus_WORKER_STATUS_LOST})
		equal(t, "status", l.state.Worker("w1").GetStatus(), status)
	}
}

// What a release of before makes of it is what this one makes of it, as long as there may be one in the cluster.
func TestFieldsOfTheThirdVersionNeedIt(t *testing.T) {
	until := &logpb.SetWorkerStatus{Name: "w1", Status: logpb.WorkerStatus_WORKER_STATUS_DRAINING, DrainUntilUnixNs: 7}
	evict := &logpb.SetWorkerStatus{Name: "w1", Status: logpb.WorkerStatus_WORKER_STATUS_EVICTED}
	fault := &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{failed(1, "w1", "i1")}}
	fault.Updates[0].Holding.Fault = logpb.HoldingFault_HOLDING_FAULT_NO_MEMORY
	l := serving(t)
	for _, body := range []proto.Message{until, evict, fault} {
		l.refused(body, logpb.Reason_REASON_VERSION, "needs cluster version 3")
	}
	understated := func(body proto.Message) *logpb.Result {
		cmd := l.command(body)
		cmd.Version = 1
		return l.apply(cmd)
	}
	equal(t, "evicted", understated(evict).GetMessage(), "no worker has the status 4")
	equal(t, "draining", understated(until).GetReason(), logpb.Reason_REASON_NONE)
	equal(t, "until", l.state.Worker("w1").GetDrainUntilUnixNs(), int64(0))
	l.ok(&logpb.RaiseVersion{To: 3})
	for _, body := range []proto.Message{until, evict, fault} {
		l.ok(body)
	}
	equal(t, "status", l.state.Worker("w1").GetStatus(), logpb.WorkerStatus_WORKER_STATUS_EVICTED)
	equal(t, "fault", l.state.Holding(1, "w1").GetFault(), logpb.HoldingFault_HOLDING_FAULT_NO_MEMORY)
}
