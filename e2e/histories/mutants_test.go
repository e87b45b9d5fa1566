package histories

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mutant is a build of Orrery that is broken on purpose: one exact change of
// one source file, which is made in a copy.
type mutant struct {
	name     string
	file     string // from the root of the source
	old, new string
	// longOnly says that it is left to the long form.
	longOnly bool
	// habits of the clients and faults that bring the defect to light.
	habits habits
	faults []string
	// shortest is that of pauses and cuts.
	shortest time.Duration
}

// mutants are the broken builds that must be caught.
func mutants() []mutant {
	forgetful := usual()
	forgetful.losing = 0.3
	patient := usual()
	patient.patience = []time.Duration{5 * time.Second}
	// The settings are left to those who look after them.
	elsewhere := usual()
	elsewhere.kinds = []kind{load, unload, list}
	return []mutant{
		{
			name: "a retry is applied again",
			file: "fsm/apply.go",
			old:  "if first := s.requests.first(id); first != nil {",
			new:  "if first := s.requests.first(id); first != nil && false {",
			// Clients that ask again for what they have got.
			habits: forgetful,
		},
		{
			name:   "a read does not ask the leader",
			file:   "controller/read.go",
			old:    "func (c *Controller) current(ctx context.Context) error {\n	for {",
			new:    "func (c *Controller) current(ctx context.Context) error {\n	if ctx != nil {\n		return nil\n	}\n	for {",
			habits: usual(),
		},
		{
			name: "settings are acknowledged before they are committed",
			file: "controller/commit.go",
			old:  "	result, _, err := c.options.Consensus.Apply(ctx, entry)\n",
			new: `	if cmd.GetSetSettings() != nil {
		early, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		ctx = early
	}
	result, _, err := c.options.Consensus.Apply(ctx, entry)
	if err != nil && cmd.GetSetSettings() != nil && !errors.Is(err, errs.NotLeader) {
		return &logpb.Result{}, nil
	}
`,
			habits:   elsewhere,
			shortest: 100 * time.Millisecond,
			faults:   []string{"the leader is left alone and dies", "the leader is cut off from its peers"},
		},
		{
			name:     "a leader does not make sure that it still leads",
			file:     "controller/read.go",
			old:      "return answer, t.verify(ctx)",
			new:      "return answer, nil",
			longOnly: true,
			habits:   patient,
			faults:   []string{"the leader is paused"},
			// Until another one leads, and has changed something.
			shortest: 1500 * time.Millisecond,
		},
	}
}

// change returns the path and the changed text of the source file. A change that
// does not fit the source any more fails the test: it would test nothing.
func (m mutant) change(t *testing.T) (path, text string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(source, m.file))
	if err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if count := strings.Count(string(original), m.old); count != 1 {
		t.Fatalf("%s has %d places, not one, that read\n%s\nlet the mutant %q follow the code", m.file, count, m.old, m.name)
	}
	return path, strings.Replace(string(original), m.old, m.new, 1)
}

// build builds the mutant.
func (m mutant) build(t *testing.T) string {
	t.Helper()
	path, text := m.change(t)
	dir := t.TempDir()
	changed, overlay, binary := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "orrery")
	replacement, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		changed: []byte(text), overlay: replacement,
	} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := build(binary, "-overlay", overlay); err != nil {
		t.Fatalf("the mutant %q does not build: %v", m.name, err)
	}
	t.Logf("built in %v", time.Since(began).Round(time.Millisecond))
	return binary
}

// TestBrokenBuildsAreCaught runs the same clients and the same checker against
// broken builds. A checker that accepts one of them proves nothing of others.
func TestBrokenBuildsAreCaught(t *testing.T) {
	for _, m := range mutants() {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			m.change(t)
			if m.longOnly && !long() {
				t.Skip("left to the long form")
			}
			m.catch(t)
		})
	}
}

// catchTimeout is how long a mutant may go on unnoticed. Most are caught within
// seconds; one that is wrong only in the instant in which a leader wakes up has
// taken a minute.
const catchTimeout = 5 * time.Minute

// catch lets clients work with the mutant, in rounds, until the checker says
// that what they saw can't be.
func (m mutant) catch(t *testing.T) {
	s := seed(t)
	c := start(t, m.build(t))
	k := gather(t, c, s, clients, m.habits)
	n := newNemesis(t, k, choices(s, 1), 2500*time.Millisecond)
	n.shortest = m.shortest
	began := time.Now()
	for round := 1; time.Since(began) < catchTimeout; round++ {
		k.work(t.Context(), func(ctx context.Context) {
			m.round(t, ctx, k, n)
		})
		ops := k.history.all()
		if v := check(k.history.settings, ops); len(v.unexplained) > 0 {
			t.Logf("caught in round %d, after %v and %d operations: nothing explains %v", round,
				time.Since(began).Round(time.Millisecond), len(ops), v.unexplained)
			return
		}
	}
	operations, _ := k.history.counts()
	t.Errorf("the checker accepted a broken build, in which %s, after %v, %d operations and %s",
		m.name, catchTimeout, operations, fmt.Sprint(n.struck))
}

// round is one round of work: one of the mutant's faults, and some operations
// before and after it.
func (m mutant) round(t *testing.T, ctx context.Context, k *crowd, n *nemesis) {
	t.Helper()
	enough := 10 * clients
	if len(m.faults) > 0 {
		enough = 2 * clients
		if err := k.awaitAnswers(ctx, enough); err != nil {
			t.Fatal(err)
		}
		all := n.possible(m.faults...)
		if err := n.strike(ctx, all[n.choose.IntN(len(all))]); err != nil {
			t.Fatal(err)
		}
		k.look()
	}
	if err := k.awaitAnswers(ctx, enough); err != nil {
		t.Fatal(err)
	}
}
