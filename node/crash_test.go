package node

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orrery-project/orrery/proto/logpb"
)

// moment is something in a startup around which the leader dies.
type moment struct {
	name string
	// phase is the one that is committed there; QUERYING: none is.
	phase logpb.Phase
	// early: see rehearsal.
	early bool
	// at is when it will happen, by the course of an undisturbed startup.
	at func(r *rehearsal, calm course) time.Time
	// offset is how long after that the ith leader of so many dies.
	offset func(i int, calm course) time.Duration
}

// crashes are how many leaders die around each moment.
const crashes = 20

// around are the offsets for a commit, from before the leader has put it on its
// disk until everybody knows. A commit takes two latencies; the news of it goes out
// with the next entry or within some 40 ms.
func around(i int, _ course) time.Duration {
	return [crashes]time.Duration{
		-14 * time.Millisecond, -9 * time.Millisecond, -7 * time.Millisecond, -6 * time.Millisecond, -5 * time.Millisecond,
		-4 * time.Millisecond, -3 * time.Millisecond, -2 * time.Millisecond, -time.Millisecond, 0,
		time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond, 4 * time.Millisecond, 6 * time.Millisecond,
		9 * time.Millisecond, 15 * time.Millisecond, 30 * time.Millisecond, 45 * time.Millisecond, 60 * time.Millisecond,
	}[i]
}

// moments are all transitions, and the loading and the profiling from end to end.
var moments = []moment{
	{
		"querying to waiting", logpb.Phase_PHASE_WAITING, false,
		func(r *rehearsal, calm course) time.Time { return r.began.Add(calm.phases[logpb.Phase_PHASE_WAITING]) }, around,
	},
	{
		"querying to loading", logpb.Phase_PHASE_LOADING, true,
		// Loads that arrive just then put the change of phase off: it comes sooner or later.
		func(r *rehearsal, _ course) time.Time { return r.began },
		func(i int, _ course) time.Duration {
			if i < crashes/2 {
				return time.Duration(i) * 4 * time.Millisecond
			}
			return time.Duration(i-crashes/2+2) * 20 * time.Millisecond
		},
	},
	{
		"waiting to loading", logpb.Phase_PHASE_LOADING, false,
		func(r *rehearsal, calm course) time.Time { return r.began.Add(calm.phases[logpb.Phase_PHASE_LOADING]) }, around,
	},
	{
		"while loading", logpb.Phase_PHASE_QUERYING, false,
		func(r *rehearsal, calm course) time.Time { return r.began.Add(calm.phases[logpb.Phase_PHASE_LOADING]) },
		func(i int, calm course) time.Duration {
			const short = 15 * time.Millisecond // one kind of model takes long, the others don't
			if i < crashes/2 {
				return time.Duration(i) * short
			}
			return time.Duration(i) * (calm.loaded - calm.phases[logpb.Phase_PHASE_LOADING]) / crashes
		},
	},
	{
		"loading to profiling", logpb.Phase_PHASE_PROFILING, false,
		func(r *rehearsal, calm course) time.Time {
			return r.began.Add(calm.phases[logpb.Phase_PHASE_PROFILING])
		}, around,
	},
	{
		"while profiling", logpb.Phase_PHASE_QUERYING, false, profilingBegins,
		func(i int, calm course) time.Duration { return time.Duration(i) * profilingTakes(calm) / crashes },
	},
	{
		"profiling to serving", logpb.Phase_PHASE_SERVING, false,
		func(r *rehearsal, calm course) time.Time { return profilingBegins(r, calm).Add(profilingTakes(calm)) }, around,
	},
}

// profilingBegins waits for the phase, so that what comes after it is foreseen
// more exactly.
func profilingBegins(r *rehearsal, _ course) time.Time {
	return r.c.untilApplied(r.leader, logpb.Phase_PHASE_PROFILING, 30*time.Second)
}

func profilingTakes(calm course) time.Duration {
	return calm.phases[logpb.Phase_PHASE_SERVING] - calm.phases[logpb.Phase_PHASE_PROFILING]
}

// TestTheLeaderCrashesAtEveryTransition has the leader die at many instants
// around each change of phase, and in between. The next one goes on: all clients
// are answered, nothing that was agreed on is done again, and what comes out is
// what comes out of a startup that nothing disturbs.
func TestTheLeaderCrashesAtEveryTransition(t *testing.T) {
	calm, want := map[bool]course{}, map[bool]endState{}
	t.Run("undisturbed", func(t *testing.T) {
		var mu sync.Mutex
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprint("early=", early), func(t *testing.T) {
				inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
					r := c.rehearse(early)
					seen := r.course()
					r.finish(controllerNames...)
					state := c.endState(follower(r.leader, controllerNames...))
					t.Logf("%+v", seen)
					mu.Lock()
					defer mu.Unlock()
					calm[early], want[early] = seen, state
				})
			})
		}
	})
	if t.Failed() {
		return
	}
	if diff := cmp.Diff(want[false], want[true]); diff != "" {
		t.Errorf("it makes a difference when the loads are asked for:\n%s", diff)
	}
	checkEndState(t, want[false])
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) { m.test(t, calm[m.early], want[false]) })
	}
}

// checkEndState checks that there is something in the state to be compared.
func checkEndState(t *testing.T, s endState) {
	t.Helper()
	loaded, failed, profiles := 0, 0, 0
	for _, m := range s.Models {
		profiles += len(m.Profiles)
		for _, h := range m.Holdings {
			if h.Error == "" {
				loaded++
			} else {
				failed++
			}
		}
	}
	// Four models at all workers, one at one; the bad one at none. Five on the
	// kinds of their workers.
	if len(s.Models) != len(crashModels) || len(s.Workers) != 3 || loaded != 4*3+1 || failed != 3 || profiles != 4*2+1 {
		t.Fatalf("%d loaded, %d failed, %d profiles: %+v", loaded, failed, profiles, s)
	}
	// The times are those of the table: in virtual time nothing comes on top.
	const ms = int64(time.Millisecond)
	measured := s.Models[slices.IndexFunc(s.Models, func(m modelState) bool { return m.Name == "beta" })].Profiles[0]
	if want := []rowsState{{1, 3 * ms}, {2, 4 * ms}}; measured.WeightsLoadP50Ns != 2*ms || !slices.Equal(measured.Execution, want) {
		t.Errorf("beta was measured as %+v", measured)
	}
}

// test has leaders die around the moment, each in a cluster of its own.
func (m moment) test(t *testing.T, calm course, want endState) {
	var mu sync.Mutex
	knew := map[string]int{}
	for i := range crashes {
		offset := m.offset(i, calm)
		t.Run(fmt.Sprintf("%02d at %v", i, offset), func(t *testing.T) {
			inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
				r := c.rehearse(m.early)
				died := c.crash(r.leader, m.at(r, calm).Add(offset))
				c.takeOver(died)
				r.finish(survivors(r.leader)...)
				// What it had on its disk and nobody else had is void.
				c.comeBack(r.leader)
				c.digestsEqual()
				for _, name := range controllerNames {
					if diff := cmp.Diff(want, c.endState(name)); diff != "" {
						t.Errorf("the end at %s is not that of an undisturbed startup (-want +got):\n%s", name, diff)
					}
				}
				died.expectNothingAgain(c)
				t.Logf("%v after the election; of %v knew %s; agreed on: %d copies, %d profiles", died.at.Sub(r.began), m.phase,
					died.news(m.phase), len(died.before.copies), len(died.before.measured))
				mu.Lock()
				defer mu.Unlock()
				knew[died.news(m.phase)]++
			})
		})
	}
	if m.phase == logpb.Phase_PHASE_QUERYING {
		return
	}
	t.Cleanup(func() { // when all have ended
		if others := knew["one other"] + knew["all"]; knew["nobody"] < 2 || others < 1 || knew["the leader alone"]+others < 3 {
			t.Errorf("the leaders did not die around the commit: when they did, of it knew %v", knew)
		}
	})
}

// takeOver waits for the next leader. When the first has died before it could
// tell anybody who is in the cluster, only it can lead again.
func (c *cluster) takeOver(died *crash) {
	c.t.Helper()
	others := survivors(died.leader)
	formed := false
	for _, name := range others {
		formed = formed || c.controllers[name].raft.Formed()
	}
	if !formed {
		c.t.Logf("nobody else knows the cluster; %s comes back", died.leader)
		c.comeBack(died.leader)
		others = controllerNames
	}
	next := c.untilOneLeads(10*time.Second, others...)
	if term := c.controllers[next].raft.Term(); term <= died.term {
		c.t.Errorf("%s leads in term %d, and the one that died led in term %d", next, term, died.term)
	}
}

// comeBack starts a controller again, unless it has come back already.
func (c *cluster) comeBack(name string) {
	c.t.Helper()
	c.mu.Lock()
	running := c.stops[name] != nil
	c.mu.Unlock()
	if !running {
		c.startController(name)
	}
}
