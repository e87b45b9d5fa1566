package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// profileKey is logpb.ProfileKey as a key of a map.
type profileKey struct {
	digest, engine, engineVersion, shapes, deviceKind string
}

func keyOf(k *logpb.ProfileKey) profileKey {
	return profileKey{k.GetDigest(), k.GetEngine(), k.GetEngineVersion(), k.GetShapes(), k.GetDeviceKind()}
}

func (k profileKey) compare(o profileKey) int {
	return cmp.Or(strings.Compare(k.digest, o.digest), strings.Compare(k.engine, o.engine),
		strings.Compare(k.engineVersion, o.engineVersion), strings.Compare(k.shapes, o.shapes), strings.Compare(k.deviceKind, o.deviceKind))
}

// Profile returns nil if nothing was measured for the key.
func (s *State) Profile(key *logpb.ProfileKey) *logpb.Profile { return s.profiles.rows[keyOf(key)] }

// Profiles are those of what has the digest, run by one version of an engine with inputs of up to some shapes, by the
// kind of device.
func (s *State) Profiles(digest, engine, engineVersion, shapes string) []*logpb.Profile {
	var found []*logpb.Profile
	first := profileKey{digest: digest, engine: engine, engineVersion: engineVersion, shapes: shapes}
	i, _ := slices.BinarySearchFunc(s.profiles.keys, first, profileKey.compare)
	for _, key := range s.profiles.keys[i:] {
		if key.digest != digest || key.engine != engine || key.engineVersion != engineVersion || key.shapes != shapes {
			break
		}
		found = append(found, s.profiles.rows[key])
	}
	return found
}

// ProfilesOf are those of a model with the engine that loaded it first, by the kind of device. It has none before it
// was loaded.
func (s *State) ProfilesOf(model *logpb.Model) []*logpb.Profile {
	info := model.GetInfo()
	if info == nil {
		return nil
	}
	return s.Profiles(info.GetDigest(), info.GetEngine(), info.GetEngineVersion(), ShapesKey(model.GetLargest()))
}

// putProfiles replaces by key. Profiles outlive their models: they make a second load quick.
func (s *State) putProfiles(profiles []*logpb.Profile) *logpb.Result {
	for i, p := range profiles {
		if err := checkProfile(p); err != nil {
			return refuse(logpb.Reason_REASON_INVALID, "profile %d: %v", i, err)
		}
	}
	for _, p := range profiles {
		s.storeProfile(proto.CloneOf(p))
	}
	return &logpb.Result{}
}

func checkProfile(p *logpb.Profile) error {
	key := keyOf(p.GetKey())
	switch {
	case key.digest == "" || key.engine == "" || key.engineVersion == "" || key.deviceKind == "":
		return fmt.Errorf("its key is not complete, %q of engine %q version %q on %q", key.digest, key.engine, key.engineVersion, key.deviceKind)
	case len(p.GetExecution()) == 0:
		return fmt.Errorf("it has no execution times")
	}
	if err := checkTimes(p.GetWeightsLoadP50Ns(), p.GetWeightsLoadP99Ns()); err != nil {
		return fmt.Errorf("weights load: %w", err)
	}
	last := uint32(0)
	for _, r := range p.GetExecution() {
		if r.GetRows() <= last {
			return fmt.Errorf("%d rows come after %d: they must ascend from 1", r.GetRows(), last)
		}
		last = r.GetRows()
		if err := checkTimes(r.GetP50Ns(), r.GetP99Ns()); err != nil {
			return fmt.Errorf("execution of %d rows: %w", r.GetRows(), err)
		}
	}
	return nil
}

func checkTimes(p50, p99 int64) error {
	if p50 <= 0 || p99 < p50 {
		return fmt.Errorf("p50 is %d ns and p99 is %d ns: they must be positive, and p99 no less than p50", p50, p99)
	}
	return nil
}
