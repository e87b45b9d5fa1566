package fsm

import (
	"math"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// A replacement is wanted beside the model that it replaces, and takes no requests that name no version. When the
// leader finds it warm, replaceModel switches; the replaced one retires: it takes no requests any more, and is unloaded
// when the leader finds that it has none left.

// placeOfReplacement returns the replacement that is wanted already, or where one is to be added.
func (s *State) placeOfReplacement(name string, wanted *logpb.LoadModel) (*logpb.Model, place, *logpb.Result) {
	if m := s.find(name, wanted.GetVersion()); m != nil && !m.GetRetiring() && difference(m, wanted) == "" {
		return m, place{}, nil
	}
	old := s.Resolve(name, "")
	if old == nil {
		return nil, place{}, refuse(logpb.Reason_REASON_UNKNOWN_MODEL, "there is no model %q that could be replaced: load it as a new one", name)
	}
	newest := uint64(0)
	for _, id := range s.versions[name] {
		m := s.models.rows[id]
		if m.GetReplaces() != 0 {
			return nil, place{}, refuse(logpb.Reason_REASON_CONFLICT, "version %s of model %q is to replace the present one already: wait until it has, or unload it",
				m.GetVersion(), name)
		}
		newest = max(newest, number(m.GetVersion()))
	}
	version := wanted.GetVersion()
	if version == "" && newest < math.MaxUint64 {
		version = strconv.FormatUint(newest+1, 10)
	}
	if number(version) <= newest {
		return nil, place{}, refuse(logpb.Reason_REASON_INVALID, "version %q of model %q is not above %d, which is the newest: the replacement needs a newer one",
			version, name, newest)
	}
	return nil, place{version: version, replaces: old.GetId()}, nil
}

// number is the value of a stored version.
func number(version string) uint64 {
	n, _ := strconv.ParseUint(version, 10, 64)
	return n
}

func (s *State) replaceModel(c *logpb.ReplaceModel) *logpb.Result {
	m := s.Model(c.GetModelId())
	if m.GetReplaces() == 0 {
		return refuse(logpb.Reason_REASON_UNKNOWN_MODEL, "no model with the id %d is to replace another", c.GetModelId())
	}
	if m.GetBlame() != "" {
		return refuse(logpb.Reason_REASON_CONFLICT, "version %s of model %q is blamed for the death of workers, and takes over from none: %s",
			m.GetVersion(), m.GetName(), m.GetBlame())
	}
	if old := s.Model(m.GetReplaces()); old != nil {
		retired := proto.CloneOf(old)
		retired.Retiring, retired.Pinned = true, 0
		s.storeModel(retired)
	}
	m = proto.CloneOf(m)
	m.Replaces = 0
	s.storeModel(m)
	return &logpb.Result{ModelIds: []uint64{m.GetId()}}
}
