package controller

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// soloLog is the log of a cluster of one: what is proposed is committed.
type soloLog struct {
	Consensus // not used, but for what is below
	replica   *fsm.Replica

	mu    sync.Mutex
	index uint64
	// after, if not nil, is called right after a command has been applied.
	after func(*logpb.Command)
}

func (l *soloLog) Apply(_ context.Context, entry []byte) (any, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	result := l.put(entry)
	cmd := &logpb.Command{}
	if err := proto.Unmarshal(entry, cmd); err != nil {
		return nil, 0, err
	}
	if l.after != nil {
		l.after(cmd)
	}
	return result, l.index, nil
}

func (l *soloLog) put(entry []byte) any {
	l.index++
	return l.replica.Apply(&raft.Log{Index: l.index, Data: entry})
}

// propose is for after.
func (l *soloLog) propose(t *testing.T, c *logpb.Command) { l.proposeAs(t, c, fsm.NeededVersion(c)) }

// proposeAs proposes what a controller would that gives the command this version.
func (l *soloLog) proposeAs(t *testing.T, c *logpb.Command, version uint32) {
	c = command(c)
	c.Version = version
	c.ProposedUnixNs = c.RequestedUnixNs
	entry, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	l.put(entry)
}

// lonely is a gossip that knows nobody.
type lonely struct{ Gossip }

func (lonely) Members() []Member        { return nil }
func (lonely) Changed() <-chan struct{} { return nil }

// soloCoordinator is the coordinator of a cluster of one. It does not run.
func soloCoordinator(t *testing.T, dial rpc.DialFunc, phases ...logpb.Phase) (*coordinator, *soloLog) {
	t.Helper()
	replica := replicaWith(t, phases...)
	log := &soloLog{replica: replica, index: replica.Index()}
	c := New(Options{
		Name: "c", Consensus: log, Replica: replica, Gossip: lonely{}, Logger: hclog.NewNullLogger(), Dial: dial,
		Tunables: Tunables{
			LoadIdle: 10 * time.Second, DeadAfter: time.Hour, LostAfter: time.Hour, CompareInterval: time.Hour, ForgetAfter: time.Hour, LoadsPerWorker: 1,
			ConnectTimeout: time.Second, Heartbeat: 100 * time.Millisecond, HeartbeatMisses: 3,
		},
	})
	tm := &term{c: c, leader: &sessionpb.Leader{Name: "c"}}
	tm.policy.Store(&policyChoice{scheduler.DefaultPolicy, scheduler.DefaultPolicy})
	tm.dispatcher = newDispatcher(replica, 1<<20, edfPolicy(), c.instant, hclog.NewNullLogger())
	tm.coordinator = newCoordinator(tm, hclog.NewNullLogger())
	tm.dispatcher.watch(watch{tm.coordinator}, c.workerMetrics)
	tm.coordinator.ctx = t.Context()
	return tm.coordinator, log
}

// What a worker puts off is asked for again, but not in a storm.
func TestWhatAWorkerPutsOffIsNoHotLoop(t *testing.T) {
	const putOff = sessionpb.ResultCode_RESULT_CODE_SHUTTING_DOWN
	for _, test := range []struct {
		name string
		held []uint64 // model 1 is wanted, 9 is not
		code sessionpb.ResultCode
		is   func(*sessionpb.Action) bool
	}{
		{"loads", nil, putOff, func(a *sessionpb.Action) bool { return a.GetLoadModel() != nil }},
		{"unloads", []uint64{1, 9}, sessionpb.ResultCode_RESULT_CODE_WEIGHTS_IN_USE,
			func(a *sessionpb.Action) bool { return a.GetUnloadModel() != nil }},
		{"profiles", []uint64{1}, putOff, func(a *sessionpb.Action) bool { return a.GetProfile() != nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeWorker()
				var asked atomic.Int32
				info := w.report.Models[0].Info
				w.report.Models = nil
				for _, id := range test.held {
					w.report.Models = append(w.report.Models, &sessionpb.HeldModel{
						ModelId: id, Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED, Info: info,
					})
				}
				w.carryOut = func(a *sessionpb.Action) *sessionpb.Result {
					if !test.is(a) || asked.Add(1) > 1000 { // then time has to go on
						return nil
					}
					return &sessionpb.Result{Code: test.code}
				}
				k, _ := soloCoordinator(t, w.serve(t), serving...)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				k.run(ctx)
				if n := asked.Load(); n < 10 || n > 60 {
					t.Errorf("the worker was asked %d times in 10s; want a few a second", n)
				}
			})
		})
	}
}

func TestTheCoordinatorRestsButRunsWhatIsPosted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCoordinator(nil, hclog.NewNullLogger())
		began := time.Now()
		if k.rest(t.Context(), time.Second) || time.Since(began) != time.Second {
			t.Errorf("rested for %v, and something was posted", time.Since(began))
		}
		var ran []time.Duration
		for _, at := range []time.Duration{100 * time.Millisecond, 700 * time.Millisecond} {
			time.AfterFunc(at, func() { k.mailbox.post(func() { ran = append(ran, time.Since(began)-time.Second) }) })
		}
		if !k.rest(t.Context(), time.Second) || !slices.Equal(ran, []time.Duration{100 * time.Millisecond, 700 * time.Millisecond}) {
			t.Errorf("ran at %v", ran)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if k.rest(ctx, time.Hour) || time.Since(began) != 2*time.Second {
			t.Error("it goes on resting when the term has ended")
		}
	})
}

func TestRestsAreShortWhileRequestsOnlyWait(t *testing.T) {
	for _, test := range []struct {
		name                        string
		serving, started, measuring bool
		pass, want                  time.Duration
	}{
		{name: "loading", pass: 50 * time.Millisecond, want: startingRest},
		{name: "loading little", pass: time.Millisecond, want: 3 * time.Millisecond},
		{name: "measuring", measuring: true, pass: 50 * time.Millisecond, want: 150 * time.Millisecond},
		{name: "about to serve", measuring: true, serving: true, pass: 50 * time.Millisecond, want: startingRest},
		{name: "serving", measuring: true, serving: true, started: true, pass: 50 * time.Millisecond, want: 150 * time.Millisecond},
	} {
		k := newCoordinator(nil, hclog.NewNullLogger())
		k.feed.serving, k.feed.started, k.profiler.enabled = test.serving, test.started, test.measuring
		if got := k.restAfter(test.pass); got != test.want {
			t.Errorf("%s: %v after %v, want %v", test.name, got, test.pass, test.want)
		}
	}
}

func edfPolicy() scheduler.Policy {
	p, err := scheduler.New("edf", scheduler.Options{})
	if err != nil {
		panic(err)
	}
	return p
}
