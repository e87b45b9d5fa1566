package controller

import (
	"errors"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// The leader keeps mirrors of what its workers hold. Every few seconds a worker
// reports all that it knows, and the mirrors are compared with that, repaired, and
// the differences counted: there should be none. Results and reports come in the
// order in which the worker made them, and so a mirror that has taken in all
// results that came before a report differs from it only by actions that are
// still under way.

// What a repair was about, as the metric calls it.
const (
	repairModel        = "model"        // in host memory
	repairWeights      = "weights"      // on a device
	repairAction       = "action"       // whose result was missing
	repairRegistration = "registration" // that the worker did not know of
	repairHolding      = "holding"      // that the state believed in, on connect
)

// errNoReport ends a session that is not the worker's current one.
var errNoReport = errors.New("the worker does not report")

// askReport asks for a report when one is due.
func (k *coordinator) askReport(w *connection) {
	if time.Since(w.asked) < k.term.c.tunables.Load().CompareInterval {
		return
	}
	if !w.reported {
		// It beats, and does nothing for this session any more.
		w.session.end(errNoReport)
		return
	}
	w.asked, w.reported = time.Now(), false
	w.session.askReport()
}

// greet compares the state with the report that opened a session.
func (k *coordinator) greet(s *fsm.State, w *connection) {
	for _, h := range k.plan.records[w.name] {
		if h.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED && h.Incarnation == w.incarnation() && w.held[h.ModelId] == nil {
			k.repaired(w, repairHolding, h.ModelId, "the worker does not hold it")
		}
	}
}

// compare takes in a report.
func (k *coordinator) compare(s *session, r *sessionpb.Report) {
	w := k.connections[s.options.worker]
	if w == nil || w.session != s || r.Worker.GetIncarnation() != w.incarnation() {
		return
	}
	w.reported = true
	for range s.missing(r) {
		k.repaired(w, repairAction, 0, "the worker does not know the action")
	}
	if w.registered && !r.Registered {
		k.repaired(w, repairRegistration, 0, "the worker did not know that it is registered")
		s.registered(w.incarnation())
	}
	k.compareModels(w, r)
	w.report = r
	worker := &scheduler.Worker{Name: w.name, Devices: schedulerDevices(r.Worker, r)}
	d := k.term.dispatcher
	d.mailbox.post(func() { d.reported(s, worker) })
}

// compareModels compares host memory. What is being loaded or unloaded is left
// out: the report is of a moment in the middle of it.
func (k *coordinator) compareModels(w *connection, r *sessionpb.Report) {
	there := map[uint64]*sessionpb.HeldModel{}
	for _, m := range r.Models {
		there[m.ModelId] = m
	}
	for id, h := range w.held {
		if h.loaded() && there[id] == nil {
			k.repaired(w, repairModel, id, "the worker does not hold it")
			delete(w.held, id)
		}
	}
	for id, m := range there {
		if w.held[id] == nil && m.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
			k.repaired(w, repairModel, id, "the worker holds it")
			w.held[id] = &held{status: m.Status, info: m.Info, loadNs: m.LoadNs}
		}
	}
}

// repaired counts a difference, and has what follows from it looked at.
func (k *coordinator) repaired(w *connection, what string, model uint64, truth string) {
	k.mailbox.post(func() {})
	w.repairs++
	k.term.c.workerMetrics.repairs.WithLabelValues(what).Inc()
	k.log.Warn("what was believed of a worker was wrong", "worker", w.name, "what", what, "model", model, "truth", truth)
}

// schedulerDevices are a worker's devices and what is on them by a report.
func schedulerDevices(record *logpb.Worker, r *sessionpb.Report) (devices []scheduler.Device) {
	resident := map[uint32][]scheduler.Resident{}
	for _, d := range r.Devices {
		for _, m := range d.Resident {
			// One that is still loading counts too: its pages are taken, an
			// Infer waits for it, and if the load fails the Infer says so.
			resident[d.Index] = append(resident[d.Index], scheduler.Resident{Model: scheduler.ModelID(m.ModelId), Pages: int(m.Pages)})
		}
	}
	for _, d := range devicesOf(record) {
		devices = append(devices, scheduler.Device{
			Kind: d.Kind, Pages: int(d.Pages), PageBytes: int64(d.PageBytes), Resident: slices.Clone(resident[d.Index]),
		})
	}
	return devices
}
