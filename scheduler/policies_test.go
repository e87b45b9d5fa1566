package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
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

// warm is a fleet of workers with one device each, on which the weights of all n
// models are.
func warm(workers, n int) *State {
	s := resnets(workers, n, 7*n)
	for i := range s.Workers {
		for _, m := range s.Models {
			s.Workers[i].Devices[0].Resident = append(s.Workers[i].Devices[0].Resident, Resident{m.ID, 7})
		}
	}
	return s
}

// within is a request with so long to its deadline from the start of a test; 0:
// for ever.
func within(id RequestID, model ModelID, d time.Duration) Request {
	r := Request{ID: id, Model: model, Rows: 1, Arrived: testStart}
	if d != 0 {
		r.Deadline = testStart.Add(d)
	}
	return r
}

const testStart = Instant(time.Hour)

// decided is which batches a policy sends first, "worker: requests", when it is
// given all requests at once, and when it wants to be woken. The network takes a
// millisecond.
func decided(name string, s *State, requests []Request) (batches []string, wake time.Duration) {
	options := Options{NetworkLag: ms, Seed: 1}
	p := newCore(options, strategies()[name](options))
	events := []Event{Start{s}}
	for i := range requests {
		events = append(events, Submit{&requests[i]})
	}
	var out Decisions
	p.Step(testStart, events, &out)
	for _, a := range out.Actions {
		batches = append(batches, fmt.Sprint(a.Worker, ": ", a.Requests))
	}
	return batches, out.Wake.Sub(testStart)
}
