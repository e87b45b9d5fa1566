package workerd

import (
	"testing"

	"pgregory.net/rapid"
)

// Whatever is taken and released, every page is either free or has one owner.
func TestPagesAreNeverLeakedOrGivenTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(1, 20).Draw(t, "pages")
		c := newPageCache(16, total)
		owned := make(map[uint64]int)
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				id := rapid.Uint64Range(1, 6).Draw(t, "model")
				bytes := rapid.Int64Range(0, 200).Draw(t, "bytes")
				need, used := max(1, int((bytes+15)/16)), 0
				for _, n := range owned {
					used += n
				}
				_, has := owned[id]
				if got, want := c.take(id, bytes, loading), !has && used+need <= total; got != want {
					t.Fatalf("take(%d, %d) = %v with %v of %d owned", id, bytes, got, owned, total)
				} else if got {
					owned[id] = need
				}
			},
			"release": func(t *rapid.T) {
				id := rapid.Uint64Range(1, 6).Draw(t, "model")
				c.release(id)
				delete(owned, id)
			},
			"": func(t *rapid.T) {
				used := 0
				for id, n := range owned {
					used += n
					if s := c.held[id]; s == nil || s.pages != n {
						t.Fatalf("model %d has %+v, want %d pages", id, s, n)
					}
				}
				if c.free != total-used || len(c.held) != len(owned) {
					t.Fatalf("%d free and %d owners, want %d and %d", c.free, len(c.held), total-used, len(owned))
				}
			},
		})
	})
}
