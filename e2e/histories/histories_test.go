package histories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orrery-project/orrery/proto/controlpb"
)

// form is how much a test does.
type form struct {
	faults, operations int
	// longest is that of pauses and cuts, calm the longest time between faults.
	longest, calm time.Duration
}

func theForm() form {
	if long() {
		return form{faults: 60, operations: 10_000, longest: 5 * time.Second, calm: 1500 * time.Millisecond}
	}
	return form{faults: 10, operations: 500, longest: 1500 * time.Millisecond, calm: 500 * time.Millisecond}
}

// clients is how many work at a time.
const clients = 10

// TestControlOperationsAreLinearizable has clients change and read models and
// settings at all controllers under random faults, and looks for an order of
// the operations that explains all they were told.
func TestControlOperationsAreLinearizable(t *testing.T) {
	f, s := theForm(), seed(t)
	c := start(t, orrery)
	k := gather(t, c, s, clients, usual())
	n := newNemesis(t, k, choices(s, 1), f.longest)
	settings := k.history.settings

	k.work(t.Context(), func(ctx context.Context) {
		// Each fault once in a random order, then again in another one.
		var next []fault
		for made := 0; n.total() < f.faults || made < f.operations; made, _ = k.history.counts() {
			if len(next) == 0 {
				next = n.possible()
				n.choose.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
			}
			if err := n.strike(ctx, next[0]); err != nil {
				t.Fatal(err)
			}
			next = next[1:]
			k.look()
			// The next fault meets a cluster that works.
			if err := k.awaitAnswers(ctx, 2*clients); err != nil {
				t.Fatalf("after %s: %v", n.summary(), err)
			}
			pause(ctx, n.between(0, f.calm))
		}
	})
	worked := k.history.now()
	if err := n.heal(t.Context()); err != nil {
		t.Fatalf("after all faults: %v", err)
	}
	during := k.history.all()
	k.readAll()
	awaitAgreement(t, c)

	ops := k.history.all()
	v := check(settings, ops)
	t.Logf("%d faults in %v: %s", n.total(), worked.Round(time.Second), n.summary())
	t.Logf("%d changes of leader or term, %d processes stopped themselves", n.changes, n.revived)
	t.Logf("%d operations, %.0f a second:%s on %d names", len(during), float64(len(during))/worked.Seconds(), tellCounts(tally(during)), len(k.names.all()))
	t.Logf("%d operations checked in %v", v.checked, v.took.Round(time.Millisecond))
	if !v.linearizable() {
		keep(t, settings, ops, v)
		t.Errorf("the history is not linearizable: nothing explains %v, undecided are %v", v.unexplained, v.undecided)
	}
	for _, problem := range reusedIDs(ops) {
		t.Error(problem)
	}
	bit(t, n, during)
}

// bit fails a test whose faults or whose load were not real.
func bit(t *testing.T, n *nemesis, ops []operation) {
	t.Helper()
	least := 1
	if long() {
		least = n.total() / 4
	}
	if n.changes < least {
		t.Errorf("%d faults brought %d changes of leader: they did not bite", n.total(), n.changes)
	}
	counts, unsure := tally(ops), 0
	for _, op := range ops {
		if op.Output.Status == unknown && !op.Input.Kind.isRead() {
			unsure++
		}
	}
	t.Logf("%d changes have an unknown outcome", unsure)
	if long() && unsure == 0 || unsure > len(ops)/5 {
		t.Errorf("%d of %d operations are changes of unknown outcome: some must be, and most must not", unsure, len(ops))
	}
	if results := counts[done] + counts[refused] + counts[executed]; results < len(ops)*2/3 {
		t.Errorf("%d of %d operations were answered: the cluster was hardly there", results, len(ops))
	}
	kinds := map[kind]int{}
	for _, op := range ops {
		if op.Output.Status == done {
			kinds[op.Input.Kind]++
		}
	}
	for _, each := range []kind{load, unload, list, set, read} {
		if kinds[each] == 0 {
			t.Errorf("no %s was carried out: %v", each, kinds)
		}
	}
}

// awaitAgreement waits until all replicas, asked for what they have at hand,
// show the same, and their digests are equal.
func awaitAgreement(t *testing.T, c *cluster) {
	t.Helper()
	err := eventually(t.Context(), recoverTimeout, func() error {
		var shown []string
		for i, control := range c.controls {
			text, err := stateAt(t.Context(), control)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Controllers[i].Name, err)
			}
			shown = append(shown, text)
		}
		if len(slices.Compact(shown)) != 1 {
			return fmt.Errorf("the replicas show different states: %v", shown)
		}
		return equalDigests(t.Context(), c)
	})
	if err != nil {
		t.Errorf("after all faults: %v", err)
	}
}

// stateAt is what one replica has, for comparison.
func stateAt(ctx context.Context, control controlpb.ControlClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := control.ClusterStatus(ctx, &controlpb.ClusterStatusRequest{Stale: true})
	if err != nil {
		return "", err
	}
	models, err := control.ListModels(ctx, &controlpb.ListModelsRequest{Stale: true})
	if err != nil {
		return "", err
	}
	text := valueOf(status.Cluster.GetSettings())
	for _, m := range models.Models {
		text += fmt.Sprintf(" %d:%s:%s", m.Model.GetId(), m.Model.GetName(), m.Model.GetRequestId())
	}
	return text, nil
}

// equalDigests has all replicas compute their digests.
func equalDigests(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := c.controls[0].ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
	if err != nil {
		return err
	}
	if len(status.Replicas) != len(c.Controllers) {
		return fmt.Errorf("there are %d replicas", len(status.Replicas))
	}
	for _, r := range status.Replicas {
		if r.Digest == "" || r.Digest != status.Replicas[0].Digest {
			return errors.New("the digests differ: " + fmt.Sprint(status.Replicas))
		}
	}
	return nil
}
