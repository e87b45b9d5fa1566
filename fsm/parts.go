package fsm

// Part is a set of parts of the state, for those who wait for a change.
type Part uint8

// The parts. The worker that a holding belongs to, and its model, are parts of their own: who waits for
// State.Targets or State.Pending waits for Workers|Models|Holdings.
const (
	// Cluster is the record about the cluster itself: its phase, epoch, version and settings.
	Cluster Part = 1 << iota
	Workers
	Models
	Holdings
	Profiles

	All = Cluster | Workers | Models | Holdings | Profiles
)

// takeChanged says in which parts records have changed since it was last asked.
func (s *State) takeChanged() Part {
	changed := s.changed
	s.changed = 0
	return changed
}
