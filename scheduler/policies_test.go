package scheduler

import (
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
