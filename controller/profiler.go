package controller

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// How a model is measured on a device.
const (
	profileWarmups = 2
	// profileRuns and profileBudget bound what is measured of a number of rows when
	// its times don't become stable.
	profileRuns         = 100
	profileBudget       = 300 * time.Millisecond
	profileWeightsLoads = 3
	// profileAttempts are made before a model is given up on a kind of device.
	profileAttempts = 3
)

// profileKey is a logpb.ProfileKey that can key a map.
type profileKey struct{ digest, engine, version, shapes, kind string }

func (k profileKey) proto() *logpb.ProfileKey {
	return &logpb.ProfileKey{Digest: k.digest, Engine: k.engine, EngineVersion: k.version, Shapes: k.shapes, DeviceKind: k.kind}
}

// profileKeyOf is the key of a model's profile on a kind of device.
func profileKeyOf(m *logpb.Model, kind string) profileKey {
	return profileKey{m.Info.GetDigest(), m.Info.GetEngine(), m.Info.GetEngineVersion(), fsm.ShapesKey(m.Largest), kind}
}

// profiler has every model measured once on every kind of device that holds
// it, and every other device of that kind checked once. Profiles and checks are in
// the log: nothing is measured again by the next leader.
type profiler struct {
	k *coordinator
	// enabled from the phase profiling on.
	enabled bool
	// failed counts attempts; a key with profileAttempts is given up.
	failed map[profileKey]int
	// notBefore is when a measurement that was put off may be tried again.
	notBefore map[profileKey]time.Time
	// inHand are the models that are being measured, or measured and being committed,
	// by the key of what comes of it.
	inHand map[profileKey]uint64
	// stalled wait for room on their device.
	stalled []*measuring
	// measured waits to be committed.
	measured   []*logpb.Profile
	committing bool
	checks     checks
	// wanted and done are what the startup waits for.
	wanted, done int
}

func newProfiler(k *coordinator) profiler {
	return profiler{
		k: k, failed: map[profileKey]int{}, notBefore: map[profileKey]time.Time{}, inHand: map[profileKey]uint64{}, checks: newChecks(),
	}
}

// need is what a profile is to have.
type need struct {
	key   profileKey
	model *logpb.Model // one that needs it
	rows  []uint32     // ascending
	waits bool         // for the phase: see waitsForPhase
}

// needs are what all models need, in order of the models' ids. Models of one source
// share their profiles.
func (p *profiler) needs(s *fsm.State) []*need {
	var all []*need
	byKey := map[profileKey]*need{}
	for _, m := range s.Models() {
		if m.Info == nil || m.Blame != "" || m.Retiring {
			continue
		}
		for _, kind := range kindsOf(s, m) {
			key := profileKeyOf(m, kind)
			n := byKey[key]
			if n == nil {
				n = &need{key: key, model: m, waits: true}
				byKey[key] = n
				all = append(all, n)
			}
			if rows := profileRows(m); len(rows) > len(n.rows) {
				n.rows = rows // of one source, so the longer has all of the shorter
			}
			n.waits = n.waits && waitsForPhase(s, m)
		}
	}
	return all
}

// waitsForPhase says whether a model was wanted since the startup was reopened:
// those are measured together, when the loads have been quiet.
func waitsForPhase(s *fsm.State, m *logpb.Model) bool {
	return s.Cluster().GetReopened() && m.Id > s.Cluster().GetReopenedAfterModel() && s.Phase() != logpb.Phase_PHASE_PROFILING
}

// kindsOf are the kinds of devices that have the model or may have it, sorted.
func kindsOf(s *fsm.State, m *logpb.Model) (kinds []string) {
	for _, h := range s.Holdings(m.Id) {
		w := s.Worker(h.Worker)
		if h.Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED || w.GetStatus() != logpb.WorkerStatus_WORKER_STATUS_READY {
			continue
		}
		for _, d := range w.Devices {
			if measurable(w, d, m) && !slices.Contains(kinds, d.Kind) {
				kinds = append(kinds, d.Kind)
			}
		}
	}
	slices.Sort(kinds)
	return kinds
}

// measurable says whether a device has room for the model, and runs it by the engine
// of the model's version: profiles of different versions are different.
func measurable(w *logpb.Worker, d *logpb.Device, m *logpb.Model) bool {
	return slices.Contains(d.Engines, m.Info.Engine) && runs(w, m.Info) && m.Info.WeightsBytes <= uint64(d.Pages)*d.PageBytes
}

func runs(w *logpb.Worker, info *logpb.ModelInfo) bool {
	return slices.ContainsFunc(w.Engines, func(e *logpb.Engine) bool { return e.Name == info.Engine && e.Version == info.EngineVersion })
}

// profileRows are the numbers of rows that have to be known to run any batch that
// the model allows: a batch between two of them takes as long as the larger.
func profileRows(m *logpb.Model) []uint32 {
	rows := m.Info.GetProfileRows()
	if i := slices.IndexFunc(rows, func(n uint32) bool { return n >= m.MaxRows }); m.MaxRows > 0 && i >= 0 {
		return rows[:i+1]
	}
	return rows
}

// lacking are the rows that a profile, which may be nil, does not have.
func lacking(p *logpb.Profile, rows []uint32) (lack []uint32) {
	for _, n := range rows {
		if !slices.ContainsFunc(p.GetExecution(), func(e *logpb.RowsTime) bool { return e.Rows == n }) {
			lack = append(lack, n)
		}
	}
	return lack
}

// step starts what measurements can be started and commits what was measured.
func (p *profiler) step(s *fsm.State) {
	p.wanted, p.done = 0, 0
	p.resume(s)
	for _, n := range p.needs(s) {
		p.wanted++
		lack := lacking(s.Profile(n.key.proto()), n.rows)
		if len(lack) == 0 || p.failed[n.key] >= profileAttempts {
			p.done++
			continue
		}
		if p.enabled && !n.waits && p.inHand[n.key] == 0 {
			p.start(s, n, lack)
		}
	}
	p.commit(s)
	p.check(s)
}

// place is where a model can be measured.
type place struct {
	worker *connection
	device *logpb.Device
}

// places are the devices of a kind that hold the model and can be used now, those of
// the workers with the least to do first.
func (p *profiler) places(s *fsm.State, m *logpb.Model, kind string) (places []place) {
	for _, h := range s.Holdings(m.Id) {
		c := p.k.connections[h.Worker]
		if h.Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED || c == nil || !c.inService(s) {
			continue
		}
		w := s.Worker(h.Worker)
		for _, d := range w.Devices {
			if d.Kind == kind && measurable(w, d, m) {
				places = append(places, place{c, d})
			}
		}
	}
	slices.SortStableFunc(places, func(a, b place) int {
		return cmp.Compare(a.worker.session.outstanding(), b.worker.session.outstanding())
	})
	return places
}

// start measures what a profile lacks on the first free device of its kind. A
// device measures one model at a time.
func (p *profiler) start(s *fsm.State, n *need, rows []uint32) {
	if time.Now().Before(p.notBefore[n.key]) {
		return
	}
	t := trial{n.model.Id, true}
	places := p.places(s, n.model, n.key.kind)
	survivors := slices.ContainsFunc(places, func(at place) bool { return !p.k.suspects.killed(t, at.worker.name) })
	i := slices.IndexFunc(places, func(at place) bool {
		if survivors && p.k.suspects.killed(t, at.worker.name) {
			return false
		}
		return at.worker.profiling[at.device.Index] == 0 && p.k.mayTry(at.worker, t)
	})
	if i < 0 {
		return
	}
	p.inHand[n.key] = n.model.Id
	wanted := &sessionpb.Profile{Warmups: profileWarmups, Runs: profileRuns, BudgetNs: int64(profileBudget), Rows: rows}
	if s.Profile(n.key.proto()) == nil {
		wanted.WeightsLoads = profileWeightsLoads
	}
	p.k.log.Info("profiling", "model", n.model.Name, "device_kind", n.key.kind, "worker", places[i].worker.name)
	p.measure(s, &measuring{model: n.model, place: places[i], wanted: wanted, done: func(m *measuring, r *sessionpb.Result) {
		p.k.tried(m.worker, t, r != nil && !passingLoad(r.Code))
		p.finish(n, m, r)
	}})
}

// finish takes in a measurement. A nil result means that the worker went away:
// another one is asked.
func (p *profiler) finish(n *need, m *measuring, r *sessionpb.Result) {
	measured := r.GetProfile()
	if r.GetCode() == sessionpb.ResultCode_RESULT_CODE_OK && measured != nil && (measured.WeightsLoadP50Ns > 0 || m.wanted.WeightsLoads == 0) {
		measured.Key = n.key.proto()
		measured.Worker, measured.Device, measured.MeasuredUnixNs = m.worker.name, m.device.Index, time.Now().UnixNano()
		p.measured = append(p.measured, measured)
		return
	}
	delete(p.inHand, n.key)
	p.notBefore[n.key] = time.Now().Add(actionRetry)
	if r == nil || passingLoad(r.Code) {
		return
	}
	if crowded(r.Code) || r.Code == sessionpb.ResultCode_RESULT_CODE_OK {
		p.notBefore[n.key] = time.Now().Add(crowdedRetry)
		return
	}
	p.failed[n.key]++
	p.k.log.Warn("profiling failed", "model", n.model.Name, "device_kind", n.key.kind, "code", r.Code, "message", r.Message,
		"attempt", p.failed[n.key], "of", profileAttempts)
}

// commit puts all that has been measured into one log entry.
func (p *profiler) commit(s *fsm.State) {
	if p.committing || len(p.measured) == 0 {
		return
	}
	profiles := make([]*logpb.Profile, len(p.measured))
	for i, measured := range p.measured {
		profiles[i] = merged(s.Profile(measured.Key), measured)
		if s.Cluster().GetVersion() < 4 {
			profiles[i].Worker, profiles[i].Device, profiles[i].MeasuredUnixNs = "", 0, 0
		}
	}
	measured := p.measured
	p.measured, p.committing = nil, true
	p.k.commit(&logpb.Command{Body: &logpb.Command_PutProfiles{PutProfiles: &logpb.PutProfiles{Profiles: profiles}}}, func(r *logpb.Result) {
		p.committing = false
		if r == nil {
			p.measured = append(p.measured, measured...)
			return
		}
		if err := refused(r); err != nil {
			p.k.log.Error("profiles were refused", "error", err)
		}
		for _, profile := range profiles {
			key := profileKey{profile.Key.Digest, profile.Key.Engine, profile.Key.EngineVersion, profile.Key.Shapes, profile.Key.DeviceKind}
			delete(p.inHand, key)
			if r.Reason != logpb.Reason_REASON_NONE {
				p.failed[key]++
			}
		}
	})
}

// merged is a profile with what was measured now, and what else was known before.
func merged(before, now *logpb.Profile) *logpb.Profile {
	m := &logpb.Profile{
		Key: now.Key, WeightsLoadP50Ns: now.WeightsLoadP50Ns, WeightsLoadP99Ns: now.WeightsLoadP99Ns,
		Execution:         slices.Clone(now.Execution),
		OutputBytesPerRow: max(now.OutputBytesPerRow, before.GetOutputBytesPerRow()),
		Worker:            now.Worker, Device: now.Device, MeasuredUnixNs: now.MeasuredUnixNs, DriftedUnixNs: now.DriftedUnixNs,
	}
	if before != nil && m.WeightsLoadP50Ns == 0 {
		m.WeightsLoadP50Ns, m.WeightsLoadP99Ns = before.WeightsLoadP50Ns, before.WeightsLoadP99Ns
	}
	for _, e := range before.GetExecution() {
		if len(lacking(now, []uint32{e.Rows})) > 0 {
			m.Execution = append(m.Execution, e)
		}
	}
	slices.SortFunc(m.Execution, func(a, b *logpb.RowsTime) int { return cmp.Compare(a.Rows, b.Rows) })
	return m
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
