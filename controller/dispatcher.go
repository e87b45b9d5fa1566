package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// longestDeadline keeps sums of instants inside their type.
const longestDeadline = 24 * time.Hour

// wireKey names one attempt of one request between entry, leader and worker.
type wireKey struct {
	request string
	attempt uint32
}

// ticket is a request in the dispatcher's hands.
type ticket struct {
	id       scheduler.RequestID
	envelope *exchangepb.Envelope
	reply    func(*exchangepb.Envelope)
	ctx      context.Context // of the caller
	stop     func() bool     // ends the watch on the caller's context
	arrived  scheduler.Instant
	deadline scheduler.Instant
	model    scheduler.ModelID
	emulated bool

	// at is the session that has it, when it is at a worker, and try the number
	// under which it has.
	at  *session
	try uint32
	// output is the worker's answer; it may come before or after the result.
	output []byte
	// done says that the scheduler has completed it and only output is missing.
	done bool
	// fault is what the worker said was wrong with it, and whose fault it was.
	fault     string
	faultCode sessionpb.ResultCode
	// executed says that a worker has run it once, or may have, and the outputs
	// were lost.
	executed bool
	// mishaps are what happened to it at workers, for the client; sufferers are
	// these workers.
	mishaps, sufferers []string
	// For the stages: when it was sent and when the result came, what the engine
	// took, and what the scheduler had expected that to be, for so many rows.
	sent, result      scheduler.Instant
	engine, predicted time.Duration
	batchRows         int
}

// mishap notes what happened to it at a worker.
func (t *ticket) mishap(worker, what string) {
	t.mishaps, t.sufferers = append(t.mishaps, what), append(t.sufferers, worker)
}

// running is an action in a worker's hands. tries are the numbers under which the
// tickets are there: one that has a newer number has moved elsewhere.
type running struct {
	action  scheduler.Action
	session *session
	tickets []*ticket
	tries   []uint32
}

// workerWatch is told what the dispatcher learns about workers. It must not block.
type workerWatch interface {
	// unanswered: a device of the worker did not answer in time.
	unanswered(worker string)
	// atFault: what the worker ran failed again and again, while others could.
	atFault(worker string)
	// blamed: workers died with a model, which is stopped.
	blamed(scheduler.Blame)
	// forgiven: what the worker suffered was a request's fault.
	forgiven(worker string)
	// repaired: what was believed of a device was wrong.
	repaired(scheduler.Repair)
	// live is what is known of all workers, nil for nothing.
	live() liveWorkers
}

// dispatcher owns the scheduler and all that it has been given. One goroutine
// runs it; everybody else posts to it. It never blocks.
type dispatcher struct {
	replica *fsm.Replica
	// maxMessage bounds an answer, bytes.
	maxMessage int
	now        func() scheduler.Instant
	log        hclog.Logger

	mailbox *mailbox

	// The rest belongs to the loop.
	policy    scheduler.Policy
	started   bool
	early     []*ticket // came before the policy was started
	events    []scheduler.Event
	decisions scheduler.Decisions
	lastID    scheduler.RequestID
	tickets   map[scheduler.RequestID]*ticket
	byWire    map[wireKey]*ticket
	// byTry are the tickets that are at workers; lastTry numbers them.
	byTry    map[uint32]*ticket
	lastTry  uint32
	actions  map[scheduler.ActionID]*running
	sessions map[string]*session
	streaks  streaks
	// kinds are those of the devices of workers, and ran is how long what ran there
	// has taken.
	kinds map[string][]string
	ran   ran

	// Set by watch, before the loop runs.
	workers workerWatch
	metrics *workerMetrics
}

func newDispatcher(replica *fsm.Replica, maxMessage int, policy scheduler.Policy, now func() scheduler.Instant, log hclog.Logger) *dispatcher {
	return &dispatcher{
		replica: replica, maxMessage: maxMessage, policy: policy, now: now, log: log,
		mailbox:  newMailbox(),
		tickets:  map[scheduler.RequestID]*ticket{},
		byWire:   map[wireKey]*ticket{},
		byTry:    map[uint32]*ticket{},
		streaks:  streaks{},
		metrics:  newWorkerMetrics(),
		workers:  nobody{},
		actions:  map[scheduler.ActionID]*running{},
		sessions: map[string]*session{},
		kinds:    map[string][]string{},
		ran:      ran{},
	}
}

// run is the loop. When ctx ends, all requests in hand are answered with
// "not the leader": their entries send them to the next one.
func (d *dispatcher) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			d.end()
			return
		case <-d.mailbox.ready:
		case <-timer.C:
		}
		d.step()
		if wake := d.decisions.Wake; wake > 0 {
			timer.Reset(max(0, wake.Sub(d.now())))
		} else {
			timer.Reset(time.Hour)
		}
	}
}

// step takes in what has been posted, lets the policy decide, and carries out.
func (d *dispatcher) step() {
	d.mailbox.run()
	d.decisions.Reset()
	if !d.started {
		return
	}
	d.policy.Step(d.now(), d.events, &d.decisions)
	clear(d.events)
	d.events = d.events[:0]
	d.abandonAll(d.decisions.Abandoned)
	for i := range d.decisions.Actions {
		d.carryOut(d.decisions.Actions[i])
	}
	for i := range d.decisions.Completions {
		d.complete(&d.decisions.Completions[i])
	}
	for _, b := range d.decisions.Blamed {
		d.workers.blamed(b)
	}
	for _, r := range d.decisions.Repairs {
		d.workers.repaired(r)
	}
}

// abandonAll gives up on batches, and counts once for each worker that has any.
func (d *dispatcher) abandonAll(actions []scheduler.ActionID) {
	told := map[string]bool{}
	for _, id := range actions {
		worker := d.abandon(id)
		if worker == "" || told[worker] {
			continue
		}
		told[worker] = true
		d.metrics.unanswered.WithLabelValues(worker).Inc()
		d.workers.unanswered(worker)
	}
}

// watch says who is told of workers, and where is counted.
func (d *dispatcher) watch(w workerWatch, m *workerMetrics) { d.workers, d.metrics = w, m }

// nobody is who watches in tests.
type nobody struct{}

func (nobody) unanswered(string)         {}
func (nobody) atFault(string)            {}
func (nobody) blamed(scheduler.Blame)    {}
func (nobody) forgiven(string)           {}
func (nobody) repaired(scheduler.Repair) {}
func (nobody) live() liveWorkers         { return nil }

// event adds an event to the next step. Only the loop calls it.
func (d *dispatcher) event(e scheduler.Event) { d.events = append(d.events, e) }

// start lets the policy begin. What came early is handed to it.
func (d *dispatcher) start() {
	if d.started {
		return
	}
	d.started = true
	d.events = append([]scheduler.Event{scheduler.Start{State: &scheduler.State{}}}, d.events...)
	for _, t := range d.early {
		d.submit(t)
	}
	d.early = nil
}

// end answers everything that is in hand.
func (d *dispatcher) end() {
	d.mailbox.close()
	for _, t := range d.byWire {
		d.answer(t, notLeader())
	}
}

// notLeader is the answer of one who does not lead (any more).
func notLeader() *exchangepb.Envelope {
	return failed(errs.Maybe(errs.NotLeader, "this controller does not lead any more; send the request to the next leader"))
}

// Handle takes a request from an entry. It implements link.Handler.
func (d *dispatcher) Handle(ctx context.Context, e *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	model, err := d.lookup(e.Header)
	if err != nil {
		reply(failed(err))
		return
	}
	t := &ticket{envelope: e, reply: reply, ctx: ctx, model: scheduler.ModelID(model.Id), emulated: model.Info.GetEmulated(), arrived: d.now()}
	if e.TimeLeftNs > 0 && !e.Header.GetBestEffort() {
		t.deadline = t.arrived.Add(min(time.Duration(e.TimeLeftNs), longestDeadline))
	}
	t.stop = context.AfterFunc(ctx, func() { d.mailbox.post(func() { d.cancel(t) }) })
	if !d.mailbox.post(func() { d.admit(t) }) {
		t.stop()
		reply(failed(errs.New(errs.NotLeader, "this controller does not lead any more; send the request to the next leader")))
	}
}

// lookup finds the model that the entry has checked the request against. Its
// state may be older or newer than the leader's.
func (d *dispatcher) lookup(h *exchangepb.Header) (*logpb.Model, error) {
	var model *logpb.Model
	phase, serving := logpb.Phase_PHASE_QUERYING, false
	d.replica.Read(func(s *fsm.State) {
		phase, serving = s.Phase(), s.Serving()
		model = s.Resolve(h.GetModelName(), h.GetModelVersion())
	})
	switch {
	case !serving:
		return nil, errs.New(errs.Starting, "the cluster is in phase %s", PhaseName(phase))
	case model == nil:
		return nil, unknownModel(h.GetModelName(), h.GetModelVersion())
	case model.Info.GetDigest() != h.GetDigest():
		return nil, errs.New(errs.StaleModel, "model %s has changed since the request was checked", model.Name)
	}
	return model, nil
}

// admit takes a request in, on the loop.
func (d *dispatcher) admit(t *ticket) {
	k := wireKey{t.envelope.RequestId, t.envelope.Attempt}
	if d.byWire[k] != nil {
		t.stop()
		t.reply(failed(errs.New(errs.Invalid, "request %s, attempt %d, is already here", k.request, k.attempt)))
		return
	}
	d.byWire[k] = t
	if t.ctx.Err() != nil { // the cancel may have come before
		d.answer(t, failed(errs.New(errs.Cancelled, "the client cancelled the request")))
		return
	}
	if !d.started {
		d.early = append(d.early, t)
		return
	}
	d.submit(t)
}

// submit gives a request to the policy, under a new id.
func (d *dispatcher) submit(t *ticket) {
	if d.byWire[wireKey{t.envelope.RequestId, t.envelope.Attempt}] != t {
		return // cancelled meanwhile
	}
	d.lastID++
	t.id, t.at, t.done = d.lastID, nil, false
	d.tickets[t.id] = t
	h := t.envelope.Header
	d.event(scheduler.Submit{Request: &scheduler.Request{
		ID: t.id, Model: t.model, Rows: int(h.Rows), Class: h.ShapeClass,
		Arrived: t.arrived, Deadline: t.deadline, Priority: h.Priority, Tenant: h.Tenant,
	}})
}

// cancel is called when the request's caller has gone.
func (d *dispatcher) cancel(t *ticket) {
	k := wireKey{t.envelope.RequestId, t.envelope.Attempt}
	if d.byWire[k] != t {
		return
	}
	if t.at != nil {
		t.at.cancelRequest(k.request, t.try)
	}
	if d.tickets[t.id] == t {
		d.event(scheduler.Cancel{Request: t.id})
		return
	}
	d.answer(t, failed(errs.Maybe(errs.Cancelled, "the client cancelled the request")))
}

// answer ends a ticket.
func (d *dispatcher) answer(t *ticket, e *exchangepb.Envelope) {
	delete(d.byWire, wireKey{t.envelope.RequestId, t.envelope.Attempt})
	delete(d.byTry, t.try)
	t.stop()
	t.reply(e)
}

// complete carries out a completion.
func (d *dispatcher) complete(c *scheduler.Completion) {
	t := d.tickets[c.Request]
	if t == nil {
		return
	}
	delete(d.tickets, c.Request)
	if c.Reason == scheduler.Poisonous || c.Reason == scheduler.Unanswered {
		for _, name := range t.sufferers {
			d.workers.forgiven(name)
		}
	}
	if c.Reason != scheduler.Done {
		d.answer(t, failed(d.refusal(t, c)))
		return
	}
	t.done = true
	if t.output != nil {
		d.succeed(t)
	}
}

// waiting says whether requests for a model are in hand.
func (d *dispatcher) waiting(model scheduler.ModelID) bool {
	for _, t := range d.byWire {
		if t.model == model {
			return true
		}
	}
	return false
}

// succeed answers a request with what the worker computed.
func (d *dispatcher) succeed(t *ticket) {
	if size := len(t.output); size > d.maxMessage {
		d.answer(t, failed(&errs.Error{Reason: errs.ExecutionFailed, Execution: errs.Executed, Message: fmt.Sprintf(
			"the answer of model %s has %d bytes, and inference.max_message allows %d; send fewer rows at once", t.modelName(), size, d.maxMessage)}))
		return
	}
	worker := ""
	if t.at != nil {
		worker = t.at.options.worker
	}
	d.answer(t, &exchangepb.Envelope{Payload: t.output, Answer: &exchangepb.Answer{
		Execution: exchangepb.Execution_EXECUTION_EXECUTED,
		Worker:    worker,
		Emulated:  t.emulated,
		BatchRows: uint32(t.batchRows),
		Stages: []*exchangepb.Stage{
			{Name: "queue", DurationNs: int64(t.sent.Sub(t.arrived))},
			{Name: "worker", DurationNs: int64(t.result.Sub(t.sent))},
			{Name: "engine", DurationNs: int64(t.engine)},
			{Name: "predicted", DurationNs: int64(t.predicted)},
		},
	}})
}

// output takes an answer's tensors from a session.
func (d *dispatcher) output(s *session, e *exchangepb.Envelope) {
	d.mailbox.post(func() {
		t := d.byTry[e.Attempt]
		if t == nil || t.at != s {
			return
		}
		t.output = e.Payload
		if t.done {
			d.succeed(t)
		}
	})
}

// envelopeFor is a request as a worker gets it. Its attempt there is the
// dispatcher's own number: the same request may be at two workers, or twice at
// one, when the first try was given up.
func (t *ticket) envelopeFor(now scheduler.Instant) *exchangepb.Envelope {
	left := int64(0)
	if t.deadline > 0 {
		left = int64(t.deadline.Sub(now))
	}
	return &exchangepb.Envelope{
		RequestId: t.envelope.RequestId, Attempt: t.try,
		TimeLeftNs: left, Payload: t.envelope.Payload,
	}
}
