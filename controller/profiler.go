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
)

// profileKey is a logpb.ProfileKey that can key a map.
type profileKey struct{ digest, engine, version, shapes, kind string }

func (k profileKey) proto() *logpb.ProfileKey {
	return &logpb.ProfileKey{Digest: k.digest, Engine: k.engine, EngineVersion: k.version, Shapes: k.shapes, DeviceKind: k.kind}
}

// profiler has every model measured once on every kind of device that holds
// it, by every version of its engine, and every other device of that kind checked
// once. Profiles and checks are in the log: nothing is measured again by the next
// leader.
type profiler struct {
	k *coordinator
	// enabled from the phase profiling on.
	enabled bool
	// failures are of keys that could not be measured.
	failures failures[profileKey]
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
		k: k, failures: failures[profileKey]{}, notBefore: map[profileKey]time.Time{}, inHand: map[profileKey]uint64{}, checks: newChecks(),
	}
}

// need is what a profile is to have.
type need struct {
	key profileKey
	variant
	models []*logpb.Model // that need it
	rows   []uint32       // ascending
	waits  bool           // for the phase: see waitsForPhase
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
		for _, v := range variantsOf(s, m) {
			key := profileKeyOf(m, v)
			n := byKey[key]
			if n == nil {
				n = &need{key: key, variant: v, waits: true}
				byKey[key] = n
				all = append(all, n)
			}
			n.models = append(n.models, m)
			if rows := profileRows(m); len(rows) > len(n.rows) {
				n.rows = rows // of one source, so the longer has all of the shorter
			}
			n.waits = n.waits && waitsForPhase(s, m)
		}
	}
	unneeded := func(key profileKey) bool { return byKey[key] == nil }
	maps.DeleteFunc(p.failures, func(key profileKey, _ *failure) bool { return unneeded(key) })
	maps.DeleteFunc(p.notBefore, func(key profileKey, _ time.Time) bool { return unneeded(key) })
	return all
}

// waitsForPhase says whether a model was wanted since the startup was reopened:
// those are measured together, when the loads have been quiet.
func waitsForPhase(s *fsm.State, m *logpb.Model) bool {
	return s.Cluster().GetReopened() && m.Id > s.Cluster().GetReopenedAfterModel() && s.Phase() != logpb.Phase_PHASE_PROFILING
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
		if len(lack) == 0 || p.failures.final(n.key) {
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

// settled says whether a model has been measured, or given up, wherever it is held.
func (p *profiler) settled(s *fsm.State, m *logpb.Model) bool {
	for _, v := range variantsOf(s, m) {
		key := profileKeyOf(m, v)
		if len(lacking(s.Profile(key.proto()), profileRows(m))) > 0 && !p.failures.final(key) {
			return false
		}
	}
	return true
}

// place is where a model can be measured.
type place struct {
	model  *logpb.Model
	worker *connection
	device *logpb.Device
}

// places are the devices that hold a model and can measure it now, those of the
// workers with the least to do first. While the cluster serves, the scheduler has to
// know them.
func (p *profiler) places(s *fsm.State, m *logpb.Model, v variant) (places []place) {
	for _, h := range s.Holdings(m.Id) {
		c := p.k.connections[h.Worker]
		if h.Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED || c == nil || !c.inService(s) || s.Serving() && !c.up {
			continue
		}
		w := s.Worker(h.Worker)
		for _, d := range w.Devices {
			if measurable(w, d, m) && variantOf(w, d, m) == v {
				places = append(places, place{m, c, d})
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
	var places []place
	for _, m := range n.models {
		places = append(places, p.places(s, m, n.variant)...)
	}
	killed := func(at place) bool { return p.k.suspects.killed(trial{at.model.Id, true}, at.worker.name) }
	survivors := slices.ContainsFunc(places, func(at place) bool { return !killed(at) })
	i := slices.IndexFunc(places, func(at place) bool {
		return !(survivors && killed(at)) && at.worker.profiling[at.device.Index] == 0 && p.k.mayTry(at.worker, trial{at.model.Id, true})
	})
	if i < 0 {
		return
	}
	p.inHand[n.key] = places[i].model.Id
	wanted := &sessionpb.Profile{Warmups: profileWarmups, Runs: profileRuns, BudgetNs: int64(profileBudget), Rows: rows}
	if s.Profile(n.key.proto()) == nil {
		wanted.WeightsLoads = profileWeightsLoads
	}
	p.k.log.Info("profiling", "model", places[i].model.Name, "device_kind", n.kind, "worker", places[i].worker.name)
	p.measure(s, &measuring{place: places[i], wanted: wanted, done: func(m *measuring, r *sessionpb.Result) {
		p.k.tried(m.worker, trial{m.model.Id, true}, r != nil && !passingLoad(r.Code))
		p.finish(n.key, m, r)
	}})
}

// finish takes in a measurement. A nil result means that the worker went away:
// another one is asked.
func (p *profiler) finish(key profileKey, m *measuring, r *sessionpb.Result) {
	measured := r.GetProfile()
	if r.GetCode() == sessionpb.ResultCode_RESULT_CODE_OK && measured != nil && (measured.WeightsLoadP50Ns > 0 || m.wanted.WeightsLoads == 0) {
		measured.Key = key.proto()
		measured.Worker, measured.Device, measured.MeasuredUnixNs = m.worker.name, m.device.Index, time.Now().UnixNano()
		p.measured = append(p.measured, measured)
		return
	}
	delete(p.inHand, key)
	p.notBefore[key] = time.Now().Add(m.pause(r))
	if !m.failed(r) {
		return
	}
	p.k.log.Warn("profiling failed", "model", m.model.Name, "device_kind", key.kind, "worker", m.worker.name, "code", r.Code, "message", r.Message,
		"attempt", p.failures.count(key), "of", profileAttempts)
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
			key := keyOf(profile)
			delete(p.inHand, key)
			if r.Reason != logpb.Reason_REASON_NONE {
				p.failures.count(key)
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
	if before != nil {
		// What was known is the most of it.
		m.Worker, m.Device, m.MeasuredUnixNs, m.DriftedUnixNs = before.Worker, before.Device, before.MeasuredUnixNs, before.DriftedUnixNs
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
