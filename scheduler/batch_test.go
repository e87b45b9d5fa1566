package scheduler

import (
	"slices"
	"testing"
	"time"
)

// ranked is edf with the ranks that a test says.
type ranked struct {
	edf
	rank map[RequestID]uint8
}

func (s *ranked) admit(p *core, r *request) (Completion, bool) {
	r.rank = s.rank[r.ID]
	return Completion{}, true
}

// Executing n rows takes n+1 ms, the way no time.
func TestFillTakesFromQueuesOfSeveralRanks(t *testing.T) {
	type submitted struct {
		id    RequestID
		rank  uint8
		by    time.Duration // 0: best effort
		class string
		rows  int // 0: 1
	}
	for _, test := range []struct {
		name      string
		waiting   []submitted
		unbatched bool
		most      int
		want      []RequestID
	}{
		{"the rank goes before the deadline", []submitted{
			{id: 1, rank: 2, by: 20 * ms}, {id: 2, rank: 1, by: 90 * ms}, {id: 3, rank: 1, by: 80 * ms},
		}, false, 2, []RequestID{3, 2}},
		{"lower ranks fill up, the next one first", []submitted{
			{id: 1, rank: 3, by: 50 * ms}, {id: 2, rank: 2, by: 60 * ms}, {id: 3, rank: 1, by: 70 * ms}, {id: 4, rank: 2},
		}, false, 8, []RequestID{3, 2, 4, 1}},
		{"another class does not", []submitted{
			{id: 1, rank: 1, by: 50 * ms, class: "a"}, {id: 2, rank: 2, by: 50 * ms, class: "b"}, {id: 3, rank: 3, by: 50 * ms, class: "a"},
		}, false, 8, []RequestID{1, 3}},
		{"from four queues at most", []submitted{
			{id: 1, rank: 1}, {id: 2, rank: 2}, {id: 3, rank: 3}, {id: 4, rank: 4}, {id: 5, rank: 5},
		}, false, 8, []RequestID{1, 2, 3, 4}},
		{"no more rows than asked for", []submitted{
			{id: 1, rank: 1, rows: 2}, {id: 2, rank: 2, rows: 3}, {id: 3, rank: 3},
		}, false, 4, []RequestID{1}},
		{"what would be too late with so many rows is left out", []submitted{
			{id: 1, rank: 1}, {id: 2, rank: 1}, {id: 3, rank: 2, by: 3 * ms}, {id: 4, rank: 2, by: 4 * ms},
		}, false, 8, []RequestID{1, 2, 4}},
		{"nor does a lower rank make a higher one late", []submitted{
			{id: 1, rank: 1, by: 3 * ms}, {id: 2, rank: 2, by: 90 * ms}, {id: 3, rank: 2, by: 90 * ms},
		}, false, 8, []RequestID{1, 2}},
		{"without a batch dimension one is all", []submitted{
			{id: 1, rank: 1}, {id: 2, rank: 2},
		}, true, 8, []RequestID{1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &ranked{rank: make(map[RequestID]uint8)}
			p := newCore(Options{}, s)
			p.options.NetworkLag = 0
			state := resnets(1, 1, 100)
			state.Models[0].MaxRows, state.Models[0].Batched = 8, !test.unbatched
			state.Profiles[0].Execution = []RowsTime{{1, 2 * ms}, {8, 9 * ms}}
			state.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
			out := &Decisions{}
			p.Step(0, []Event{Start{state}}, out)
			p.devices[0].trying = true // so that all wait
			p.touch(p.devices[0])
			var events []Event
			for _, r := range test.waiting {
				s.rank[r.id] = r.rank
				events = append(events, Submit{&Request{ID: r.id, Model: 1, Rows: max(1, r.rows), Class: r.class, Deadline: Instant(r.by)}})
			}
			p.Step(0, events, out)
			m, pl := p.models[1], p.devices[0].byModel[1]
			first := slices.MinFunc(m.queues, func(a, b *queue) int { return int(a.rank) - int(b.rank) })
			b := p.fill(pl, first, p.firstTimed(pl, first), test.most)
			var got []RequestID
			rows := 0
			for _, part := range b.parts[:b.used] {
				for _, r := range slices.Concat(part.queue.timed[part.from:part.from+part.timed], part.queue.loose[:part.loose]) {
					got = append(got, r.ID)
					rows += r.rows
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("the batch is of %v, want %v", got, test.want)
			}
			if want := time.Duration(rows+1) * ms; b.rows != rows || b.count() != len(got) || b.expected != want {
				t.Errorf("it is said to be of %d requests and %d rows and to take %v: %d rows take %v", b.count(), b.rows, b.expected, rows, want)
			}
			// Sent, they wait no longer, and the others do.
			before := m.waiting
			p.out = out
			p.send(pl, &b)
			if left := before - len(got); m.waiting != left || !slices.Equal(out.Actions[0].Requests, got) {
				t.Errorf("%d wait, want %d; %v was sent", m.waiting, left, out.Actions[0].Requests)
			}
		})
	}
}
