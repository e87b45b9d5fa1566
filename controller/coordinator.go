package controller

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	// coordinatorTick is how often what depends on time alone is looked at.
	coordinatorTick = 100 * time.Millisecond
	// actionRetry is the pause after a load, an unload or a measurement that a
	// worker has put off.
	actionRetry = 200 * time.Millisecond
	// commitRetry is the pause after a command that could not be committed.
	commitRetry = 100 * time.Millisecond
	// restShare is how much longer than a pass the rest after it is: with hundreds
	// of workers that hold hundreds of models a pass takes tens of milliseconds,
	// and passes shall not take more than a quarter of a core.
	restShare = 3
	// lookShare is the same for a pass when nothing has happened since the last one.
	lookShare = 20
	// longestRest bounds both: a pass may have waited for something.
	longestRest = time.Second
	// startingRest bounds the rest as long as requests only wait: while workers
	// load, and until a new leader's scheduler has begun.
	startingRest = 20 * time.Millisecond
)

// coordinator makes the actual follow the wanted: it keeps a session to every
// worker, registers them, has models loaded and measured, drives the startup,
// and tells the dispatcher what it may use. Its parts are in files of their own:
// connection, registry, twins, health, loads, holdings, placement, suspects, compare,
// profiler (with measuring and checks), refresh, replacements, startup_driver, policy and
// feed.
//
// It is level-triggered. Whenever something may have changed it compares what
// the replicated state says with what the workers say, and does what is
// missing; so there is nothing to recover when a leader takes over in the
// middle.
type coordinator struct {
	term    *term
	log     hclog.Logger
	mailbox *mailbox
	wait    sync.WaitGroup
	ctx     context.Context

	// The rest belongs to the loop.
	began       time.Time
	connections map[string]*connection
	startup     *startupDriver
	feed        feed
	profiler    profiler
	refresher   refresher
	replacing   replacements
	plan        plan
	suspects    suspects
	// verdicts are to be committed.
	verdicts          []*logpb.SetModelBlame
	committingVerdict bool
	// former are those that have lately gone from registry and gossip: a worker
	// that comes and goes keeps its strikes.
	former map[string]*connection
	// losses are when sessions were lost, of the last togetherWindow.
	losses []time.Time
	// blamed are the models that the state says are.
	blamed map[uint64]bool
	// committing says that holdings are being committed.
	committing bool
	// shown is when view was last made.
	shown time.Time

	// view is for others than the loop.
	view atomic.Pointer[liveWorkers]
}

func newCoordinator(t *term, log hclog.Logger) *coordinator {
	k := &coordinator{term: t, log: log, mailbox: newMailbox(), connections: map[string]*connection{}, began: time.Now(), suspects: suspects{}, blamed: map[uint64]bool{}, former: map[string]*connection{}}
	k.feed = newFeed(k)
	k.profiler = newProfiler(k)
	k.refresher = refresher{k: k, looked: time.Now()}
	k.replacing = newReplacements(k)
	return k
}

// run is the loop. It returns when all that it started has ended.
func (k *coordinator) run(ctx context.Context) {
	k.ctx = ctx
	defer k.wait.Wait()
	defer k.mailbox.close()
	ticker := time.NewTicker(coordinatorTick)
	defer ticker.Stop()
	replica := k.term.c.options.Replica
	replica.Read(func(s *fsm.State) { k.startup = newStartupDriver(k, s) })
	for {
		changed, members := replica.Changed(fsm.All), k.term.c.options.Gossip.Changed()
		began := time.Now()
		replica.Read(k.reconcile)
		pass := time.Since(began)
		if k.rest(ctx, k.restAfter(pass)) {
			continue
		}
		for looked, again := time.Now(), false; !again; {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				again = true
			case <-members:
				again = true
			case <-ticker.C:
				again = time.Since(looked) >= k.lookAfter(pass)
			case <-k.mailbox.ready:
			}
			again = k.mailbox.run() || again
		}
	}
}

// lookAfter is how long after a pass that took so long the next one is that only
// time is the reason for.
func (k *coordinator) lookAfter(pass time.Duration) time.Duration {
	if !k.feed.started {
		return 0
	}
	return min(lookShare*pass, longestRest)
}

// restAfter is how long the rest after a pass is that took so long. While models
// are measured the devices set the pace, and are not to be disturbed.
func (k *coordinator) restAfter(pass time.Duration) time.Duration {
	measuring := k.profiler.enabled && !k.feed.serving
	if k.feed.started || measuring {
		return min(restShare*pass, longestRest)
	}
	return min(restShare*pass, startingRest)
}

// rest only runs what is posted, for a time, and says whether anything was: so
// what is urgent is done at once, but looked at together.
func (k *coordinator) rest(ctx context.Context, d time.Duration) (posted bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return posted
		case <-k.mailbox.ready:
			posted = k.mailbox.run() || posted
		}
	}
}

// reconcile does what is missing. It holds the state's read lock, and so must
// not wait for anything; commands are committed by goroutines.
func (k *coordinator) reconcile(s *fsm.State) {
	k.meet(s)
	k.makePlan(s)
	for _, name := range slices.Sorted(maps.Keys(k.connections)) {
		w := k.connections[name]
		k.register(s, w)
		k.retire(s, w)
		if w.registered {
			k.load(s, w)
			k.drain(s, w)
			k.askReport(w)
		}
		k.lookForTwins(w)
	}
	k.commitHoldings(s)
	k.commitVerdicts(s)
	k.profiler.step(s)
	k.refresher.step(s)
	k.startup.step(s)
	k.followPolicy(s)
	k.feed.step(s)
	k.replacing.step(s) // it asks for weights of what feed has told of
	k.showWorkers()
}

// meet keeps a connection to everybody who is registered or in the gossip.
func (k *coordinator) meet(s *fsm.State) {
	addresses := map[string][]string{}
	add := func(name, address string) {
		if !slices.Contains(addresses[name], address) {
			addresses[name] = append(addresses[name], address)
		}
	}
	for _, w := range s.Workers() {
		add(w.Name, w.SessionAddress)
	}
	for _, m := range k.term.c.options.Gossip.Members() {
		if m.Role == "worker" {
			add(m.Name, m.Session)
		}
	}
	for name, known := range addresses {
		w := k.connections[name]
		if w == nil {
			ctx, cancel := context.WithCancel(k.ctx)
			w = &connection{name: name, cancel: cancel, addresses: known, since: time.Now()}
			if before := k.former[name]; before != nil {
				w.health, w.registeredAt = before.health, before.registeredAt
			}
			k.connections[name] = w
			k.wait.Go(func() { k.keepConnected(ctx, w) })
		}
		w.setAddresses(known)
	}
	for name, w := range k.connections {
		if addresses[name] == nil && w.session == nil {
			w.cancel()
			delete(k.connections, name)
			k.former[name] = w
		}
	}
	maps.DeleteFunc(k.former, func(name string, w *connection) bool {
		return k.connections[name] != nil || time.Since(w.since) > strikeWindow
	})
}

// commit commits a command on a goroutine of its own, then runs done on the
// loop, after a pause if that had no effect: the loop may ask for the same again
// at once. The result is nil when it was not committed, or nobody knows.
func (k *coordinator) commit(cmd *logpb.Command, done func(*logpb.Result)) {
	k.wait.Go(func() {
		result, err := k.term.c.propose(k.ctx, command(cmd))
		if err != nil {
			result = nil
		}
		if err != nil || result.Reason != logpb.Reason_REASON_NONE {
			_ = pause(k.ctx, commitRetry)
		}
		k.mailbox.post(func() { done(result) })
	})
}
