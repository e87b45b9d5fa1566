package controller

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// Devices of one kind share their profiles. Whether a device deserves that is
// checked once for each start of its worker: by a few runs of one model that was
// measured elsewhere.

const (
	checkWarmups = 1
	checkRuns    = 5
	// checkLongest is the longest run that is used, if there is a shorter one: of two
	// models the one that runs longer says more.
	checkLongest = 100 * time.Millisecond
	// checkTolerance is how much slower or faster than its kind a device may be
	// before an operator is told. That is believed when checkTries say so, checkAgain
	// apart: a moment's company on the machine looks the same.
	checkTolerance = 1.25
	checkTries     = 3
	checkAgain     = 500 * time.Millisecond
)

// deviceKey is a device of one start of a worker.
type deviceKey struct {
	worker, incarnation string
	device              uint32
}

// checks is what a leader remembers of them.
type checks struct {
	failures   failures[deviceKey]
	notBefore  map[deviceKey]time.Time
	inHand     map[deviceKey]bool
	deviating  map[deviceKey][]*logpb.DeviceCheck // tries so far
	checked    []*logpb.DeviceCheckUpdate
	committing bool
}

func newChecks() checks {
	return checks{failures: failures[deviceKey]{}, notBefore: map[deviceKey]time.Time{}, inHand: map[deviceKey]bool{}, deviating: map[deviceKey][]*logpb.DeviceCheck{}}
}

// check starts the checks that can be started, and commits those that were made.
func (p *profiler) check(s *fsm.State) {
	if s.Cluster().GetVersion() < 4 {
		return
	}
	for _, record := range s.Workers() {
		w := p.k.connections[record.Name]
		if w == nil || !w.inService(s) || w.incarnation() != record.Incarnation || s.Serving() && !w.up {
			continue
		}
		for _, d := range record.Devices {
			if checkOf(record, d.Index) == nil {
				p.checkDevice(s, w, record, d)
			}
		}
	}
	gone := func(key deviceKey) bool { return s.Worker(key.worker).GetIncarnation() != key.incarnation }
	maps.DeleteFunc(p.checks.failures, func(key deviceKey, _ *failure) bool { return gone(key) })
	maps.DeleteFunc(p.checks.notBefore, func(key deviceKey, _ time.Time) bool { return gone(key) })
	maps.DeleteFunc(p.checks.deviating, func(key deviceKey, _ []*logpb.DeviceCheck) bool { return gone(key) })
	p.commitChecks()
}

// checkOf is what a check of a device has found, nil if there was none.
func checkOf(w *logpb.Worker, device uint32) *logpb.DeviceCheck {
	i := slices.IndexFunc(w.GetChecks(), func(c *logpb.DeviceCheck) bool { return c.Device == device })
	if i < 0 {
		return nil
	}
	return w.Checks[i]
}

func (p *profiler) checkDevice(s *fsm.State, w *connection, record *logpb.Worker, d *logpb.Device) {
	model, profile, longest := p.yardstick(s, record, d)
	if model == nil {
		return // nothing to compare it with
	}
	key := deviceKey{record.Name, record.Incarnation, d.Index}
	p.wanted++
	t := trial{model.Id, true}
	switch {
	case p.checks.failures.final(key):
		p.done++
		return
	case !p.enabled || p.checks.inHand[key] || w.profiling[d.Index] != 0 || time.Now().Before(p.checks.notBefore[key]) || !p.k.mayTry(w, t):
		return
	}
	p.checks.inHand[key] = true
	wanted := &sessionpb.Profile{Warmups: checkWarmups, Runs: checkRuns, BudgetNs: int64(profileBudget), Rows: []uint32{longest.Rows}}
	p.measure(s, &measuring{place: place{model, w, d}, wanted: wanted, done: func(m *measuring, r *sessionpb.Result) {
		p.k.tried(w, t, r != nil && !passingLoad(r.Code))
		measured := r.GetProfile().GetExecution()
		if r.GetCode() != sessionpb.ResultCode_RESULT_CODE_OK || len(measured) != 1 {
			delete(p.checks.inHand, key)
			p.checks.notBefore[key] = time.Now().Add(m.pause(r))
			if m.failed(r) {
				p.k.log.Warn("a device could not be checked", "worker", record.Name, "device", d.Index, "model", model.Name,
					"code", r.Code, "message", r.Message, "attempt", p.checks.failures.count(key), "of", profileAttempts)
			}
			return
		}
		check := &logpb.DeviceCheck{
			Device: d.Index, Profile: profile.Key, Ratio: float64(measured[0].P50Ns) / float64(longest.P50Ns), Runs: measured[0].Runs,
		}
		if differs(check) {
			tries := append(p.checks.deviating[key], check)
			if len(tries) < checkTries {
				p.checks.deviating[key] = tries
				delete(p.checks.inHand, key)
				p.checks.notBefore[key] = time.Now().Add(checkAgain)
				return
			}
			check = leastDeviating(tries)
		}
		delete(p.checks.deviating, key)
		p.checks.checked = append(p.checks.checked, &logpb.DeviceCheckUpdate{Worker: record.Name, Incarnation: record.Incarnation, Check: check})
		if differs(check) {
			p.k.log.Warn("a device is not as fast as others of its kind, which share its profiles; give it a kind of its own",
				"worker", record.Name, "device", d.Index, "kind", d.Kind, "ratio", check.Ratio, "model", model.Name, "rows", longest.Rows)
		}
	}})
}

// leastDeviating is the check whose ratio is the nearest to 1.
func leastDeviating(tries []*logpb.DeviceCheck) *logpb.DeviceCheck {
	return slices.MinFunc(tries, func(a, b *logpb.DeviceCheck) int {
		return cmp.Compare(math.Abs(math.Log(a.Ratio)), math.Abs(math.Log(b.Ratio)))
	})
}

// differs says whether a device is so much slower or faster than its kind that an
// operator has to know.
func differs(c *logpb.DeviceCheck) bool {
	return c.GetRatio() > checkTolerance || c.GetRatio() > 0 && c.GetRatio() < 1/checkTolerance
}

// yardstick is a model that a worker holds and whose profile for a device's kind was
// measured on another device, with its largest number of rows. While the cluster
// serves it is one whose weights are on the device.
func (p *profiler) yardstick(s *fsm.State, record *logpb.Worker, d *logpb.Device) (best *logpb.Model, with *logpb.Profile, longest *logpb.RowsTime) {
	resident := p.k.connections[record.Name].session.vitals().resident[d.Index]
	for _, h := range p.k.plan.records[record.Name] {
		m := s.Model(h.ModelId)
		if s.Serving() && !slices.Contains(resident, h.ModelId) {
			continue
		}
		if h.Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED || m.GetInfo() == nil || m.Blame != "" || !measurable(record, d, m) {
			continue
		}
		profile := s.Profile(profileKeyOf(m, variantOf(record, d, m)).proto())
		if profile == nil || profile.Worker == record.Name && profile.Device == d.Index {
			continue
		}
		last := profile.Execution[len(profile.Execution)-1]
		if best == nil || useful(last) > useful(longest) {
			best, with, longest = m, profile, last
		}
	}
	return best, with, longest
}

// useful is higher the longer a run takes, but for those that take too long.
func useful(e *logpb.RowsTime) int64 {
	if e.P50Ns > int64(checkLongest) {
		return -e.P50Ns
	}
	return e.P50Ns
}

func (p *profiler) commitChecks() {
	c := &p.checks
	if c.committing || len(c.checked) == 0 {
		return
	}
	updates := c.checked
	c.checked, c.committing = nil, true
	p.k.commit(&logpb.Command{Body: &logpb.Command_PutDeviceChecks{PutDeviceChecks: &logpb.PutDeviceChecks{Updates: updates}}}, func(r *logpb.Result) {
		c.committing = false
		if r == nil {
			c.checked = append(c.checked, updates...)
			return
		}
		for _, u := range updates {
			delete(c.inHand, deviceKey{u.Worker, u.Incarnation, u.Check.Device})
		}
		if err := refused(r); err != nil {
			p.k.log.Error("checks of devices were refused", "error", err)
		}
	})
}
