package scheduler

import (
	"slices"
	"testing"
	"time"
)

// Batches of 1, 2, 4, 8 and 16 take 2.73, 4.05, 5.88, 9.93 and 17.33 ms.
func TestClockworkTakesTheEarliestLatestStart(t *testing.T) {
	many := func(model ModelID, first RequestID, n int, d time.Duration) (all []Request) {
		for i := range n {
			all = append(all, within(first+RequestID(i), model, d))
		}
		return all
	}
	long := warm(1, 2)
	long.Profiles[0].Execution = []RowsTime{{1, 3 * ms}, {2, 26 * ms}}
	gap := warm(1, 2)
	gap.Profiles[0].Execution = []RowsTime{{4, 8 * ms}, {16, 20 * ms}}
	alone := warm(1, 2)
	alone.Models[0].Batched = false
	for _, test := range []struct {
		name     string
		state    *State
		requests []Request
		want     string
	}{
		{"only profiled sizes", warm(1, 2), many(1, 1, 7, 90*ms), "w1: [1 2 3 4]"},
		{"the largest first", warm(1, 2), many(1, 1, 17, 90*ms), "w1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]"},
		{"a larger batch starts before a more urgent one", warm(1, 2),
			append(many(1, 1, 8, 55*ms), within(10, 2, 50*ms)), "w1: [1 2 3 4 5 6 7 8]"},
		{"not when that can wait", warm(1, 2),
			append(many(1, 1, 8, 60*ms), within(10, 2, 50*ms)), "w1: [10]"},
		{"a batch leaves out who is not in time for it", warm(1, 2),
			append(many(1, 2, 4, 90*ms), within(1, 1, 11*ms)), "w1: [2 3 4 5]"},
		{"five milliseconds before the deadline", warm(1, 2),
			[]Request{within(1, 1, 8730*ms/1000-1), within(2, 2, 8730*ms/1000)}, "w1: [2]"},
		{"none of more than 25 ms", long, many(1, 1, 2, 90*ms), "w1: [1]"},
		{"one, although the profile begins at more", gap, many(1, 1, 3, 90*ms), "w1: [1]"},
		{"one, of a model without batches", alone, many(1, 1, 3, 90*ms), "w1: [1]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _ := decided("clockwork", test.state, test.requests)
			if len(got) == 0 || got[0] != test.want {
				t.Errorf("sent %q, want %q first", got, test.want)
			}
		})
	}
}

// One that is not in time with its several rows must not stop those behind it.
func TestClockworkPassesOverSeveralRowsTooLate(t *testing.T) {
	wide := within(1, 1, 20*ms)
	wide.Rows = 16
	if got, _ := decided("clockwork", warm(1, 1), []Request{wide, within(2, 1, 0)}); !slices.Equal(got, []string{"w1: [2]"}) {
		t.Errorf("sent %q", got)
	}
}

// Requests of several rows need not add up to a size.
func TestClockworkRunsRequestsOfSeveralRows(t *testing.T) {
	var requests []Request
	for id := RequestID(1); id <= 6; id++ {
		r := within(id, 1, 90*ms)
		r.Rows = 3
		requests = append(requests, r)
	}
	for n, want := range map[int]string{1: "w1: [1]", 3: "w1: [1 2]", 6: "w1: [1 2 3 4 5]"} {
		if got, _ := decided("clockwork", warm(1, 1), requests[:n]); !slices.Equal(got[:1], []string{want}) {
			t.Errorf("of %d requests sent %q, want %q first", n, got, want)
		}
	}
}
