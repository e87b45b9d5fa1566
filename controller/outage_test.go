package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// loneWorker is a worker that is asked without a leader.
type loneWorker struct {
	server *link.Server
	// answer says what becomes of a request; probe of the question whether it
	// would serve. nil means a success.
	answer func(*exchangepb.Envelope) error
	probe  error
	wait   sync.WaitGroup

	mu      sync.Mutex
	asked   int
	classes map[string]bool
}

// Handle implements link.Handler. A request takes 100 ms.
func (w *loneWorker) Handle(_ context.Context, e *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Header.ModelId == 0 {
		if w.probe != nil {
			reply(failed(w.probe))
			return
		}
		report, _ := proto.Marshal(&sessionpb.Report{Devices: []*sessionpb.DeviceState{{Resident: []*sessionpb.ResidentModel{{ModelId: 1}}}}})
		reply(&exchangepb.Envelope{Payload: report, Answer: &exchangepb.Answer{}})
		return
	}
	w.asked++
	w.classes[e.Header.ShapeClass] = true
	if w.answer != nil {
		if err := w.answer(e); err != nil {
			reply(failed(err))
			return
		}
	}
	w.wait.Go(func() {
		time.Sleep(100 * time.Millisecond)
		reply(&exchangepb.Envelope{Payload: []byte("answer"), Answer: &exchangepb.Answer{}})
	})
}

// die breaks all links.
func (w *loneWorker) die() { w.wait.Go(w.server.Close) }

// counts is how often it was asked.
func (w *loneWorker) counts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

// leaderless runs a controller that never had a leader, whose state knows so
// many workers that hold the model "m".
func leaderless(t *testing.T, count int, test func(t *testing.T, c *Controller, workers []*loneWorker)) {
	synctest.Test(t, func(t *testing.T) {
		replica, network := replicaWith(t, serving...), testnet.New()
		log := &soloLog{replica: replica, index: replica.Index()}
		var workers []*loneWorker
		for i := range count {
			name := fmt.Sprintf("w%d", i)
			w := &loneWorker{classes: map[string]bool{}}
			w.server = link.NewServer(w, link.Options{Name: name}, 4, 1<<20)
			server := rpc.NewServer(1 << 20)
			exchangepb.RegisterExchangeServer(server, w.server)
			listener, err := network.Host(name).Listen(name + ":1")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = server.Serve(listener) }()
			defer func() { w.server.Close(); server.Stop(); w.wait.Wait() }()
			workers = append(workers, w)
			log.propose(t, &logpb.Command{Body: &logpb.Command_RegisterWorker{RegisterWorker: &logpb.RegisterWorker{Worker: &logpb.Worker{
				Name: name, Incarnation: "1", SessionAddress: name + ":1", Speed: 1, HostMemoryBytes: 1 << 30,
				Devices: []*logpb.Device{{Kind: "cpu", PageBytes: 1 << 20, Pages: 10}},
			}}}})
			log.propose(t, &logpb.Command{Body: &logpb.Command_UpdateHoldings{UpdateHoldings: &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{{
				Holding: &logpb.Holding{ModelId: 1, Worker: name, Incarnation: "1", Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED},
				Info:    &logpb.ModelInfo{Digest: "d", Engine: "e", EngineVersion: "1", Signature: &logpb.Signature{}, ProfileRows: []uint32{1}},
			}}}}})
		}
		c := New(Options{
			Name: "c", Consensus: log, Replica: replica, Gossip: lonely{}, Logger: hclog.NewNullLogger(), Dial: network.Host("c").Dial,
			MaxMessage: 1 << 10, LinkRequests: 1, LinkBytes: 1,
			Tunables: Tunables{
				HeldRequests: 1000, HeldBytes: 1 << 20, InferBuffer: time.Second, DefaultTimeout: 5 * time.Second,
				DegradedAfter: time.Second, DegradedFor: time.Hour,
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { c.degraded.run(ctx) })
		defer wait.Wait()
		defer cancel()
		test(t, c, workers)
	})
}

// askAll sends so many requests at once and returns what became of them, by
// reason.
func askAll(c *Controller, n int) map[string]int {
	var wait sync.WaitGroup
	var mu sync.Mutex
	reasons := map[string]int{}
	for range n {
		wait.Go(func() {
			answer, err := c.entry.infer(context.Background(), &inferencepb.ModelInferRequest{ModelName: "m"}, nil, "")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				reasons[string(errs.From(err).Reason)]++
			case answer.Answer.Degraded:
				reasons["degraded"]++
			default:
				reasons["led"]++
			}
		})
	}
	wait.Wait()
	return reasons
}

func TestRequestsWithoutALeaderAreSpread(t *testing.T) {
	leaderless(t, 3, func(t *testing.T, c *Controller, workers []*loneWorker) {
		if got := askAll(c, 9); !maps.Equal(got, map[string]int{"degraded": 9}) {
			t.Errorf("%v", got)
		}
		for i, w := range workers {
			if w.counts() != 3 {
				t.Errorf("worker %d was asked %d times", i, w.counts())
			}
		}
	})
}

func TestAnotherWorkerIsAskedWithoutALeader(t *testing.T) {
	for name, refusal := range map[string]error{
		"no weights":    errs.New(errs.NotLoaded, "no weights"),
		"restarted":     errs.New(errs.Precondition, "another start"),
		"full":          errs.New(errs.Overloaded, "full"),
		"shutting down": errs.New(errs.ShuttingDown, "bye"),
	} {
		t.Run(name, func(t *testing.T) {
			leaderless(t, 2, func(t *testing.T, c *Controller, workers []*loneWorker) {
				workers[0].answer = func(*exchangepb.Envelope) error { return refusal }
				for range 10 {
					if got := askAll(c, 1); got["degraded"] != 1 {
						t.Errorf("%v", got)
					}
				}
				if n := workers[0].counts(); n == 0 {
					t.Error("the worker that refuses was not asked")
				}
			})
		})
	}
}

func TestWhenAllWorkersAreFullWithoutALeaderTheEntrySheds(t *testing.T) {
	leaderless(t, 2, func(t *testing.T, c *Controller, _ []*loneWorker) {
		if got := askAll(c, 20); !maps.Equal(got, map[string]int{"degraded": 8, "OVERLOADED": 12}) {
			t.Errorf("%v", got)
		}
	})
}

// It may be the request that kills them.
func TestFewWorkersAreLostWithOneRequest(t *testing.T) {
	leaderless(t, 4, func(t *testing.T, c *Controller, workers []*loneWorker) {
		for _, w := range workers {
			w.answer = func(*exchangepb.Envelope) error {
				w.die()
				return nil
			}
		}
		_, err := c.entry.infer(t.Context(), &inferencepb.ModelInferRequest{ModelName: "m"}, nil, "")
		if e := errs.From(err); e.Reason != errs.DeadlinePassed || e.Execution != errs.MaybeExecuted {
			t.Errorf("%+v", e)
		}
		lost := 0
		for _, w := range workers {
			lost += w.counts()
		}
		if lost != maxLost {
			t.Errorf("%d workers were lost", lost)
		}
	})
}

// One worker that has a leader is proof enough that there is one.
func TestALeaderThatAWorkerKnowsIsWaitedFor(t *testing.T) {
	for name, alter := range map[string]func(*loneWorker){
		"it says so when asked": func(w *loneWorker) { w.probe = errs.New(errs.NotLeader, "led") },
		"it says so to a request": func(w *loneWorker) {
			w.answer = func(*exchangepb.Envelope) error {
				w.probe = errs.New(errs.NotLeader, "led")
				return w.probe
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			leaderless(t, 2, func(t *testing.T, c *Controller, workers []*loneWorker) {
				alter(workers[0])
				alter(workers[1])
				workers[1].probe = nil
				if got := askAll(c, 5); !maps.Equal(got, map[string]int{"DEADLINE_PASSED": 5}) {
					t.Errorf("%v", got)
				}
				if n := workers[0].counts() + workers[1].counts(); n > 5 {
					t.Errorf("the workers were asked %d times", n)
				}
				if c.Degraded() || c.Ready() {
					t.Error("it says that it serves")
				}
				// That leader has died too.
				for _, w := range workers {
					w.mu.Lock()
					w.answer, w.probe = nil, nil
					w.mu.Unlock()
				}
				if got := askAll(c, 5); got["degraded"] != 5 {
					t.Errorf("later: %v", got)
				}
			})
		})
	}
}

// A worker doesn't know an operator's bound, and so must not make batches.
func TestABoundOnRowsHoldsWithoutALeader(t *testing.T) {
	for _, bound := range []uint32{0, 1} {
		leaderless(t, 1, func(t *testing.T, c *Controller, workers []*loneWorker) {
			c.options.Replica.Read(func(s *fsm.State) { s.Model(1).MaxRows = bound })
			askAll(c, 3)
			if n := len(workers[0].classes); (n == 3) != (bound > 0) {
				t.Errorf("bound %d: %d classes, %v", bound, n, slices.Collect(maps.Keys(workers[0].classes)))
			}
		})
	}
}

func TestAnAnswerThatIsTooLongWithoutALeader(t *testing.T) {
	leaderless(t, 1, func(t *testing.T, c *Controller, _ []*loneWorker) {
		c.options.MaxMessage = 3
		_, err := c.entry.infer(t.Context(), &inferencepb.ModelInferRequest{ModelName: "m"}, nil, "")
		if e := errs.From(err); e.Reason != errs.ExecutionFailed || e.Execution != errs.Executed || !strings.Contains(e.Message, "inference.max_message") {
			t.Errorf("%+v", e)
		}
	})
}

// LeaderHeard says that there was a leader once.
func (*soloLog) LeaderHeard() (time.Duration, bool) { return time.Minute, true }
