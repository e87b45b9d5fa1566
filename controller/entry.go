package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/oip"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// entry is where a request comes in, and where it is until it has been
// answered. It sends the request to the leader, and to the next leader when
// that one dies with it: inference is repeatable, so nothing is lost as long
// as the deadline allows. The client sees one answer.
type entry struct {
	c    *Controller
	wait sync.WaitGroup

	// answers counts by reason ("OK" for success); latency is of successes.
	answers *prometheus.CounterVec
	latency prometheus.Histogram

	// where is the startup as it was at whereAt, for messages.
	whereMu sync.Mutex
	where   string
	whereAt time.Time

	mu    sync.Mutex
	count int
	bytes int64
	// idle is closed when count falls to 0, if drain waits for that.
	idle chan struct{}
}

func newEntry(c *Controller) *entry {
	return &entry{
		c: c,
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "orrery", Name: "answers_total", Help: "Answers to requests that came in here, by reason.",
		}, []string{"reason"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "orrery", Name: "answer_seconds", Help: "From the arrival of a request here to its successful answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
}

// held is what is held here unanswered.
func (e *entry) held() (count int, bytes int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count, e.bytes
}

// admit bounds what is held here unanswered.
func (e *entry) admit(bytes int64) error {
	t := e.c.tunables.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count >= t.HeldRequests || e.bytes+bytes > t.HeldBytes {
		return errs.New(errs.Overloaded,
			"this controller holds %d unanswered requests (%d bytes); its bounds are inference.held_requests %d and inference.held_bytes %d",
			e.count, e.bytes, t.HeldRequests, t.HeldBytes).After(250 * time.Millisecond)
	}
	e.count++
	e.bytes += bytes
	return nil
}

func (e *entry) release(bytes int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count--
	e.bytes -= bytes
	if e.count == 0 && e.idle != nil {
		close(e.idle)
		e.idle = nil
	}
}

// whereAge is how old the startup in a message may be: thousands of requests may
// run out of time at once.
const whereAge = 200 * time.Millisecond

// startup is the phase and what it waits for, for messages.
func (e *entry) startup() string {
	e.whereMu.Lock()
	defer e.whereMu.Unlock()
	if time.Since(e.whereAt) > whereAge {
		e.c.options.Replica.Read(func(s *fsm.State) {
			e.where = fmt.Sprintf("in phase %s, waiting for %s", PhaseName(s.Phase()), awaited(s, e.c.tunables.Load().LoadIdle))
		})
		e.whereAt = time.Now()
	}
	return e.where
}

// drain waits until nothing is held here, or ctx ends.
func (e *entry) drain(ctx context.Context) {
	e.mu.Lock()
	if e.count == 0 {
		e.mu.Unlock()
		return
	}
	if e.idle == nil {
		e.idle = make(chan struct{})
	}
	idle := e.idle
	e.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// Handle takes a request from a client's link. It implements link.Handler.
func (e *entry) Handle(ctx context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	e.wait.Go(func() {
		if request.TimeLeftNs > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(request.TimeLeftNs))
			defer cancel()
		}
		in := &inferencepb.ModelInferRequest{}
		if err := proto.Unmarshal(request.Payload, in); err != nil {
			reply(failed(errs.New(errs.Invalid, "the payload is not a ModelInferRequest: %v", err)))
			return
		}
		answer, err := e.infer(ctx, in, request.Payload, request.Header.GetTenant())
		if err != nil {
			answer = failed(err)
		}
		reply(answer)
	})
}

// failed is the answer that carries an error.
func failed(err error) *exchangepb.Envelope {
	return &exchangepb.Envelope{Answer: grpcerr.Answer(err)}
}

// infer answers one request, or says why it can't. payload is the serialised
// request.
func (e *entry) infer(ctx context.Context, request *inferencepb.ModelInferRequest, payload []byte, tenant string) (*exchangepb.Envelope, error) {
	began := time.Now()
	answer, err := e.serve(ctx, request, payload, tenant)
	if err != nil {
		e.answers.WithLabelValues(string(errs.From(err).Reason)).Inc()
		return nil, err
	}
	e.answers.WithLabelValues("OK").Inc()
	took := time.Since(began)
	e.latency.Observe(took.Seconds())
	answer.Answer.Stages = append(answer.Answer.Stages, &exchangepb.Stage{Name: "entry", DurationNs: int64(took)})
	return answer, nil
}

func (e *entry) serve(ctx context.Context, request *inferencepb.ModelInferRequest, payload []byte, tenant string) (*exchangepb.Envelope, error) {
	c := &call{e: e, request: request, payload: payload, tenant: tenant, arrived: time.Now(), id: e.c.options.Name + "-" + newRequestID()}
	if request.ModelName == "" {
		return nil, errs.New(errs.Invalid, "model_name is empty; name one of the models that `orrery model list` shows")
	}
	if err := oip.Malformed(request); err != nil {
		return nil, err
	}
	var err error
	if c.priority, err = oip.Priority(request); err != nil {
		return nil, err
	}
	size := int64(len(payload))
	if limit := int64(e.c.options.MaxMessage); size > limit {
		return nil, errs.New(errs.Invalid, "the request has %d bytes, and inference.max_message allows %d; send fewer rows at once", size, limit)
	}
	if err := e.admit(size); err != nil {
		return nil, err
	}
	defer e.release(size)
	ctx, cancel, err := c.withDeadline(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return c.run(ctx)
}
