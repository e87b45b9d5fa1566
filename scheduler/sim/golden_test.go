package sim

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files again")

// TestAStory is a short run in full, for people to read.
func TestAStory(t *testing.T) {
	s := standard(2, 2, Workload{Name: "story", SLO: 100 * time.Millisecond, Arrivals: Trace{[]Arrival{
		{0, 0}, {us(100), 0}, {us(200), 1}, {20 * time.Millisecond, 0}, {20 * time.Millisecond, 1}, {20 * time.Millisecond, 0},
		{21 * time.Millisecond, 1}, {60 * time.Millisecond, 0}, {62 * time.Millisecond, 1},
	}}})
	s.Network.Jitter = 0
	s.Failures = []Failure{{Worker: "w1", At: us(22_500), For: 10 * time.Millisecond}}
	s.LeaderChanges = []LeaderChange{{At: us(64_500), Gap: 10 * time.Millisecond}}
	var text strings.Builder
	text.WriteString("# Two workers with a device each, two models, a network of 1 ms. w1 dies and comes back; the leader is succeeded.\n")
	s.Narrator = func(at time.Duration, line string) { fmt.Fprintf(&text, "%9.3f ms  %s\n", ms(at), line) }
	play(t, s)
	const file = "testdata/story.txt"
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text.String() {
		t.Errorf("run with -update and review if this is intended; got:\n%s", text.String())
	}
}
