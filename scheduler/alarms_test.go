package scheduler

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Alarms are what a map from each to its instant is.
func TestAlarmsAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h alarms
		all := make([]alarm, rapid.IntRange(1, 40).Draw(t, "alarms"))
		set := make(map[*alarm]Instant)
		check := func() {
			if len(h) != len(set) {
				t.Fatalf("%d alarms are set, want %d", len(h), len(set))
			}
			var first Instant
			for a, at := range set { // order: the least of all
				if a.at != at || h[a.index] != (ringing{at, a}) {
					t.Fatalf("an alarm of %d is noted as %d, at %d of %v", at, a.at, a.index, h)
				}
				if first == 0 || at < first {
					first = at
				}
			}
			if got := h.first(); got != first {
				t.Fatalf("the first is at %d, want %d", got, first)
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "operations") {
			a := &all[rapid.IntRange(0, len(all)-1).Draw(t, "alarm")]
			at := Instant(rapid.IntRange(0, 20).Draw(t, "at"))
			h.set(a, at)
			if set[a] = at; at == 0 {
				delete(set, a)
			}
			check()
		}
		// They ring in order.
		var rung []Instant
		for len(h) > 0 {
			rung = append(rung, h.first())
			delete(set, h[0].alarm)
			h.set(h[0].alarm, 0)
			check()
		}
		if !slices.IsSorted(rung) {
			t.Fatalf("they ring at %v", rung)
		}
	})
}

// A bitset is a map of numbers, and both is what is in two of them.
func TestBitsetIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sets [2]bitset
		models := [2]map[int]bool{{}, {}}
		number := rapid.IntRange(0, 200)
		for range rapid.IntRange(0, 200).Draw(t, "operations") {
			of := rapid.IntRange(0, 1).Draw(t, "set")
			i, in := number.Draw(t, "number"), rapid.IntRange(0, 2).Draw(t, "in") > 0
			sets[of].put(i, in)
			models[of][i] = in
		}
		var want []int
		for i := range 300 {
			for of, s := range sets {
				if s.has(i) != models[of][i] {
					t.Fatalf("%d is in the set: %v", i, s.has(i))
				}
			}
			if models[0][i] && models[1][i] {
				want = append(want, i)
			}
		}
		most := rapid.IntRange(1, 200).Draw(t, "most")
		want = want[:min(most, len(want))]
		var got []int
		both(sets[0], sets[1], func(i int) (stop bool) {
			got = append(got, i)
			return len(got) == most
		})
		if !slices.Equal(got, want) {
			t.Fatalf("in both are %v, want %v", got, want)
		}
	})
}
