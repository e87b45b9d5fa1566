package workerd

import (
	"testing"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

func TestFence(t *testing.T) {
	leader := func(cluster string, epoch, term uint64) *sessionpb.Leader {
		return &sessionpb.Leader{ClusterId: cluster, Epoch: epoch, Term: term}
	}
	var f fence
	for i, step := range []struct {
		leader *sessionpb.Leader
		at     standing
		newest uint64 // term, afterwards
	}{
		{leader("c", 1, 5), standingNewer, 5},
		{leader("c", 1, 5), standingSame, 5},
		{leader("c", 1, 4), standingStale, 5},
		{leader("d", 9, 9), standingForeign, 5},
		{leader("c", 1, 7), standingNewer, 7},
		{leader("c", 2, 1), standingNewer, 1}, // recovery raises the epoch
		{leader("c", 1, 99), standingStale, 1},
		{leader("b", 9, 9), standingForeign, 1},
	} {
		if at := f.judge(step.leader); at != step.at {
			t.Errorf("step %d: judged %v, want %v", i, at, step.at)
		}
		if admitted, want := f.admit(step.leader), step.at <= standingSame; admitted != want {
			t.Errorf("step %d: admitted %v, want %v", i, admitted, want)
		}
		if f.newest.GetTerm() != step.newest {
			t.Errorf("step %d: newest term %d, want %d", i, f.newest.GetTerm(), step.newest)
		}
	}
}
