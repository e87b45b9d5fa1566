package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultPolicy is the name of the policy that is used when none is named.
const DefaultPolicy = "orrery"

// Options are the settings that policies share. Zero values mean the defaults.
type Options struct {
	// ScheduleAhead: a device is given a batch this long before it is expected to
	// have finished all others, or what the way to the worker and back takes, if that
	// is longer: else the device has nothing to do meanwhile. Default 5 ms.
	ScheduleAhead time.Duration
	// NetworkLag is what the way to a worker and back takes, until it has been
	// measured. Too long a time would refuse what could measure it. Default 1 ms.
	NetworkLag time.Duration
	// BestEffortAge is how long after its arrival a request without a
	// deadline ranks as one whose deadline is now. Default 30 s.
	BestEffortAge time.Duration
	// NoWorkerGrace is how long accepted requests wait when the last worker
	// that holds their model has gone. Default 1 s.
	NoWorkerGrace time.Duration
	// BackOff is the first pause before a model is tried again on a device
	// where it failed; it doubles up to MaxBackOff. Defaults 10 ms and 1 s.
	BackOff, MaxBackOff time.Duration
	// ResultGrace: a result is overdue when it is later than expected by this
	// and by three times what the action was to take. Default 400 ms.
	ResultGrace time.Duration
	// SuspectSettle is how long after the death of a worker what may have killed
	// it is not given to another one, and for how long a further death proves
	// nothing: they may have died together. Default 100 ms.
	SuspectSettle time.Duration
	// Seed is what a policy that draws lots draws them from.
	Seed uint64
	// Explain is told why something is done, before it is, in words; nil: nobody asks.
	Explain func(why string)
}

func (o Options) withDefaults() Options {
	o.ScheduleAhead = cmp.Or(o.ScheduleAhead, 5*time.Millisecond)
	o.NetworkLag = cmp.Or(o.NetworkLag, time.Millisecond)
	o.BestEffortAge = cmp.Or(o.BestEffortAge, 30*time.Second)
	o.NoWorkerGrace = cmp.Or(o.NoWorkerGrace, time.Second)
	o.BackOff = cmp.Or(o.BackOff, 10*time.Millisecond)
	o.MaxBackOff = max(o.BackOff, cmp.Or(o.MaxBackOff, time.Second))
	o.ResultGrace = cmp.Or(o.ResultGrace, 400*time.Millisecond)
	o.SuspectSettle = cmp.Or(o.SuspectSettle, 100*time.Millisecond)
	return o
}

// strategies are the strategies of the policies by name.
func strategies() map[string]func(Options) strategy {
	return map[string]func(Options) strategy{
		"clockwork":      func(Options) strategy { return clockwork{} },
		"deferred":       func(Options) strategy { return deferred{} },
		"edf":            func(Options) strategy { return edf{} },
		"fifo":           func(Options) strategy { return &fifo{} },
		"lottery":        func(o Options) strategy { return newLottery(o.Seed) },
		"shortest_queue": func(Options) strategy { return &shortestQueue{} },
		"orrery":         func(Options) strategy { return &orrery{} },
	}
}

// Policies are the names of all policies, sorted.
func Policies() (names []string) {
	// order: sorted below.
	for name := range strategies() {
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
	made := strategies()[name]
	if made == nil {
		return nil, fmt.Errorf("there is no scheduling policy %q; the policies are %s", name, strings.Join(Policies(), ", "))
	}
	return newCore(options, made(options)), nil
}

// changePolicy lets another strategy decide. What waits is judged by it as if it
// had just come.
func (p *core) changePolicy(name string) {
	if name == "" {
		name = DefaultPolicy
	}
	made := strategies()[name]
	if made == nil {
		return
	}
	p.strategy = made(p.options)
	p.readmit(func(*model, *queue) bool { return true })
}

// readmit has the strategy judge anew what waits in some queues.
func (p *core) readmit(in func(*model, *queue) bool) {
	var waiting []*request
	for _, m := range p.active {
		for _, q := range m.queues {
			if in(m, q) {
				waiting = append(append(waiting, q.timed...), q.loose...)
			}
		}
	}
	slices.SortFunc(waiting, func(a, b *request) int { return cmp.Compare(a.seq, b.seq) })
	for _, r := range waiting {
		p.dequeue(r)
	}
	for _, r := range waiting {
		r.rank, r.shift, r.bound = 0, 0, nil
		p.admit(r)
	}
}
