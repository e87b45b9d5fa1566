package controller

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/stats"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/scheduler"
)

// While the cluster serves, the scheduler's own sliding windows follow how long
// batches take. A profile is what the next leader starts from: when it is no longer
// true, it is written again.

const (
	// refreshSample is how many of the last runs of each number of rows are looked at,
	// and refreshLeast how many there have to be.
	refreshSample, refreshLeast = 128, 64
	// refreshTolerance is how far the median may be from the profile's, as a share of
	// that, before it counts as drifted. The 99th percentile of so few runs as a
	// profile is made of may have been luck: until it is one of many it may be off by
	// refreshTail.
	refreshTolerance, refreshTail = 0.1, 0.25
)

// ranKey is what runs are compared by.
type ranKey struct {
	model scheduler.ModelID
	kind  string
	rows  int
}

// ran are the last times that batches took. It belongs to the dispatcher.
type ran map[ranKey]*sample

// sample is a ring of the last times, in nanoseconds.
type sample struct {
	times []int64
	next  int
}

func (s *sample) add(ns int64) {
	if len(s.times) < refreshSample {
		s.times = append(s.times, ns)
		return
	}
	s.times[s.next] = ns
	s.next = (s.next + 1) % refreshSample
}

func (r ran) note(k ranKey, took time.Duration) {
	if took <= 0 || k.kind == "" {
		return
	}
	s := r[k]
	if s == nil {
		s = &sample{}
		r[k] = s
	}
	s.add(int64(took))
}

// clone is for others than the dispatcher.
func (r ran) clone() ran {
	c := ran{}
	for k, s := range r {
		c[k] = &sample{times: slices.Clone(s.times)}
	}
	return c
}

// refresher writes profiles again that have drifted.
type refresher struct {
	k *coordinator
	// looked is when it was last looked; busy says that a look is under way.
	looked time.Time
	busy   bool
}

// step asks the dispatcher for what has run, now and then.
func (f *refresher) step(s *fsm.State) {
	interval := f.k.term.c.tunables.Load().ProfileRefresh
	never := interval <= 0 || s.Cluster().GetVersion() < 4
	if never {
		interval = time.Minute // to forget models that are gone
	}
	if !s.Serving() || f.busy || time.Since(f.looked) < interval {
		return
	}
	f.looked, f.busy = time.Now(), !never
	wanted := map[scheduler.ModelID]bool{}
	for _, m := range s.Models() {
		wanted[scheduler.ModelID(m.Id)] = true
	}
	d := f.k.term.dispatcher
	d.mailbox.post(func() {
		maps.DeleteFunc(d.ran, func(k ranKey, _ *sample) bool { return !wanted[k.model] })
		if never {
			return
		}
		all := d.ran.clone()
		f.k.mailbox.post(func() { f.k.term.c.options.Replica.Read(func(s *fsm.State) { f.compare(s, all) }) })
	})
}

// compare commits the profiles that have drifted, in one entry.
func (f *refresher) compare(s *fsm.State, all ran) {
	f.busy = false
	var profiles []*logpb.Profile
	for key, times := range byProfile(s, all) {
		before := s.Profile(key.proto())
		if before == nil || f.k.profiler.inHand[key] != 0 {
			continue // what is measured now is written soon
		}
		if now := drifted(before, times); now != nil {
			now.DriftedUnixNs = time.Now().UnixNano()
			profiles = append(profiles, now)
		}
	}
	if len(profiles) == 0 {
		return
	}
	for _, p := range profiles {
		f.k.log.Info("a profile has drifted and is written again", "digest", p.Key.Digest, "device_kind", p.Key.DeviceKind)
	}
	f.busy = true
	f.k.commit(&logpb.Command{Body: &logpb.Command_PutProfiles{PutProfiles: &logpb.PutProfiles{Profiles: profiles}}}, func(r *logpb.Result) {
		f.busy = false
		if err := refused(r); r != nil && err != nil {
			f.k.log.Error("profiles were refused", "error", err)
		}
	})
}

// byProfile joins what models with one profile have run, by rows.
func byProfile(s *fsm.State, all ran) map[profileKey]map[uint32][]int64 {
	joined := map[profileKey]map[uint32][]int64{}
	for k, sample := range all {
		m := s.Model(uint64(k.model))
		if m.GetInfo() == nil {
			continue
		}
		profile := profileFor(s, m, k.kind)
		if profile == nil {
			continue
		}
		key := keyOf(profile)
		if joined[key] == nil {
			joined[key] = map[uint32][]int64{}
		}
		joined[key][uint32(k.rows)] = append(joined[key][uint32(k.rows)], sample.times...)
	}
	return joined
}

// drifted is a profile with the times of those rows that differ now; nil if none
// does. Batches between two numbers of rows are not looked at.
func drifted(before *logpb.Profile, times map[uint32][]int64) *logpb.Profile {
	now := &logpb.Profile{Key: before.Key, Worker: before.Worker, Device: before.Device, MeasuredUnixNs: before.MeasuredUnixNs}
	for _, e := range before.Execution {
		runs := times[e.Rows]
		if len(runs) < refreshLeast {
			continue
		}
		slices.Sort(runs)
		p50, p99 := stats.Percentile(runs, 0.50), stats.Percentile(runs, 0.99)
		if off(p50, e.P50Ns) > refreshTolerance || e.Runs < refreshLeast && off(p99, e.P99Ns) > refreshTail {
			now.Execution = append(now.Execution, &logpb.RowsTime{Rows: e.Rows, P50Ns: p50, P99Ns: p99, Runs: uint32(len(runs)), Outliers: stats.Outliers(runs, p50)})
		}
	}
	if len(now.Execution) == 0 {
		return nil
	}
	return merged(before, now)
}

// off is how far a time is from what it was, as a share of that.
func off(now, before int64) float64 { return math.Abs(float64(now-before)) / float64(before) }
