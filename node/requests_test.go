package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// serveTable serves the models of a table on one worker, which obeys commands
// in requests.
func (c *cluster) serveTable(rows map[string]string) (leader string) {
	c.t.Helper()
	var lines []string
	for model, row := range rows {
		lines = append(lines, model+","+row)
	}
	dir := c.table(lines...)
	c.tuneWorker = func(w *configs.Worker) { w.ModelDir, w.Engines.Emulated.AllowCommands = dir, true }
	c.startWorker("w1")
	leader = c.leader(controllerNames...)
	c.registered(leader, 1)
	for model := range rows {
		if m := c.mustLoad(leader, model, "table.csv#"+model); !loadedAt(m, "w1") {
			c.t.Fatalf("%v", m.Copies)
		}
	}
	c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
	return leader
}

// held is how many unanswered requests a controller holds as their entry.
func (c *cluster) held(at string) float64 {
	c.t.Helper()
	families, err := c.controllers[at].controller.Metrics().Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "orrery_held_requests" {
			return f.Metric[0].GetGauge().GetValue()
		}
	}
	c.t.Fatal("there is no such metric")
	return 0
}

func TestACancelledRequestMakesRoom(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.serveTable(map[string]string{"slow": "10,1,200,,,"})
		done := c.results("w1", sessionpb.ResultCode_RESULT_CODE_OK)
		for _, entry := range []string{leader, follower(leader, controllerNames...)} {
			var wait sync.WaitGroup
			began := time.Now()
			for i := range 8 { // one runs, one waits at the worker, the others at the leader
				wait.Go(func() {
					ctx, cancel := context.WithCancel(context.Background())
					time.AfterFunc(100*time.Millisecond+time.Duration(i)*time.Millisecond, cancel)
					if err := ask(ctx, c.inference(entry), image("slow", i)); status.Code(err) != codes.Canceled {
						t.Errorf("cancelled request %d: %v", i, err)
					}
				})
			}
			wait.Wait()
			time.Sleep(20 * time.Millisecond)
			if n := c.held(entry); n != 0 {
				t.Errorf("%s still holds %v requests", entry, n)
			}
			if err := ask(t.Context(), c.inference(entry), image("slow", 100)); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 450*time.Millisecond {
				t.Errorf("the request after the cancelled ones was answered after %v: they were not cancelled", took)
			}
		}
		if n := c.results("w1", sessionpb.ResultCode_RESULT_CODE_OK) - done; n > 5 { // a load of weights, and for each entry one that ran
			t.Errorf("%d actions were done for 2 requests that were waited for", n)
		}
	})
}

func TestADeadlineThatPassesAtAWorker(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.serveTable(map[string]string{"m": "10,1,10,,,"})
		to := c.inference(follower(leader, controllerNames...))
		r := within(image("m", 1), 500*time.Millisecond)
		r.Parameters["emulated_delay"] = &inferencepb.InferParameter{ParameterChoice: &inferencepb.InferParameter_StringParam{StringParam: "2s"}}
		began := time.Now()
		err := ask(context.Background(), to, r)
		e, took := reasonOf(err), time.Since(began)
		if status.Code(err) != codes.DeadlineExceeded || e.Reason != errs.DeadlinePassed || e.Execution != errs.MaybeExecuted {
			t.Errorf("%v %+v", err, e)
		}
		// It is taken back when its result is overdue, and then can't be met.
		if took < 450*time.Millisecond || took > 750*time.Millisecond {
			t.Errorf("a request with 500ms was answered after %v", took)
		}
		if err := ask(context.Background(), to, within(image("m", 2), 5*time.Second)); err != nil {
			t.Errorf("the request after it: %v", err)
		}
	})
}

// Also when the request was there before the model.
func TestARequestWithoutDeadlineHasTheModelsSLO(t *testing.T) {
	const slo = 400 * time.Millisecond
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		dir := c.table("m,10,1,10,,,")
		c.tuneWorker = func(w *configs.Worker) { w.ModelDir, w.Engines.Emulated.AllowCommands = dir, true }
		c.startWorker("w1")
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		slow := image("m", 1)
		slow.Parameters = map[string]*inferencepb.InferParameter{
			"emulated_delay": {ParameterChoice: &inferencepb.InferParameter_StringParam{StringParam: "3s"}},
		}
		expectSLO := func(when string, took time.Duration, err error) {
			if reasonOf(err).Reason != errs.DeadlinePassed || (took-slo).Abs() > 50*time.Millisecond {
				t.Errorf("%s: answered after %v: %v", when, took, err)
			}
		}
		early := make(chan error, 1)
		go func() { early <- ask(context.Background(), c.inference(leader), slow) }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		load := &logpb.LoadModel{Name: "m", Source: "table.csv#m", SloNs: int64(slo)}
		if _, err := c.control(leader).LoadModel(ctx, &controlpb.LoadModelRequest{Model: load}); err != nil {
			t.Fatal(err)
		}
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		began := time.Now()
		err := <-early
		expectSLO("buffered", time.Since(began), err)
		time.Sleep(5 * time.Second) // the worker is busy with it for 3s
		began = time.Now()
		err = ask(context.Background(), c.inference(leader), slow)
		expectSLO("serving", time.Since(began), err)
	})
}

func TestManyRequestsAtOnce(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		for _, entry := range []string{leader, follower(leader, controllerNames...)} {
			to := c.inference(entry)
			var wait sync.WaitGroup
			for i := range 200 {
				wait.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
					defer cancel()
					if err := ask(ctx, to, image("resnet18", i)); err != nil {
						t.Errorf("request %d through %s: %v", i, entry, err)
					}
				})
			}
			wait.Wait()
		}
	})
}

func TestOverloadIsShedInTime(t *testing.T) {
	const (
		capacity = 8 * 1000 / 28 // rows a second, in batches of 8
		deadline = 100 * time.Millisecond
		seconds  = 2
	)
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.serveTable(map[string]string{"m": "10,1,8,11,17,28"})
		var (
			mu      sync.Mutex
			good    int
			late    time.Duration
			reasons = map[errs.Reason]int{}
			wait    sync.WaitGroup
		)
		var entries []inferencepb.GRPCInferenceServiceClient
		for _, name := range controllerNames {
			entries = append(entries, c.inference(name))
		}
		ticker := time.NewTicker(time.Second / (3 * capacity))
		defer ticker.Stop()
		for i := range 3 * capacity * seconds {
			<-ticker.C
			wait.Go(func() {
				began := time.Now()
				err := ask(context.Background(), entries[i%3], within(image("m", i), deadline))
				took := time.Since(began)
				mu.Lock()
				defer mu.Unlock()
				late = max(late, took-deadline)
				switch {
				case err == nil && took <= deadline:
					good++
				case err == nil:
					reasons["OK, but late"]++
				default:
					reasons[reasonOf(err).Reason]++
				}
			})
		}
		wait.Wait()
		t.Logf("%d in time of %d (capacity %d), the latest answer %v after its deadline, refusals %v",
			good, 3*capacity*seconds, capacity*seconds, late, reasons)
		if late > 250*time.Millisecond {
			t.Errorf("a request was answered %v after its deadline", late)
		}
		if good < capacity*seconds*8/10 {
			t.Errorf("%d requests were answered in time, less than 80%% of the capacity of %d", good, capacity*seconds)
		}
		for reason := range reasons {
			switch reason {
			case errs.DeadlinePassed, errs.Infeasible, errs.Overloaded:
			default:
				t.Errorf("%d requests ended with %s", reasons[reason], reason)
			}
		}
	})
}

func TestTheBoundOnHeldRequests(t *testing.T) {
	const bound = 20
	inTunedBubble(t, 1, func(config *configs.Controller) { quick(config); config.Inference.HeldRequests = bound }, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		to := c.inference(leader)
		var wait sync.WaitGroup
		var mu sync.Mutex
		answered, refused := 0, 0
		for i := range bound + 10 { // before anything is served
			wait.Go(func() {
				began := time.Now()
				err := ask(context.Background(), to, within(image("resnet18", i), 20*time.Second))
				e := reasonOf(err)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					answered++
				case status.Code(err) == codes.ResourceExhausted && e.Reason == errs.Overloaded && e.RetryAfter > 0 && e.Execution == errs.NotExecuted:
					refused++
					if took := time.Since(began); took > 10*time.Millisecond {
						t.Errorf("refused after %v", took)
					}
				default:
					t.Errorf("request %d: %v", i, err)
				}
			})
		}
		c.mustLoad(leader, "resnet18", resnet18)
		wait.Wait()
		if answered != bound || refused != 10 {
			t.Errorf("%d requests were answered and %d refused; the bound is %d", answered, refused, bound)
		}
	})
}

// openClientLink opens what the client package uses: a link to an inference
// listener.
func (c *cluster) openClientLink(at string) (*link.Link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return link.Open(ctx, c.conn(at+":8001"), c.conn(at+":8001"), link.Options{Name: "test"})
}

// askLink sends a request over a link and checks the answer.
func askLink(ctx context.Context, l *link.Link, r *inferencepb.ModelInferRequest) (*exchangepb.Answer, error) {
	payload, err := proto.Marshal(r)
	if err != nil {
		return nil, err
	}
	answer, err := l.Call(ctx, &exchangepb.Envelope{RequestId: "test-" + r.Id, Attempt: 1, Payload: payload})
	if err == nil {
		err = grpcerr.FromAnswer(answer.Answer)
	}
	if err != nil {
		return nil, err
	}
	response := &inferencepb.ModelInferResponse{}
	if err := proto.Unmarshal(answer.Payload, response); err != nil {
		return nil, err
	}
	return answer.Answer, checkAnswer(r, response)
}

func TestLinksOfClients(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		var links []*link.Link
		for _, name := range controllerNames {
			l, err := c.openClientLink(name)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer l.Close()
			links = append(links, l)
		}
		var wait sync.WaitGroup
		// Requests go on through the survivors while the leader dies.
		for i := range 300 {
			time.Sleep(10 * time.Millisecond)
			if i == 100 {
				wait.Go(func() { c.kill(leader) })
			}
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				a, err := askLink(ctx, links[i%3], image("resnet18", i))
				switch {
				case controllerNames[i%3] == leader && i >= 95:
					if err != nil && !errors.Is(err, link.ErrBroken) {
						t.Errorf("request %d through the dead leader: %v", i, err)
					}
				case err != nil:
					t.Errorf("request %d through %s: %v", i, controllerNames[i%3], err)
				case a.Worker == "" || len(a.Stages) == 0 || !a.Emulated:
					t.Errorf("request %d: the answer tells nothing: %v", i, a)
				}
			})
		}
		wait.Wait()
		through := links[0]
		if controllerNames[0] == leader {
			through = links[1]
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := askLink(ctx, through, image("unheard-of", 1)); !errors.Is(err, errs.UnknownModel) {
			t.Errorf("a request for no model: %v", fmt.Sprint(err))
		}
	})
}
