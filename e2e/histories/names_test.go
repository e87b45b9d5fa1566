package histories

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/orrery-project/orrery/proto/logpb"
)

// names are the model names that are in use: few, so that clients meet, and
// never for long. A name's operations of unknown outcome stay concurrent with
// all that follows, so that the search for an order grows with their number;
// with fresh names it does not.
type names struct {
	// lives is how many operations a name is used for.
	lives int

	mu    sync.Mutex
	slots []slot
	used  []string
}

// slot is one name in use.
type slot struct{ generation, operations int }

// loadedSlots is how many of the names are of models that the worker really
// loads. Nobody loads the others, so that an answer waits for the log alone.
const loadedSlots = 2

func newNames(slots, lives int) *names {
	return &names{lives: lives, slots: make([]slot, slots)}
}

// choose is the name for one more operation.
func (n *names) choose(choose *rand.Rand) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := choose.IntN(len(n.slots))
	s := &n.slots[at]
	if s.operations++; s.operations > n.lives {
		*s = slot{generation: s.generation + 1, operations: 1}
	}
	kind := "wanted"
	if at < loadedSlots {
		kind = "loaded"
	}
	name := fmt.Sprintf("%s%d-%d", kind, at, s.generation)
	if s.operations == 1 {
		n.used = append(n.used, name)
	}
	return name
}

// all are the names that have ever been in use.
func (n *names) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string{}, n.used...)
}

// placed is how a model of this name is wanted: where its file is, and on which
// workers.
func placed(name string) *logpb.LoadModel {
	m := &logpb.LoadModel{Source: "profiles.csv#resnet18_v2"}
	if name[0] == 'w' {
		m.Constraints = []*logpb.Label{{Key: "place", Value: "nowhere"}}
	}
	return m
}
