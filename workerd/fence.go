package workerd

import (
	"cmp"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

// standing is where a leader stands against the newest that the fence knows.
type standing int

const (
	// standingNewer is a leader that follows the newest one known.
	standingNewer standing = iota
	// standingSame is the newest one known.
	standingSame
	// standingStale is a leader that was succeeded.
	standingStale
	// standingForeign is a leader of another cluster.
	standingForeign
)

// fence remembers the newest leader. The first cluster that it hears of is the only one that it ever accepts.
type fence struct {
	newest *sessionpb.Leader
}

// judge compares a leader with the newest one known, in the order (cluster id, epoch, term).
func (f *fence) judge(l *sessionpb.Leader) standing {
	if f.newest == nil {
		return standingNewer
	}
	if l.GetClusterId() != f.newest.GetClusterId() {
		return standingForeign
	}
	switch c := cmp.Or(cmp.Compare(l.GetEpoch(), f.newest.GetEpoch()), cmp.Compare(l.GetTerm(), f.newest.GetTerm())); {
	case c > 0:
		return standingNewer
	case c < 0:
		return standingStale
	default:
		return standingSame
	}
}

// admit says whether the leader may open a session, and remembers it if it is the newest.
func (f *fence) admit(l *sessionpb.Leader) bool {
	switch f.judge(l) {
	case standingNewer:
		f.newest = l
		return true
	case standingSame:
		return true
	default:
		return false
	}
}
