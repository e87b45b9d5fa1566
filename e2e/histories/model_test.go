package histories

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// kind is what an operation does.
type kind string

// The kinds.
const (
	load   kind = "load"
	unload kind = "unload"
	list   kind = "list"
	set    kind = "set"
	read   kind = "read" // of the settings
)

// isRead says whether the operation changes nothing.
func (k kind) isRead() bool { return k == list || k == read }

// input is what a client asks for.
type input struct {
	Kind kind
	// Key is the name of a model, or settingsKey. Operations on different keys
	// have nothing to do with each other.
	Key string
	// Request is the request id, which is the same in all attempts.
	Request string
	// SLO is the limit of a load that makes it differ from another one of the
	// same name, in nanoseconds.
	SLO int64
	// Value is what settings are set to: one that no other operation sets.
	Value string
}

const settingsKey = "settings"

// status is what a client may conclude from how an operation ended.
type status string

// The statuses.
const (
	// done: it took effect, and the output says with which result.
	done status = "done"
	// refused: the state did not allow it. That is a result like another.
	refused status = "refused"
	// executed: it took effect, but an error came instead of the result.
	executed status = "executed"
	// unknown: it took effect, or does so later, or never.
	unknown status = "unknown"
	// nothing: it surely took no effect. A promise: who breaks it is caught.
	nothing status = "nothing"
)

// output is what a client was told.
type output struct {
	Status status
	// ID, Creator and SLO are those of the model: its id, and the request that
	// wanted it first.
	ID      uint64
	Creator string
	SLO     int64
	// Value of the settings.
	Value string
	// Error is the text of the last error, for a person.
	Error string
}

// hasResult says whether the output tells what the operation came to.
func (o output) hasResult() bool { return o.Status == done || o.Status == refused }

// modelState is one name's part of the replicated state. It is comparable.
type modelState struct {
	wanted  bool
	creator string
	slo     int64
	// id is 0 while nobody was told the present one.
	id uint64
	// last is the largest id that was seen before the present one: ids ascend.
	last uint64
}

// sees says whether the state may be what an output shows of a model, and
// returns what is then known of it.
func (s modelState) sees(o output) (bool, modelState) {
	if !s.wanted || s.creator != o.Creator || s.slo != o.SLO {
		return false, s
	}
	return s.named(o.ID)
}

// named is sees for an output that shows an id alone.
func (s modelState) named(id uint64) (bool, modelState) {
	if !s.wanted || id <= s.last || s.id != 0 && s.id != id {
		return false, s
	}
	s.id = id
	return true, s
}

// with is the state after a load that was not refused.
func (s modelState) with(i input) modelState {
	if s.wanted {
		return s
	}
	return modelState{wanted: true, creator: i.Request, slo: i.SLO, last: s.last}
}

// without is the state after an unload.
func (s modelState) without() modelState {
	return modelState{last: max(s.last, s.id)}
}

// stepModel is what a replicated state does to one name.
func stepModel(s modelState, i input, o output) (bool, modelState) {
	conflict := s.wanted && s.slo != i.SLO
	switch i.Kind {
	case load:
		switch {
		case o.Status == refused:
			return conflict, s
		case o.Status == unknown && conflict:
			return true, s
		case o.Status == unknown:
			return true, s.with(i)
		case conflict:
			return false, s
		case o.Status == executed:
			return true, s.with(i)
		}
		return s.with(i).sees(o)
	case unload:
		switch o.Status {
		case refused:
			return !s.wanted, s
		case done:
			ok, s := s.named(o.ID)
			return ok, s.without()
		case executed:
			return s.wanted, s.without()
		}
		return true, s.without()
	case list:
		if o.Status == refused {
			return !s.wanted, s
		}
		return s.sees(o)
	}
	panic(fmt.Sprintf("no model does %q", i.Kind))
}

// stepSettings is what a replicated state does to the settings.
func stepSettings(s string, i input, o output) (bool, string) {
	switch i.Kind {
	case set:
		return o.Status != refused && (o.Status != done || o.Value == i.Value), i.Value
	case read:
		return s == o.Value, s
	}
	panic(fmt.Sprintf("settings have no %q", i.Kind))
}

// model is the sequential cluster that histories are compared with.
func model(settings string) porcupine.Model {
	return porcupine.Model{
		Partition: partition,
		Init:      func() any { return nil },
		Step: func(state, in, out any) (bool, any) {
			i, o := in.(input), out.(output)
			if i.Key == settingsKey {
				s, ok := state.(string)
				if !ok {
					s = settings
				}
				return stepSettings(s, i, o)
			}
			s, _ := state.(modelState)
			return stepModel(s, i, o)
		},
		DescribeOperation: func(in, out any) string { return describe(in.(input), out.(output)) },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}

// partition splits a history by key, in the order of the keys.
func partition(history []porcupine.Operation) [][]porcupine.Operation {
	byKey := map[string][]porcupine.Operation{}
	for _, op := range history {
		key := op.Input.(input).Key
		byKey[key] = append(byKey[key], op)
	}
	parts := make([][]porcupine.Operation, 0, len(byKey))
	for _, ops := range byKey {
		parts = append(parts, ops)
	}
	slices.SortFunc(parts, func(a, b []porcupine.Operation) int {
		return cmp.Compare(a[0].Input.(input).Key, b[0].Input.(input).Key)
	})
	return parts
}

// describe is an operation for a person.
func describe(i input, o output) string {
	text := fmt.Sprintf("%s %s", i.Kind, i.Key)
	switch i.Kind {
	case load:
		text += fmt.Sprintf(" slo=%d as %s", i.SLO, i.Request)
	case set:
		text += fmt.Sprintf(" to %s", i.Value)
	}
	text += fmt.Sprintf(" -> %s", o.Status)
	switch {
	case o.Status != done:
		return text + ": " + o.Error
	case i.Kind == load || i.Kind == list:
		return text + fmt.Sprintf(" id=%d slo=%d of %s", o.ID, o.SLO, o.Creator)
	case i.Kind == unload:
		return text + fmt.Sprintf(" id=%d", o.ID)
	}
	return text + " " + o.Value
}
