package controller

import (
	"maps"
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/scheduler"
)

// A replacement is loaded and measured like any model. When it can be served, its
// weights are fetched onto as many devices as those of the present version are on;
// then one log entry has it take over. The replaced version answers what it has, and
// is unloaded.

const (
	// warmPatience is how long the switch waits for weights to be fetched: the devices
	// may have no room for both versions.
	warmPatience = 10 * time.Second
	// retireQuiet is how long a replaced version must have had nothing to do, and
	// retirePatience how long it may take at most. Entries may send it requests until
	// they have heard of the switch.
	retireQuiet    = time.Second
	retirePatience = time.Minute
)

// replacements is where a leader is with them.
type replacements struct {
	k *coordinator
	// warming is since when the weights of a replacement are fetched.
	warming map[uint64]time.Time
	// retired are the versions that were replaced.
	retired    map[uint64]*retired
	committing bool
}

// retired is a version that was replaced.
type retired struct {
	// since is when this leader saw that first, quiet since when it has had nothing to
	// do, and asked when the dispatcher was last asked for that.
	since, quiet, asked time.Time
}

func newReplacements(k *coordinator) replacements {
	return replacements{k: k, warming: map[uint64]time.Time{}, retired: map[uint64]*retired{}}
}

// step takes each replacement as far as it can be taken.
func (r *replacements) step(s *fsm.State) {
	if !s.Serving() || r.committing {
		return
	}
	for _, m := range s.Models() {
		switch {
		case m.Replaces != 0 && r.ready(s, m) && r.warm(s, m):
			warm, before := r.devices(m.Id), r.devices(m.Replaces)
			r.commit(&logpb.Command{Body: &logpb.Command_ReplaceModel{ReplaceModel: &logpb.ReplaceModel{ModelId: m.Id}}}, func() {
				r.k.log.Info("a model takes over from the version before", "model", m.Name, "version", m.Version,
					"devices_with_weights", warm, "before", before)
			})
			return
		case m.Retiring && r.over(m):
			r.commit(&logpb.Command{Body: &logpb.Command_UnloadModel{UnloadModel: &logpb.UnloadModel{Name: m.Name, Version: m.Version, ModelId: m.Id}}}, func() {
				r.k.log.Info("a replaced version has nothing left to do and is unloaded", "model", m.Name, "version", m.Version)
			})
			return
		}
	}
	gone := func(id uint64) bool { return s.Model(id) == nil }
	maps.DeleteFunc(r.warming, func(id uint64, _ time.Time) bool { return gone(id) })
	maps.DeleteFunc(r.retired, func(id uint64, _ *retired) bool { return gone(id) })
}

// commit commits a command; done is called when it had its effect.
func (r *replacements) commit(c *logpb.Command, done func()) {
	r.committing = true
	r.k.commit(c, func(result *logpb.Result) {
		r.committing = false
		if result != nil && result.Reason == logpb.Reason_REASON_NONE {
			done()
		}
	})
}

// ready says whether a replacement can do all that it ever will: each worker that
// shall hold it has loaded it or failed to, it has been measured or given up wherever
// that is, and can be served.
func (r *replacements) ready(s *fsm.State, m *logpb.Model) bool {
	return settled(s, m) && r.k.profiler.settled(s, m) && !obstacleTo(s, m, r.k.workers()).exists()
}

// warm says whether the weights are on as many devices as those of the version that
// is replaced, and has them fetched. Whom nobody asks for needs no warmth.
func (r *replacements) warm(s *fsm.State, m *logpb.Model) bool {
	wanted := max(1, r.devices(m.Replaces))
	since, begun := r.warming[m.Id]
	if !begun {
		r.warming[m.Id] = time.Now()
		d := r.k.term.dispatcher
		e := scheduler.Prefetch{Model: scheduler.ModelID(m.Id), Devices: wanted}
		d.mailbox.post(func() { d.event(e) })
		return false
	}
	if r.devices(m.Id) < min(wanted, r.usable(s, m)) && time.Since(since) < warmPatience {
		return false
	}
	delete(r.warming, m.Id)
	return true
}

// devices is how many devices have a model's weights.
func (r *replacements) devices(id uint64) (n int) {
	for _, w := range r.k.connections {
		if w.session == nil {
			continue
		}
		for _, models := range w.session.vitals().resident {
			if slices.Contains(models, id) {
				n++
			}
		}
	}
	return n
}

// usable is how many devices may have a model's weights.
func (r *replacements) usable(s *fsm.State, m *logpb.Model) (n int) {
	for _, v := range variantsOf(s, m) {
		n += len(r.k.profiler.places(s, m, v))
	}
	return n
}

// over says whether a replaced version can be unloaded.
func (r *replacements) over(m *logpb.Model) bool {
	old := r.retired[m.Id]
	if old == nil {
		old = &retired{since: time.Now(), quiet: time.Now()}
		r.retired[m.Id] = old
	}
	if time.Since(old.quiet) >= retireQuiet || time.Since(old.since) >= retirePatience {
		delete(r.retired, m.Id)
		return true
	}
	if time.Since(old.asked) >= coordinatorTick {
		old.asked = time.Now()
		d := r.k.term.dispatcher
		d.mailbox.post(func() {
			if d.waiting(scheduler.ModelID(m.Id)) {
				r.k.mailbox.post(func() { old.quiet = time.Now() })
			}
		})
	}
	return false
}
