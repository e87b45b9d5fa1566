package scheduler

import (
	"slices"
	"testing"
)

func TestShortestQueueForItsSpeed(t *testing.T) {
	fleet := func(speeds ...float64) *State {
		s := warm(len(speeds), 2)
		for i, speed := range speeds {
			s.Workers[i].Speed = speed
		}
		return s
	}
	cold := fleet(1, 1, 1)
	cold.Workers[0].Devices[0].Resident = []Resident{{2, 7}}
	nowhere := fleet(1, 1)
	nowhere.Workers[0].Devices[0].Resident, nowhere.Workers[1].Devices[0].Resident = nil, nil
	for _, test := range []struct {
		name  string
		state *State
		n     RequestID
		want  []string
	}{
		{"in turn, the first on a tie", fleet(1, 1), 5, []string{"w1: [1 3 5]", "w2: [2 4]"}},
		{"twice as many for twice the speed", fleet(1, 2), 6, []string{"w1: [1 4]", "w2: [2 3 5 6]"}},
		{"no speed is that of one", fleet(0, -1), 4, []string{"w1: [1 3]", "w2: [2 4]"}},
		{"only with the weights", cold, 4, []string{"w2: [1 3]", "w3: [2 4]"}},
		{"nobody has them: a load", nowhere, 2, []string{"w1: []"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests []Request
			for id := RequestID(1); id <= test.n; id++ {
				requests = append(requests, within(id, 1, 0))
			}
			if got, _ := decided("shortest_queue", test.state, requests); !slices.Equal(got, test.want) {
				t.Errorf("sent %q, want %q", got, test.want)
			}
		})
	}
}

// What a device runs counts until it has been answered.
func TestShortestQueueCountsWhatRuns(t *testing.T) {
	p := newCore(Options{NetworkLag: ms}, &shortestQueue{})
	var out Decisions
	step := func(e ...Event) (workers []string) {
		out.Reset()
		p.Step(testStart, e, &out)
		for _, a := range out.Actions {
			workers = append(workers, a.Worker)
		}
		return workers
	}
	submit := func(id RequestID) Event {
		r := within(id, 1, 0)
		return Submit{&r}
	}
	var all []string
	all = append(all, step(Start{warm(2, 1)}, submit(1))...)
	first := out.Actions[0].ID
	all = append(all, step(submit(2))...)
	all = append(all, step(Finished{&Result{Action: first, Engine: 3 * ms}}, submit(3))...)
	if want := []string{"w1", "w2", "w1"}; !slices.Equal(all, want) {
		t.Errorf("sent to %q, want %q", all, want)
	}
}
