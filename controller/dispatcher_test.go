package controller

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/scheduler"
)

// script is a policy that does as its test says.
type script struct {
	step func(now scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions)
}

func (s *script) Step(now scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions) {
	s.step(now, events, out)
}

// replicaWith is a state that serves one model "m" with digest "d".
func replicaWith(t *testing.T, phases ...logpb.Phase) *fsm.Replica {
	t.Helper()
	replica := fsm.NewReplica(fsm.Options{OnFault: func(err error) { t.Fatal(err) }})
	index := uint64(0)
	apply := func(c *logpb.Command) {
		index++
		c = command(c)
		c.ProposedUnixNs = c.RequestedUnixNs
		entry, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if r := replica.Apply(&raft.Log{Index: index, Data: entry, Type: raft.LogCommand}).(*logpb.Result); r.Reason != logpb.Reason_REASON_NONE {
			t.Fatalf("%v: %v", c, r)
		}
	}
	apply(&logpb.Command{Body: &logpb.Command_InitCluster{InitCluster: &logpb.InitCluster{ClusterId: "test"}}})
	apply(&logpb.Command{Body: &logpb.Command_RegisterWorker{RegisterWorker: &logpb.RegisterWorker{Worker: &logpb.Worker{
		Name: "w", Incarnation: "1", SessionAddress: "w:1", Speed: 1, HostMemoryBytes: 1 << 30,
		Devices: []*logpb.Device{{Kind: "cpu", PageBytes: 1 << 20, Pages: 10}},
	}}}})
	apply(&logpb.Command{Body: &logpb.Command_LoadModel{LoadModel: &logpb.LoadModel{Name: "m", Source: "m.onnx"}}})
	apply(&logpb.Command{Body: &logpb.Command_UpdateHoldings{UpdateHoldings: &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{{
		Holding: &logpb.Holding{ModelId: 1, Worker: "w", Incarnation: "1", Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED},
		Info:    &logpb.ModelInfo{Digest: "d", Engine: "e", EngineVersion: "1", Signature: &logpb.Signature{}, ProfileRows: []uint32{1}},
	}}}}})
	for _, to := range phases {
		var from logpb.Phase
		replica.Read(func(s *fsm.State) { from = s.Phase() })
		apply(&logpb.Command{Body: &logpb.Command_SetPhase{SetPhase: &logpb.SetPhase{From: from, To: to, LastModelId: 1}}})
	}
	return replica
}

// rig is a dispatcher whose policy follows a script.
type rig struct {
	*dispatcher
	epoch  time.Time
	cancel context.CancelFunc
	done   chan struct{}
}

func newRig(t *testing.T, replica *fsm.Replica, step func(scheduler.Instant, []scheduler.Event, *scheduler.Decisions)) *rig {
	return newPolicyRig(t, replica, &script{step})
}

func newPolicyRig(t *testing.T, replica *fsm.Replica, policy scheduler.Policy) *rig {
	r := &rig{epoch: time.Now(), done: make(chan struct{})}
	now := func() scheduler.Instant { return scheduler.Instant(time.Since(r.epoch)) + 1 }
	r.dispatcher = newDispatcher(replica, 1<<20, policy, now, hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { defer close(r.done); r.run(ctx) }()
	return r
}

func (r *rig) end() { r.cancel(); <-r.done }

// ask sends one request and returns where its answer will be.
func (r *rig) ask(ctx context.Context, id, digest string) <-chan *exchangepb.Envelope {
	answer := make(chan *exchangepb.Envelope, 2)
	r.Handle(ctx, &exchangepb.Envelope{
		RequestId: id, Attempt: 1, TimeLeftNs: int64(time.Second),
		Header: &exchangepb.Header{ModelName: "m", Digest: digest, Rows: 1},
	}, func(e *exchangepb.Envelope) { answer <- e })
	return answer
}

func expectReason(t *testing.T, answer <-chan *exchangepb.Envelope, want errs.Reason) {
	t.Helper()
	synctest.Wait()
	select {
	case e := <-answer:
		if err := grpcerr.FromAnswer(e.Answer); !errors.Is(err, want) {
			t.Errorf("got %v, want %s", err, want)
		}
	default:
		t.Errorf("no answer; want %s", want)
	}
}

// serving are the changes that lead there. The first goes on to loading, since
// a model is wanted.
var serving = []logpb.Phase{logpb.Phase_PHASE_WAITING, logpb.Phase_PHASE_PROFILING, logpb.Phase_PHASE_SERVING}

func TestRequestsWaitForThePolicyToStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		r := newRig(t, replicaWith(t, serving...), func(_ scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions) {
			for _, e := range events {
				switch e := e.(type) {
				case scheduler.Start:
					seen = append(seen, "start")
				case scheduler.Submit:
					seen = append(seen, "submit")
					out.Completions = append(out.Completions, scheduler.Completion{Request: e.Request.ID, Reason: scheduler.NoWorker})
				}
			}
		})
		defer r.end()
		answer := r.ask(t.Context(), "a", "d")
		synctest.Wait()
		if len(seen) > 0 {
			t.Fatalf("the policy saw %v before it was started", seen)
		}
		r.mailbox.post(r.start)
		expectReason(t, answer, errs.NotProfiled) // what keeps the workers from serving it
		if want := []string{"start", "submit"}; !slices.Equal(seen, want) {
			t.Errorf("the policy saw %v, want %v", seen, want)
		}
	})
}

func TestRequestsThatTheLeaderRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := func(scheduler.Instant, []scheduler.Event, *scheduler.Decisions) {}
		starting := newRig(t, replicaWith(t), idle)
		defer starting.end()
		expectReason(t, starting.ask(t.Context(), "a", "d"), errs.Starting)
		r := newRig(t, replicaWith(t, serving...), idle)
		defer r.end()
		expectReason(t, r.ask(t.Context(), "a", "older"), errs.StaleModel)
		r.ask(t.Context(), "twice", "d")
		expectReason(t, r.ask(t.Context(), "twice", "d"), errs.Invalid)
	})
}

func TestTheEndOfATermAnswersEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, replicaWith(t, serving...), func(scheduler.Instant, []scheduler.Event, *scheduler.Decisions) {})
		early := r.ask(t.Context(), "early", "d")
		r.mailbox.post(r.start)
		late := r.ask(t.Context(), "late", "d")
		r.end()
		expectReason(t, early, errs.NotLeader)
		expectReason(t, late, errs.NotLeader)
		expectReason(t, r.ask(t.Context(), "after", "d"), errs.NotLeader)
	})
}

func TestACallerThatLeavesIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, replicaWith(t, serving...), func(_ scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions) {
			for _, e := range events {
				if e, ok := e.(scheduler.Cancel); ok {
					out.Completions = append(out.Completions, scheduler.Completion{Request: e.Request, Reason: scheduler.Cancelled})
				}
			}
		})
		defer r.end()
		ctx, leave := context.WithCancel(t.Context())
		beforeStart := r.ask(ctx, "a", "d")
		leave()
		expectReason(t, beforeStart, errs.Cancelled)
		r.mailbox.post(r.start)
		ctx, leave = context.WithCancel(t.Context())
		afterStart := r.ask(ctx, "b", "d")
		synctest.Wait()
		leave()
		expectReason(t, afterStart, errs.Cancelled)
	})
}

func TestThePolicyIsWokenWhenItWantsToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps []time.Duration
		r := newRig(t, replicaWith(t, serving...), func(now scheduler.Instant, _ []scheduler.Event, out *scheduler.Decisions) {
			steps = append(steps, time.Duration(now-1))
			if len(steps) < 3 {
				out.Wake = now.Add(250 * time.Millisecond)
			}
		})
		defer r.end()
		r.mailbox.post(r.start)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if want := []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}; !slices.Equal(steps, want) {
			t.Errorf("stepped at %v, want %v", steps, want)
		}
	})
}

func TestACancelThatOvertakesItsRequestIsNotLost(t *testing.T) {
	replica := replicaWith(t, serving...)
	for _, started := range []bool{false, true} {
		d := newDispatcher(replica, 1<<20, &script{func(scheduler.Instant, []scheduler.Event, *scheduler.Decisions) {}},
			func() scheduler.Instant { return 1 }, hclog.NewNullLogger())
		if started {
			d.start()
		}
		ctx, leave := context.WithCancel(t.Context())
		leave()
		answer := make(chan *exchangepb.Envelope, 1)
		late := &ticket{
			envelope: &exchangepb.Envelope{RequestId: "a", Attempt: 1, Header: &exchangepb.Header{ModelName: "m", Digest: "d", Rows: 1}},
			ctx:      ctx, stop: func() bool { return false }, reply: func(e *exchangepb.Envelope) { answer <- e },
		}
		d.cancel(late)
		d.admit(late)
		d.step()
		select {
		case e := <-answer:
			if err := grpcerr.FromAnswer(e.Answer); !errors.Is(err, errs.Cancelled) {
				t.Errorf("started %v: %v", started, err)
			}
		default:
			t.Errorf("started %v: a request that was cancelled before it was admitted is kept", started)
		}
	}
}

func TestAHugeDeadlineIsInTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := 0
		r := newRig(t, replicaWith(t, serving...), func(now scheduler.Instant, events []scheduler.Event, _ *scheduler.Decisions) {
			for _, e := range events {
				if e, ok := e.(scheduler.Submit); ok {
					seen++
					if e.Request.Deadline < now.Add(time.Hour) { // a difference could overflow back
						t.Errorf("now is %d, and the deadline %d", now, e.Request.Deadline)
					}
				}
			}
		})
		defer r.end()
		r.mailbox.post(r.start)
		for i, timeout := range []int64{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 / 2} {
			r.Handle(t.Context(), &exchangepb.Envelope{
				RequestId: strconv.Itoa(i), Attempt: 1, TimeLeftNs: timeout, Header: &exchangepb.Header{ModelName: "m", Digest: "d", Rows: 1},
			}, func(*exchangepb.Envelope) {})
		}
		synctest.Wait()
		if seen != 3 {
			t.Errorf("%d of 3 requests reached the policy", seen)
		}
	})
}
