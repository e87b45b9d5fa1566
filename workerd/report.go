package workerd

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// Stats is what a worker counts, for metrics.
type Stats struct {
	Registered bool
	// Refused is why the leader doesn't want this worker; empty: it does, or nobody has said.
	Refused string
	// Sessions are open ones, those of succeeded leaders included.
	Sessions      int
	Models        int
	HostUsedBytes int64
	Devices       []DeviceStats
	// Results counts answered actions by code; RESULT_CODE_STALE are those of succeeded leaders.
	Results map[sessionpb.ResultCode]uint64
	// Direct counts answered requests that came without a leader, by code; RESULT_CODE_STALE are those that were refused
	// because a leader's session is live.
	Direct map[sessionpb.ResultCode]uint64
}

// DeviceStats is the state of one device.
type DeviceStats struct {
	Kind string
	// Queued inference actions wait or run.
	Queued    int
	FreePages int
	Pages     int
	Resident  int
}

// Stats returns the present figures.
func (w *Worker) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Stats{
		Registered:    w.registered,
		Refused:       w.refused,
		Sessions:      len(w.sessions),
		Models:        len(w.host.models),
		HostUsedBytes: w.host.used,
		Results:       maps.Clone(w.results),
		Direct:        maps.Clone(w.direct.results),
	}
	for _, d := range w.devices {
		s.Devices = append(s.Devices, DeviceStats{
			Kind:      d.kind,
			Queued:    d.inference.busy(),
			FreePages: d.cache.free,
			Pages:     d.cache.total,
			Resident:  len(d.weights),
		})
	}
	return s
}

// Info returns the worker as it reports itself.
func (w *Worker) Info() *logpb.Worker {
	return proto.CloneOf(w.info)
}

// freePages counts those of all devices. The caller holds the lock.
func (w *Worker) freePages() (n uint32) {
	for _, d := range w.devices {
		n += uint32(d.cache.free)
	}
	return n
}

// busy is how many actions wait or run. The lock is held.
func (w *Worker) busy() uint32 {
	n := 0
	for e := range w.executors() {
		n += e.busy()
	}
	return uint32(n)
}

// report is all that the worker knows about itself at this moment, as its current session is told. The lock is held.
func (w *Worker) report() *sessionpb.Report {
	r := &sessionpb.Report{
		Worker:        w.info,
		WorkerNs:      w.clock(),
		HostUsedBytes: uint64(w.host.used),
		Registered:    w.registered,
	}
	if s := w.current; s != nil {
		r.LastAction, r.Outstanding = s.lastAction, w.outstanding(s)
	}
	for _, id := range slices.Sorted(maps.Keys(w.host.models)) {
		switch m := w.host.models[id]; {
		case m.leaving:
		case m.handle == nil:
			r.Models = append(r.Models, &sessionpb.HeldModel{ModelId: id, Status: logpb.HoldingStatus_HOLDING_STATUS_PENDING})
		default:
			r.Models = append(r.Models, &sessionpb.HeldModel{
				ModelId: id, Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED, Info: m.record, LoadNs: m.loadNs,
			})
		}
	}
	for _, d := range w.devices {
		r.Devices = append(r.Devices, d.report())
	}
	return r
}

// report lists the weights that are here or on the way; those that an eviction or a profile is about to take away are
// not among them, although their pages are taken. The lock is held.
func (d *device) report() *sessionpb.DeviceState {
	s := &sessionpb.DeviceState{
		Index:     uint32(d.index),
		FreePages: uint32(d.cache.free),
		Queued:    uint32(d.inference.busy()),
	}
	for _, id := range d.cache.models() {
		slot := d.cache.held[id]
		if slot.state == resident || slot.state == loading {
			s.Resident = append(s.Resident, &sessionpb.ResidentModel{
				ModelId: id, Pages: uint32(slot.pages), Loading: slot.state == loading,
			})
		}
	}
	return s
}
