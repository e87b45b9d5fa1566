package controller

import (
	"maps"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// How a model is measured on a device.
const (
	profileWarmups      = 2
	profileRuns         = 30
	profileBudget       = 300 * time.Millisecond
	profileWeightsLoads = 3
	// profileAttempts are made before a model is given up on a kind of device.
	profileAttempts = 3
)

// profileKey is a logpb.ProfileKey that can key a map.
type profileKey struct{ digest, engine, version, kind string }

// profiler has every model measured once on every kind of device that holds
// it. Profiles are in the log: nothing is measured again by the next leader.
type profiler struct {
	k *coordinator
	// enabled from the phase profiling on.
	enabled bool
	// failed counts attempts; a key with profileAttempts is given up.
	failed map[profileKey]int
	// notBefore is when a measurement that was put off may be tried again.
	notBefore map[profileKey]time.Time
	// inHand is being measured, or measured and being committed.
	inHand map[profileKey]bool
	// measured waits to be committed.
	measured   []*logpb.Profile
	committing bool
	// wanted and done are what the startup waits for.
	wanted, done int
}

func newProfiler(k *coordinator) profiler {
	return profiler{k: k, failed: map[profileKey]int{}, notBefore: map[profileKey]time.Time{}, inHand: map[profileKey]bool{}}
}

// crowdedRetry is the pause after a device had no room or time for a measurement.
const crowdedRetry = time.Second

// crowded says whether a measurement failed for what else there is on the device:
// that says nothing of the model.
func crowded(c sessionpb.ResultCode) bool {
	switch c {
	case sessionpb.ResultCode_RESULT_CODE_CACHE_EXHAUSTED, sessionpb.ResultCode_RESULT_CODE_TOO_EARLY, sessionpb.ResultCode_RESULT_CODE_WEIGHTS_IN_USE:
		return true
	}
	return false
}

// place is where a model can be measured.
type place struct {
	worker *connection // nil: not connected
	device uint32
}

// step starts what measurements can be started and commits what was measured.
func (p *profiler) step(s *fsm.State) {
	p.wanted, p.done = 0, 0
	seen := map[profileKey]bool{}
	for _, m := range s.Models() {
		if m.Info == nil || m.Blame != "" {
			continue
		}
		for kind, places := range p.places(s, m) {
			key := profileKey{m.Info.Digest, m.Info.Engine, m.Info.EngineVersion, kind}
			if !seen[key] {
				seen[key] = true
				p.wanted++
				if s.Profile(key.proto()) != nil || p.failed[key] >= profileAttempts {
					p.done++
				}
			}
			if p.enabled && !p.inHand[key] && s.Profile(key.proto()) == nil && p.failed[key] < profileAttempts {
				p.start(m, key, places)
			}
		}
	}
	p.commit()
}

func (k profileKey) proto() *logpb.ProfileKey {
	return &logpb.ProfileKey{Digest: k.digest, Engine: k.engine, EngineVersion: k.version, DeviceKind: k.kind}
}

// places are the devices that hold the model, by their kind.
func (p *profiler) places(s *fsm.State, m *logpb.Model) map[string][]place {
	places := map[string][]place{}
	for _, h := range s.Holdings(m.Id) {
		w := s.Worker(h.Worker)
		if h.Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED || w.GetStatus() != logpb.WorkerStatus_WORKER_STATUS_READY {
			continue
		}
		for _, d := range w.Devices {
			if slices.Contains(d.Engines, m.Info.Engine) && runs(w, m.Info) {
				at := place{device: d.Index}
				if c := p.k.connections[h.Worker]; c != nil && c.inService(s) {
					at.worker = c
				}
				places[d.Kind] = append(places[d.Kind], at)
			}
		}
	}
	return places
}

// runs says whether the worker's engine is of the model's version: profiles of
// different versions are different.
func runs(w *logpb.Worker, info *logpb.ModelInfo) bool {
	return slices.ContainsFunc(w.Engines, func(e *logpb.Engine) bool { return e.Name == info.Engine && e.Version == info.EngineVersion })
}

// start measures a model on the first free device of a kind. A device measures
// one model at a time.
func (p *profiler) start(m *logpb.Model, key profileKey, places []place) {
	if time.Now().Before(p.notBefore[key]) {
		return
	}
	t := trial{m.Id, true}
	survivors := slices.ContainsFunc(places, func(at place) bool { return at.worker != nil && !p.k.suspects.killed(t, at.worker.name) })
	i := slices.IndexFunc(places, func(at place) bool {
		if at.worker == nil || survivors && p.k.suspects.killed(t, at.worker.name) {
			return false
		}
		return at.worker.profiling[at.device] == 0 && p.k.mayTry(at.worker, t)
	})
	if i < 0 {
		return
	}
	w, device, s := places[i].worker, places[i].device, places[i].worker.session
	p.inHand[key] = true
	w.profiling[device] = m.Id
	p.k.log.Info("profiling", "model", m.Name, "device_kind", key.kind, "worker", w.name)
	action := &sessionpb.Action{Device: device, ModelId: m.Id, Body: &sessionpb.Action_Profile{Profile: &sessionpb.Profile{
		Warmups: profileWarmups, Runs: profileRuns, BudgetNs: int64(profileBudget), WeightsLoads: profileWeightsLoads,
	}}}
	s.do(action, func(r *sessionpb.Result) {
		p.k.mailbox.post(func() {
			if w.session == s {
				delete(w.profiling, device)
				p.k.tried(w, t, r != nil && !passingLoad(r.Code))
			}
			p.finish(m, key, r)
		})
	})
}

// finish takes in a measurement. A nil result means that the worker went away:
// another one is asked.
func (p *profiler) finish(m *logpb.Model, key profileKey, r *sessionpb.Result) {
	if r.GetCode() == sessionpb.ResultCode_RESULT_CODE_OK && r.GetProfile() != nil {
		r.Profile.Key = key.proto()
		p.measured = append(p.measured, r.Profile)
		return
	}
	delete(p.inHand, key)
	p.notBefore[key] = time.Now().Add(actionRetry)
	if r == nil || passingLoad(r.Code) {
		return
	}
	if crowded(r.Code) {
		p.notBefore[key] = time.Now().Add(crowdedRetry)
		return
	}
	p.failed[key]++
	p.k.log.Warn("profiling failed", "model", m.Name, "device_kind", key.kind, "code", r.Code, "message", r.Message,
		"attempt", p.failed[key], "of", profileAttempts)
}

// commit puts all that has been measured into one log entry.
func (p *profiler) commit() {
	if p.committing || len(p.measured) == 0 {
		return
	}
	profiles := p.measured
	p.measured, p.committing = nil, true
	p.k.commit(&logpb.Command{Body: &logpb.Command_PutProfiles{PutProfiles: &logpb.PutProfiles{Profiles: profiles}}}, func(r *logpb.Result) {
		p.committing = false
		if r == nil {
			p.measured = append(p.measured, profiles...)
			return
		}
		if err := refused(r); err != nil {
			p.k.log.Error("profiles were refused", "error", err)
		}
		for _, profile := range profiles {
			key := profileKey{profile.Key.Digest, profile.Key.Engine, profile.Key.EngineVersion, profile.Key.DeviceKind}
			delete(p.inHand, key)
			if r.Reason != logpb.Reason_REASON_NONE {
				p.failed[key]++
			}
		}
	})
}

// devicesOf is for the scheduler: kinds in order of the device's index.
func devicesOf(w *logpb.Worker) []*logpb.Device {
	byIndex := map[uint32]*logpb.Device{}
	for _, d := range w.Devices {
		byIndex[d.Index] = d
	}
	devices := make([]*logpb.Device, 0, len(byIndex))
	for _, i := range slices.Sorted(maps.Keys(byIndex)) {
		devices = append(devices, byIndex[i])
	}
	return devices
}
