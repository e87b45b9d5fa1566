package controller

import (
	"cmp"
	"slices"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// variant is what tells the profiles of a model apart: the kind of device, and the
// version of the model's engine there. In the middle of an update of the workers
// there are two versions on one kind.
type variant struct{ kind, engineVersion string }

func (v variant) compare(o variant) int {
	return cmp.Or(cmp.Compare(v.kind, o.kind), cmp.Compare(v.engineVersion, o.engineVersion))
}

// variantOf is a model's on a device of a worker.
func variantOf(w *logpb.Worker, d *logpb.Device, m *logpb.Model) variant {
	v := variant{kind: d.Kind}
	for _, e := range w.Engines {
		if e.Name == m.Info.GetEngine() {
			v.engineVersion = e.Version
		}
	}
	return v
}

// profileKeyOf is the key of a model's profile.
func profileKeyOf(m *logpb.Model, v variant) profileKey {
	return profileKey{m.Info.GetDigest(), m.Info.GetEngine(), v.engineVersion, fsm.ShapesKey(m.Largest), v.kind}
}

// keyOf is the key of a profile.
func keyOf(p *logpb.Profile) profileKey {
	return profileKey{p.Key.GetDigest(), p.Key.GetEngine(), p.Key.GetEngineVersion(), p.Key.GetShapes(), p.Key.GetDeviceKind()}
}

// variantsOf are those on which a model is held by workers that take work, sorted.
func variantsOf(s *fsm.State, m *logpb.Model) (variants []variant) {
	for _, h := range s.Holdings(m.Id) {
		w := s.Worker(h.Worker)
		if h.Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED || w.GetStatus() != logpb.WorkerStatus_WORKER_STATUS_READY {
			continue
		}
		for _, d := range w.Devices {
			if !measurable(w, d, m) {
				continue
			}
			if v := variantOf(w, d, m); !slices.Contains(variants, v) {
				variants = append(variants, v)
			}
		}
	}
	slices.SortFunc(variants, variant.compare)
	return variants
}

// measurable says whether a device may run the model, and has room for it.
func measurable(w *logpb.Worker, d *logpb.Device, m *logpb.Model) bool {
	return slices.Contains(d.Engines, m.Info.Engine) && fsm.HasEngine(w, m.Info.Engine) && m.Info.WeightsBytes <= uint64(d.Pages)*d.PageBytes
}

// profileFor is what a model's times on a kind of device are taken to be: of several
// versions of its engine those that were measured last, and until the present ones
// have been, those of the version that loaded it first. nil: nothing was measured.
func profileFor(s *fsm.State, m *logpb.Model, kind string) (best *logpb.Profile) {
	for _, v := range variantsOf(s, m) {
		if p := s.Profile(profileKeyOf(m, v).proto()); v.kind == kind && p != nil && (best == nil || p.MeasuredUnixNs > best.MeasuredUnixNs) {
			best = p
		}
	}
	if best == nil {
		best = s.Profile(profileKeyOf(m, variant{kind, m.Info.GetEngineVersion()}).proto())
	}
	return best
}

// profilesOf are a model's, by kind of device and version of its engine: where it is
// held now, or else what is known of the version that loaded it first.
func profilesOf(s *fsm.State, m *logpb.Model) (profiles []*logpb.Profile) {
	for _, v := range variantsOf(s, m) {
		if p := s.Profile(profileKeyOf(m, v).proto()); p != nil {
			profiles = append(profiles, p)
		}
	}
	if len(profiles) == 0 {
		profiles = s.ProfilesOf(m)
	}
	return profiles
}
