package fsm

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// maxPinned is the most devices that a model may be pinned to: more are a slip of the finger. How many there are does not
// matter, they come and go.
const maxPinned = 10_000

// pinModel pins the versions of a model that serve, or will. A retiring one has nothing to come.
func (s *State) pinModel(c *logpb.PinModel) *logpb.Result {
	if c.GetDevices() > maxPinned {
		return refuse(logpb.Reason_REASON_INVALID, "model %q can't be pinned to %d devices, at most to %d; more than there are means all",
			c.GetName(), c.GetDevices(), maxPinned)
	}
	var ids []uint64
	for _, id := range s.versions[c.GetName()] {
		if m := s.models.rows[id]; !m.GetRetiring() && (c.GetVersion() == "" || c.GetVersion() == m.GetVersion()) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return refuseUnknown(c.GetName(), c.GetVersion())
	}
	slices.Sort(ids)
	for _, id := range ids {
		if old := s.models.rows[id]; old.GetPinned() != c.GetDevices() {
			m := proto.CloneOf(old)
			m.Pinned = c.GetDevices()
			s.storeModel(m)
		}
	}
	return &logpb.Result{ModelIds: ids}
}
