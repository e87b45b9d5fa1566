package configs

import (
	"fmt"
	"reflect"
	"strings"
)

// Changes lists, in the order of the documents, the keys in which two configurations differ.
type Changes struct {
	Live    []string // may change while running
	Restart []string // take effect only with a restart
}

// Err returns nil if no key needs a restart, else what an operator has to know about those that do.
func (c Changes) Err() error {
	if len(c.Restart) == 0 {
		return nil
	}
	return fmt.Errorf("not applied: %s; restart for the new values, or put back the old ones", strings.Join(c.Restart, ", "))
}

// Reload returns the configuration to run with from now on, which has the live keys of next and the rest of c, and how
// next differs from c. The error is [Problems] if the two halves don't go together; then nothing is to be applied.
// Neither c nor next is changed.
func (c *Controller) Reload(next *Controller) (*Controller, Changes, error) {
	merged := *c
	changes := merge(&merged, next)
	if err := merged.Validate(); err != nil {
		return nil, changes, err
	}
	return &merged, changes, nil
}

// Reload does for a worker what [Controller.Reload] does for a controller.
func (w *Worker) Reload(next *Worker) (*Worker, Changes, error) {
	merged := *w
	changes := merge(&merged, next)
	if err := merged.Validate(); err != nil {
		return nil, changes, err
	}
	return &merged, changes, nil
}

// merge takes over the live keys of next, a document of the same kind.
func merge(into, next document) Changes {
	var changes Changes
	theirs := keysOf(next)
	for i, k := range keysOf(into) {
		switch theirs := theirs[i].value; {
		case k.section || same(k.value, theirs):
		case k.live:
			k.value.Set(theirs)
			changes.Live = append(changes.Live, k.path)
		default:
			changes.Restart = append(changes.Restart, k.path)
		}
	}
	return changes
}

// same is equality for which an empty list is the same as none.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice || a.Kind() == reflect.Map {
		if a.Len() == 0 && b.Len() == 0 {
			return true
		}
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
