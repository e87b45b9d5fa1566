package histories

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is one operation of a client, however many attempts it took.
type operation struct {
	Client int
	Input  input
	Output output
	// Call and Return are when it began and ended, since the history began.
	Call, Return time.Duration
	// Attempts says what became of each, for a person.
	Attempts []string
}

// history is what all clients saw. Its methods may be called from any
// goroutine.
type history struct {
	began time.Time
	// settings are those that the cluster had before.
	settings string

	mu      sync.Mutex
	ops     []operation
	results int
}

func newHistory(settings string) *history {
	return &history{began: time.Now(), settings: settings}
}

// now is the time since the history began.
func (h *history) now() time.Duration { return time.Since(h.began) }

func (h *history) add(op operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
	if op.Output.hasResult() {
		h.results++
	}
}

// counts are how many operations there are so far, and how many of them have a
// result.
func (h *history) counts() (operations, results int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops), h.results
}

// all are the operations so far.
func (h *history) all() []operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ops)
}

// tally counts operations by status.
func tally(ops []operation) map[status]int {
	counts := map[status]int{}
	for _, op := range ops {
		counts[op.Output.Status]++
	}
	return counts
}

// checkable are the operations that say something of the order of others, as
// the checker wants them. Those without an effect are left out: were one of
// them executed all the same, nothing would explain what others saw. A read
// without an answer says nothing. An unknown outcome returns at infinity.
//
// Of settings, whose values are unique, more is known: a value that somebody
// has read was set before that read's end, and one that nobody has read makes
// no difference. This leaves the verdict as it is, and keeps the checker from
// trying each of them everywhere.
func checkable(ops []operation) []porcupine.Operation {
	seen := map[string]time.Duration{}
	for _, op := range ops {
		if op.Input.Kind == read && op.Output.Status == done {
			if first, ok := seen[op.Output.Value]; !ok || op.Return < first {
				seen[op.Output.Value] = op.Return
			}
		}
	}
	var history []porcupine.Operation
	for _, op := range ops {
		end := op.Return
		switch {
		case op.Output.Status == nothing, op.Input.Kind.isRead() && op.Output.Status == unknown:
			continue
		case op.Output.Status == unknown:
			end = math.MaxInt64
			if op.Input.Kind == set {
				first, ok := seen[op.Input.Value]
				if !ok {
					continue
				}
				end = max(first, op.Call)
			}
		}
		history = append(history, porcupine.Operation{
			ClientId: op.Client, Input: op.Input, Output: op.Output, Call: int64(op.Call), Return: int64(end),
			Metadata: fmt.Sprint(op.Attempts),
		})
	}
	return history
}

// checkLimit bounds the search for an order of the operations on one key.
// Histories like ours take milliseconds.
const checkLimit = time.Minute

// verdict is what the checker says of a history.
type verdict struct {
	// unexplained are the keys whose operations no order explains, undecided
	// those for which the search took too long.
	unexplained, undecided []string
	checked                int // operations
	took                   time.Duration
}

// linearizable says whether there is an order that explains all.
func (v verdict) linearizable() bool { return len(v.unexplained)+len(v.undecided) == 0 }

// check looks for an order that explains the operations.
func check(settings string, ops []operation) (v verdict) {
	began := time.Now()
	for _, part := range partition(checkable(ops)) {
		key := part[0].Input.(input).Key
		switch porcupine.CheckOperationsTimeout(model(settings), part, checkLimit) {
		case porcupine.Illegal:
			v.unexplained = append(v.unexplained, key)
		case porcupine.Unknown:
			v.undecided = append(v.undecided, key)
		}
		v.checked += len(part)
	}
	v.took = time.Since(began)
	return v
}

// reusedIDs names ids that were shown for two models, and models that were
// shown with two ids: what no look at one name alone can find.
func reusedIDs(ops []operation) (problems []string) {
	type identity struct{ name, creator string }
	owners, ids := map[uint64]identity{}, map[identity]uint64{}
	for _, op := range ops {
		o := op.Output
		if o.Status != done || o.Creator == "" {
			continue
		}
		who := identity{op.Input.Key, o.Creator}
		if owner, ok := owners[o.ID]; ok && owner != who {
			problems = append(problems, fmt.Sprintf("id %d is shown for %v and for %v", o.ID, owner, who))
		}
		if id, ok := ids[who]; ok && id != o.ID {
			problems = append(problems, fmt.Sprintf("%v is shown with the ids %d and %d", who, id, o.ID))
		}
		owners[o.ID], ids[who] = who, o.ID
	}
	return problems
}

// keep writes a history, and a picture of the operations on each key that no
// order explains, among the test's artifacts.
func keep(t *testing.T, settings string, ops []operation, v verdict) {
	t.Helper()
	path := filepath.Join(t.ArtifactDir(), "history.jsonl")
	if err := writeHistory(path, ops); err != nil {
		t.Logf("keep the history: %v", err)
	}
	t.Logf("the history is in %s (go test -artifacts keeps it)", path)
	for _, part := range partition(checkable(ops)) {
		key := part[0].Input.(input).Key
		if !slices.Contains(v.unexplained, key) {
			continue
		}
		m := model(settings)
		_, info := porcupine.CheckOperationsVerbose(m, part, checkLimit)
		page := filepath.Join(t.ArtifactDir(), key+".html")
		if err := porcupine.VisualizePath(m, info, page); err != nil {
			t.Logf("draw the history of %s: %v", key, err)
		}
		logUnexplained(t, settings, key, ops)
	}
}

// writeHistory writes an operation a line, in the order of their calls.
func writeHistory(path string, ops []operation) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b operation) int { return int(a.Call - b.Call) })
	encoder := json.NewEncoder(file)
	for _, op := range ops {
		if err := encoder.Encode(op); err != nil {
			return err
		}
	}
	return file.Close()
}

// tellCounts is a tally in a fixed order.
func tellCounts(counts map[status]int) string {
	text := ""
	for _, s := range slices.Sorted(maps.Keys(counts)) {
		text += fmt.Sprintf(" %d %s,", counts[s], s)
	}
	return text
}

// logUnexplained shows the operations on a key up to the first answer that no
// order explains any more.
func logUnexplained(t *testing.T, settings, key string, ops []operation) {
	t.Helper()
	const most = 25
	var mine []operation
	for _, op := range ops {
		if op.Input.Key == key {
			mine = append(mine, op)
		}
	}
	slices.SortStableFunc(mine, func(a, b operation) int { return cmp.Compare(a.Return, b.Return) })
	fatal := sort.Search(len(mine)-1, func(i int) bool { return !check(settings, until(mine, mine[i].Return)).linearizable() })
	t.Logf("no order explains the operations on %s any more with the last one of these, in the order of their ends:", key)
	show := func(op operation) {
		t.Logf("%12v to %12v, client %2d: %s", op.Call.Round(time.Microsecond), op.Return.Round(time.Microsecond), op.Client, describe(op.Input, op.Output))
	}
	for _, op := range mine[max(0, fatal+1-most) : fatal+1] {
		show(op)
	}
	t.Log("these were under way:")
	for _, op := range mine[fatal+1:] {
		if op.Call <= mine[fatal].Return {
			show(op)
		}
	}
}

// until is a history as it was known at some time: what had not returned may
// have had its effect, or not.
func until(ops []operation, at time.Duration) (known []operation) {
	for _, op := range ops {
		switch {
		case op.Call > at:
			continue
		case op.Return > at && op.Output.Status != nothing:
			op.Output = output{Status: unknown}
		}
		known = append(known, op)
	}
	return known
}
