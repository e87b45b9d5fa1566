package controller

import (
	"slices"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func rowsTimes(rows ...uint32) (all []*logpb.RowsTime) {
	for _, n := range rows {
		all = append(all, &logpb.RowsTime{Rows: n, P50Ns: int64(n) * 1e6, P99Ns: int64(n) * 2e6, Runs: 9})
	}
	return all
}

func rowsOf(p *logpb.Profile) (rows []uint32) {
	for _, e := range p.Execution {
		rows = append(rows, e.Rows)
	}
	return rows
}

func TestRowsThatAreMeasured(t *testing.T) {
	for most, want := range map[uint32][]uint32{
		0: {1, 2, 4, 8}, 1: {1}, 2: {1, 2}, 3: {1, 2, 4}, 8: {1, 2, 4, 8}, 99: {1, 2, 4, 8},
	} {
		m := &logpb.Model{MaxRows: most, Info: &logpb.ModelInfo{ProfileRows: []uint32{1, 2, 4, 8}}}
		if got := profileRows(m); !slices.Equal(got, want) {
			t.Errorf("with %d rows at most: %v, want %v", most, got, want)
		}
	}
	have := &logpb.Profile{Execution: rowsTimes(1, 4)}
	if got := lacking(have, []uint32{1, 2, 4, 8}); !slices.Equal(got, []uint32{2, 8}) {
		t.Errorf("lacking %v", got)
	}
	if got := lacking(nil, []uint32{1}); len(got) != 1 {
		t.Errorf("of no profile %v are lacking", got)
	}
}

func TestMergedProfiles(t *testing.T) {
	before := &logpb.Profile{WeightsLoadP50Ns: 5, WeightsLoadP99Ns: 6, Execution: rowsTimes(1, 4), OutputBytesPerRow: 64, Worker: "w1", DriftedUnixNs: 3}
	now := &logpb.Profile{Execution: []*logpb.RowsTime{{Rows: 4, P50Ns: 7}, {Rows: 8, P50Ns: 9}}, OutputBytesPerRow: 8, Worker: "w2"}
	m := merged(before, now)
	if !slices.Equal(rowsOf(m), []uint32{1, 4, 8}) || m.Execution[1].P50Ns != 7 || m.WeightsLoadP50Ns != 5 || m.WeightsLoadP99Ns != 6 ||
		m.OutputBytesPerRow != 64 || m.Worker != "w1" || m.DriftedUnixNs != 3 {
		t.Errorf("%v", m)
	}
	if len(before.Execution) != 2 || len(now.Execution) != 2 {
		t.Error("what was merged has changed")
	}
	if first := merged(nil, now); !slices.Equal(rowsOf(first), []uint32{4, 8}) {
		t.Errorf("the first one: %v", first)
	}
}

func TestDrifted(t *testing.T) {
	profile := &logpb.Profile{Execution: rowsTimes(1, 2)} // 1 and 2 ms, and twice that as the 99th percentile
	profile.Execution[0].P99Ns, profile.Execution[0].Runs = 1e6, 100
	runs := func(n int, at time.Duration) (times []int64) {
		for range n {
			times = append(times, int64(at))
		}
		return times
	}
	for name, c := range map[string]struct {
		runs []int64
		want int64
	}{
		"as before":       {runs(100, time.Millisecond), 0},
		"near enough":     {runs(100, 1090*time.Microsecond), 0},
		"slower":          {runs(100, 1200*time.Microsecond), int64(1200 * time.Microsecond)},
		"faster":          {runs(100, 800*time.Microsecond), int64(800 * time.Microsecond)},
		"too few":         {runs(refreshLeast-1, time.Second), 0},
		"a few slow":      {append(runs(60, time.Millisecond), runs(40, time.Second)...), 0},
		"none":            {nil, 0},
		"mostly slow":     {append(runs(40, time.Millisecond), runs(60, 4*time.Millisecond)...), int64(4 * time.Millisecond)},
		"just enough":     {runs(refreshLeast, 2*time.Millisecond), int64(2 * time.Millisecond)},
		"with an outlier": {append(runs(99, 2*time.Millisecond), int64(time.Second)), int64(2 * time.Millisecond)},
	} {
		got := drifted(profile, map[uint32][]int64{1: c.runs, 3: runs(100, time.Second)})
		if c.want == 0 {
			if got != nil {
				t.Errorf("%s: %v", name, got)
			}
			continue
		}
		if got == nil || got.Execution[0].P50Ns != c.want || got.Execution[0].P99Ns < c.want || got.Execution[1].P50Ns != 2e6 || len(got.Execution) != 2 {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// The 99th percentile of few runs is replaced by one of many, once.
func TestATailOfFewRunsIsReplaced(t *testing.T) {
	var runs []int64
	for range 100 {
		runs = append(runs, 1e6)
	}
	few := &logpb.Profile{Execution: []*logpb.RowsTime{{Rows: 1, P50Ns: 1e6, P99Ns: 3e6, Runs: 5}}}
	now := drifted(few, map[uint32][]int64{1: runs})
	if now == nil || now.Execution[0].P99Ns != 1e6 || now.Execution[0].Runs != 100 {
		t.Fatalf("of 5 runs: %v", now)
	}
	now.Execution[0].P99Ns = 3e6
	if again := drifted(now, map[uint32][]int64{1: runs}); again != nil {
		t.Errorf("of 100 runs: %v", again)
	}
}

func TestTheLeastDeviationIsBelieved(t *testing.T) {
	tries := []*logpb.DeviceCheck{{Ratio: 1.9}, {Ratio: 0.7}, {Ratio: 1.3}, {Ratio: 0.4}}
	if got := leastDeviating(tries); got.Ratio != 1.3 {
		t.Errorf("of %v: %v", tries, got)
	}
}

func TestASampleKeepsTheLast(t *testing.T) {
	r := ran{}
	k := ranKey{1, "cpu", 1}
	r.note(k, 0)
	r.note(ranKey{rows: 1}, time.Second)
	for i := range refreshSample + 5 {
		r.note(k, time.Duration(i+1))
	}
	c := r.clone()
	r.note(k, time.Hour)
	if got := c[k].times; len(c) != 1 || len(got) != refreshSample || slices.Max(got) != refreshSample+5 || slices.Min(got) != 6 {
		t.Errorf("%d keys, %d times from %d to %d", len(c), len(got), slices.Min(got), slices.Max(got))
	}
}

func TestInputsWithinTheDeclaredShape(t *testing.T) {
	model := &logpb.Model{Name: "m", Largest: []*logpb.TensorShape{{Name: "x", Shape: []int64{8, 3}}}, Info: &logpb.ModelInfo{Signature: &logpb.Signature{Batched: true}}}
	request := func(name string, shape ...int64) *inferencepb.ModelInferRequest {
		return &inferencepb.ModelInferRequest{Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{{Name: name, Shape: shape}}}
	}
	for _, fits := range []*inferencepb.ModelInferRequest{request("x", 99, 8, 3), request("x", 1, 1, 3), request("y", 1, 9, 9)} {
		if err := withinLargest(fits, model); err != nil {
			t.Errorf("%v: %v", fits, err)
		}
	}
	if err := withinLargest(request("x", 1, 9, 3), model); err == nil || errs.From(err).Reason != errs.Invalid {
		t.Errorf("a larger one: %v", err)
	}
}
