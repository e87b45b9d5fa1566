package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/oip"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// Bounds of the wait before a request is sent again after a passing refusal.
const (
	retryPause    = 10 * time.Millisecond
	retryPauseMax = 160 * time.Millisecond
)

// retryAfter grows with the attempts, and is random: thousands of requests may
// be held, and a new leader needs a moment.
func retryAfter(attempts uint32) time.Duration {
	d := min(retryPause<<min(attempts, 10), retryPauseMax)
	return d/2 + rand.N(d/2)
}

// call is one request on its way through the entry.
type call struct {
	e       *entry
	request *inferencepb.ModelInferRequest
	payload []byte
	tenant  string
	// priority is as the client gave it.
	priority uint64
	// bestEffort: nobody asked for a deadline.
	bestEffort bool
	arrived    time.Time
	id         string
	attempt    uint32
	// waiting says that an attempt is under way whose outcome nobody told.
	waiting bool
	// maybe says that an earlier attempt may have been executed.
	maybe bool
	// lost counts the workers that were lost with it while there was no leader.
	lost int
}

// withDeadline gives the request the sooner of the client's deadline and its
// `timeout` parameter; without either the model's SLO; without that the default.
func (c *call) withDeadline(ctx context.Context) (context.Context, context.CancelFunc, error) {
	timeout, ok, err := oip.Timeout(c.request)
	if err != nil {
		return nil, nil, err
	}
	_, deadlined := ctx.Deadline()
	if !ok && !deadlined {
		// While the cluster starts nobody knows the SLO yet: the buffer's time
		// bounds the wait.
		if err := c.waitForServing(ctx); err != nil {
			return nil, nil, err
		}
		ok = true
		if model := c.local(); model.GetSloNs() > 0 {
			timeout = time.Duration(model.SloNs)
		} else {
			timeout, c.bestEffort = c.e.c.tunables.Load().DefaultTimeout, true
		}
	}
	if !ok {
		return ctx, func() {}, nil
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	return bounded, cancel, nil
}

// local is the model as this replica's state has it, or nil.
func (c *call) local() (model *logpb.Model) {
	c.e.c.options.Replica.Read(func(s *fsm.State) { model = s.Resolve(c.request.ModelName, c.request.ModelVersion) })
	return model
}

// run sends the request to one leader after the other until it is answered,
// or, during an outage of all leaders, to a worker.
func (c *call) run(ctx context.Context) (*exchangepb.Envelope, error) {
	if err := c.waitForServing(ctx); err != nil {
		return nil, err
	}
	why := "there is no leader"
	var tried <-chan struct{}
	for {
		way, outage, news, err := c.path(ctx, tried)
		if err != nil {
			return nil, c.ended(ctx, why)
		}
		if outage != nil {
			tried = news
			answer, err := outage.call(ctx, c)
			switch {
			case err == nil:
				return answer, nil
			case ctx.Err() != nil:
				return nil, c.ended(ctx, "there is no leader, and no worker answered in time")
			case !errors.Is(err, errNobody):
				return nil, c.honest(err)
			}
			if c.lost >= maxLost {
				why = fmt.Sprintf("there is no leader, and %d workers were lost with the request: no other one is tried", c.lost)
				continue
			}
			why = fmt.Sprintf("there is no leader, and no worker that can be reached has the weights of model %q on a device", c.request.ModelName)
			continue
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= 0 {
			return nil, c.ended(ctx, "no time was left to send the request to the leader")
		}
		answer, err := c.try(ctx, way)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, c.ended(ctx, "no leader answered in time")
		}
		if !passing(err) {
			return nil, c.honest(err)
		}
		c.maybe = c.maybe || errs.From(err).Execution != errs.NotExecuted
		if err := pause(ctx, retryAfter(c.attempt)); err != nil {
			return nil, c.ended(ctx, "the leader changed and the request could not be sent again in time")
		}
	}
}

// path waits until there is a way to the leader, or an outage during which
// workers can be asked. One of which there is no news since the last try is not
// returned again.
func (c *call) path(ctx context.Context, tried <-chan struct{}) (way, *outage, <-chan struct{}, error) {
	for {
		w, changed := c.e.c.route.current()
		if w.known() {
			return w, nil, nil, nil
		}
		o, news := c.e.c.degraded.current()
		if o != nil && news != tried && c.lost < maxLost {
			return way{}, o, news, nil
		}
		select {
		case <-changed:
		case <-news:
		case <-ctx.Done():
			return way{}, nil, nil, ctx.Err()
		}
	}
}

// honest corrects what an error says of the last attempt alone: an earlier one
// may have been executed.
func (c *call) honest(err error) error {
	e := *errs.From(err)
	if c.maybe && e.Execution == errs.NotExecuted {
		e.Execution = errs.MaybeExecuted
	}
	return &e
}

// passing says whether the request may be sent again, here or to another
// leader.
func passing(err error) bool {
	return errors.Is(err, link.ErrBroken) || errors.Is(err, errs.NotLeader) || errors.Is(err, errs.Starting) ||
		errors.Is(err, errs.StaleModel) || errors.Is(err, errs.Unreachable)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended is the error of a request whose time is over, or whose client left.
func (c *call) ended(ctx context.Context, why string) error {
	e := errs.New(errs.DeadlinePassed, "the deadline passed after %v: %s", time.Since(c.arrived).Round(time.Millisecond), why)
	if errors.Is(ctx.Err(), context.Canceled) {
		e = errs.New(errs.Cancelled, "the client cancelled the request after %v", time.Since(c.arrived).Round(time.Millisecond))
	}
	if c.waiting || c.maybe {
		e.Execution = errs.MaybeExecuted
	}
	return e
}

// try makes one attempt.
func (c *call) try(ctx context.Context, w way) (*exchangepb.Envelope, error) {
	model, shape, err := c.check(ctx, w)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, c.header(model, shape), w.call)
}

// header is what is told of the request without its payload.
func (c *call) header(model *logpb.Model, shape oip.Shape) *exchangepb.Header {
	return &exchangepb.Header{
		ModelName: c.request.ModelName, ModelVersion: c.request.ModelVersion,
		ModelId: model.Id, Digest: model.Info.Digest,
		Rows: uint32(shape.Rows), ShapeClass: shape.Class,
		Priority: c.priority, Tenant: c.tenant, BestEffort: c.bestEffort, WaitedNs: int64(time.Since(c.arrived)),
	}
}

// send makes the next attempt over a link.
func (c *call) send(ctx context.Context, header *exchangepb.Header,
	via func(context.Context, *exchangepb.Envelope) (*exchangepb.Envelope, error)) (*exchangepb.Envelope, error) {
	c.attempt++
	c.waiting = true
	answer, err := via(ctx, &exchangepb.Envelope{RequestId: c.id, Attempt: c.attempt, Payload: c.payload, Header: header})
	if err != nil {
		c.waiting = errs.From(err).Execution != errs.NotExecuted
		return nil, err
	}
	c.waiting = false
	if answer.Answer.GetCode() != uint32(codes.OK) {
		return nil, grpcerr.FromAnswer(answer.Answer)
	}
	return answer, nil
}

// check finds the model and checks the request against it. What this replica's
// own state says is enough for a yes; before it says no it asks the leader, for
// the state here may be older.
func (c *call) check(ctx context.Context, w way) (*logpb.Model, oip.Shape, error) {
	model := c.local()
	if shape, err := c.fits(model); err == nil {
		return model, shape, nil
	}
	model, err := w.resolve(ctx, c.request.ModelName, c.request.ModelVersion)
	if err != nil {
		return nil, oip.Shape{}, err
	}
	shape, err := c.fits(model)
	return model, shape, err
}

// fits checks the request against a model.
func (c *call) fits(model *logpb.Model) (oip.Shape, error) {
	if model == nil {
		return oip.Shape{}, unknownModel(c.request.ModelName, c.request.ModelVersion)
	}
	if model.Info == nil {
		return oip.Shape{}, errs.New(errs.NotLoaded,
			"model %q version %s is wanted, but no worker has loaded it yet; see `orrery model status %s`", model.Name, model.Version, model.Name)
	}
	shape, err := oip.Check(c.request, oip.Signature(model.Info.Signature), maxRows(model))
	if err != nil {
		return oip.Shape{}, err
	}
	return shape, withinLargest(c.request, model)
}

// withinLargest refuses inputs that are larger than what was declared when the model
// was loaded, and so than what was measured.
func withinLargest(r *inferencepb.ModelInferRequest, model *logpb.Model) error {
	for _, declared := range model.Largest {
		for _, in := range r.Inputs {
			own := in.Shape
			if model.Info.Signature.GetBatched() && len(own) > 0 {
				own = own[1:]
			}
			for i := range min(len(own), len(declared.Shape)) {
				if in.Name == declared.Name && own[i] > declared.Shape[i] {
					return errs.New(errs.Invalid, "input %q of model %q has the shape %v, and %v beside the batch is the largest that was declared when it was loaded",
						in.Name, model.Name, in.Shape, declared.Shape)
				}
			}
		}
	}
	return nil
}

// waitForServing holds the request while the cluster starts up: until it
// serves, the buffer's time is over, or the deadline passes. It does not fail
// at once, so that a client that retries in a loop does not spam.
func (c *call) waitForServing(ctx context.Context) error {
	buffer := time.NewTimer(c.e.c.tunables.Load().InferBuffer)
	defer buffer.Stop()
	for {
		changed := c.e.c.options.Replica.Changed(fsm.Cluster)
		serving := false
		c.e.c.options.Replica.Read(func(s *fsm.State) { serving = s.Serving() })
		if serving {
			return nil
		}
		select {
		case <-changed:
		case <-buffer.C:
			return errs.New(errs.Starting,
				"the cluster is starting: it is %s, and did not begin to serve within the %v that a request is buffered (startup.infer_buffer); see `orrery startup status`",
				c.e.startup(), time.Since(c.arrived).Round(time.Millisecond)).After(time.Second)
		case <-ctx.Done():
			return c.ended(ctx, fmt.Sprintf("the cluster is starting: it is %s", c.e.startup()))
		}
	}
}

// unknownModel is the refusal of a request for a model that nobody wants.
func unknownModel(name, version string) error {
	if version == "" {
		return errs.New(errs.UnknownModel, "there is no model %q; `orrery model list` shows the models, `orrery model load` adds one", name)
	}
	return errs.New(errs.UnknownModel, "there is no model %q of version %q; `orrery model list` shows the models", name, version)
}

// maxRows is the most rows of one batch of a model that has been loaded.
func maxRows(m *logpb.Model) int {
	largest := 1
	if rows := m.Info.ProfileRows; len(rows) > 0 {
		largest = int(rows[len(rows)-1])
	}
	if m.MaxRows > 0 {
		largest = min(largest, int(m.MaxRows))
	}
	return largest
}
