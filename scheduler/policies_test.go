package scheduler

import (
	"cmp"
	"slices"
	"strings"
	"testing"
)

func TestPoliciesByName(t *testing.T) {
	names := Policies()
	if !slices.Contains(names, DefaultPolicy) {
		t.Errorf("the default %q is not among %q", DefaultPolicy, names)
	}
	for _, name := range append(names, "") {
		p, err := New(name, Options{})
		if err != nil || p == nil {
			t.Errorf("policy %q: %v", name, err)
			continue
		}
		var out Decisions
		p.Step(1, []Event{Start{&State{}}}, &out)
	}
}

func TestAnUnknownPolicyNamesTheKnown(t *testing.T) {
	_, err := New("efd", Options{})
	if err == nil || !strings.Contains(err.Error(), `"efd"`) || !strings.Contains(err.Error(), strings.Join(Policies(), ", ")) {
		t.Errorf("%v", err)
	}
}

// newNamed is the policy of that name, whose books a test may look at, told of a
// network of a millisecond.
func newNamed(name string, options Options) *core {
	options.NetworkLag = cmp.Or(options.NetworkLag, ms)
	return newCore(options, strategies()[name](options))
}

func newEDF(options Options) *core    { return newNamed("edf", options) }
func newOrrery(options Options) *core { return newNamed("orrery", options) }
