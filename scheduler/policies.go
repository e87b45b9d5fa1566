package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultPolicy is the name of the policy that is used when none is named.
const DefaultPolicy = "edf"

// Options are the settings that policies share. Zero values mean the policy's
// defaults.
type Options struct {
	// ScheduleAhead is how much expected work a device is given in advance.
	ScheduleAhead time.Duration
	// NetworkLag is set aside for the way to a worker and back.
	NetworkLag time.Duration
	// ResultGrace is how much later than expected a result may be before its
	// requests go elsewhere.
	ResultGrace time.Duration
	// Seed is what a policy that draws lots draws them from.
	Seed uint64
}

// makers are the policies by name.
func makers() map[string]func(Options) Policy {
	return map[string]func(Options) Policy{
		"edf": func(o Options) Policy {
			return NewEDF(EDFOptions{ScheduleAhead: o.ScheduleAhead, NetworkLag: o.NetworkLag, ResultGrace: o.ResultGrace})
		},
	}
}

// Policies are the names of all policies, sorted.
func Policies() (names []string) {
	// order: sorted below.
	for name := range makers() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// New makes the policy of that name, which waits for Start. An empty name is
// DefaultPolicy's.
func New(name string, options Options) (Policy, error) {
	if name == "" {
		name = DefaultPolicy
	}
	maker := makers()[name]
	if maker == nil {
		return nil, fmt.Errorf("there is no scheduling policy %q; the policies are %s", name, strings.Join(Policies(), ", "))
	}
	return maker(options), nil
}
