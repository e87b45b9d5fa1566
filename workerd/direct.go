package workerd

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// This file takes requests from controllers that have no leader. They come over links, and are served first come, first
// served, only with weights that are on a device already, and only while no leader's session is live: so there are never
// two schedulers at a device, and nothing but time on a device is ever given away without a leader.

const (
	// directLinkRequests and directLinkBytes bound what one controller may have unanswered here.
	directLinkRequests = 1024
	directLinkBytes    = 64 << 20
	// directBytes bounds the unanswered requests of all controllers together.
	directBytes = 256 << 20
	// directRetry is when a controller that was refused for want of room may try again.
	directRetry = 100 * time.Millisecond
)

// direct is the account of what came without a leader. The worker's lock guards it.
type direct struct {
	// requests and bytes are unanswered.
	requests int
	bytes    int
	// results counts answers by code.
	results map[sessionpb.ResultCode]uint64
}

// directHandler is the accepting end of controllers' links. It implements link.Handler.
type directHandler struct{ *Worker }

// Handle implements link.Handler. A request that names no model only asks whether this worker would serve: the answer's
// payload is a sessionpb.Report of its devices.
func (h directHandler) Handle(ctx context.Context, e *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	// What is refused anyway is not decoded.
	report, err := h.judgeDirect(e)
	if report != nil || err != nil {
		reply(directAnswer(report, err))
		return
	}
	payload := decode(e)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.takeDirect(ctx, e, payload, reply); err != nil {
		h.direct.results[directCode(err)]++
		reply(directAnswer(nil, err))
	}
}

// directAnswer is a report, or a refusal.
func directAnswer(report *sessionpb.Report, err error) *exchangepb.Envelope {
	if err == nil {
		var payload []byte
		if payload, err = proto.Marshal(report); err == nil {
			return &exchangepb.Envelope{Payload: payload, Answer: &exchangepb.Answer{Execution: exchangepb.Execution_EXECUTION_NOT_EXECUTED}}
		}
	}
	return &exchangepb.Envelope{Answer: grpcerr.Answer(err)}
}

// judgeDirect refuses a request, or answers the one that only asks.
func (w *Worker) judgeDirect(e *exchangepb.Envelope) (*sessionpb.Report, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	asks := e.GetHeader().GetModelId() == 0
	err := w.mayServe(e.GetHeader().GetLeaderless())
	if err != nil && !asks {
		w.direct.results[directCode(err)]++
	}
	if err != nil || !asks {
		return nil, err
	}
	r := &sessionpb.Report{WorkerNs: w.clock(), Registered: w.registered}
	for _, d := range w.devices {
		r.Devices = append(r.Devices, d.report())
	}
	return r, nil
}

// mayServe says why nothing is executed for a controller without a leader; nil: it may be. The lock is held.
func (w *Worker) mayServe(l *exchangepb.Leaderless) error {
	name, newest := w.options.Name, w.fence.newest
	switch {
	case w.closing:
		return errs.New(errs.ShuttingDown, "worker %s is shutting down", name)
	case l == nil:
		return errs.New(errs.Invalid, "worker %s takes requests from its leader's session, and here only from controllers that have no leader", name)
	case l.GetIncarnation() != w.options.Incarnation:
		return errs.New(errs.Precondition, "worker %s was restarted: %s is another start of it than %s, which the controller knows",
			name, w.options.Incarnation, l.GetIncarnation())
	case !w.registered:
		return errs.New(errs.Precondition, "no leader has registered this start of worker %s, %s, yet", name, w.options.Incarnation)
	case l.GetClusterId() != newest.GetClusterId():
		return errs.New(errs.Precondition, "worker %s belongs to cluster %s, not to %s", name, newest.GetClusterId(), l.GetClusterId())
	case l.GetEpoch() < newest.GetEpoch():
		return errs.New(errs.Precondition, "worker %s is in epoch %d: the controller's state, of epoch %d, is older", name, newest.GetEpoch(), l.GetEpoch())
	case w.current != nil && !w.current.quiet(w.clock()):
		return errs.New(errs.NotLeader, "worker %s is led by %s, of epoch %d and term %d; ask that leader",
			name, w.current.leader.GetName(), w.current.leader.GetEpoch(), w.current.leader.GetTerm())
	}
	return nil
}

// takeDirect queues a request, or says why it isn't. The lock is held.
func (w *Worker) takeDirect(ctx context.Context, e *exchangepb.Envelope, payload *item, reply func(*exchangepb.Envelope)) error {
	h := e.GetHeader()
	if err := w.mayServe(h.GetLeaderless()); err != nil { // it may have changed since judgeDirect
		return err
	}
	if w.direct.requests >= w.options.MaxQueued || w.direct.requests > 0 && w.direct.bytes+payload.bytes > directBytes {
		return w.overloaded()
	}
	if e.GetTimeLeftNs() <= 0 {
		return errs.New(errs.DeadlinePassed, "the request has no time left")
	}
	d, m, err := w.deviceWith(h.GetModelId(), h.GetDigest())
	if err != nil {
		return err
	}
	rows := int(h.GetRows())
	if most := maxRows(m); rows < 1 || rows > most {
		return errs.New(errs.Invalid, "the request has %d rows, and model %s takes 1 to %d", rows, m.name, most)
	}
	payload.rows = rows
	now := w.clock()
	a := &ask{item: payload, reply: reply, received: now, deadline: now + min(e.GetTimeLeftNs(), int64(24*time.Hour))}
	b := d.joinable(m, h.GetShapeClass(), payload)
	if b == nil {
		b = newDirectBatch(w, d, m, h.GetShapeClass())
		if err := b.submit(a.deadline); err != nil {
			return w.overloaded()
		}
	}
	b.add(a)
	w.direct.requests++
	w.direct.bytes += payload.bytes
	a.stop = context.AfterFunc(ctx, func() { b.cancel(a) })
	return nil
}

func (w *Worker) overloaded() error {
	return errs.New(errs.Overloaded, "worker %s has %d unanswered requests (%d bytes) of controllers without a leader; send more slowly",
		w.options.Name, w.direct.requests, w.direct.bytes).After(directRetry)
}

// deviceWith is the least busy device on which a model is ready to run. The lock is held.
func (w *Worker) deviceWith(id uint64, digest string) (*device, *model, error) {
	var best *device
	for _, d := range w.devices {
		if d.weights[id] != nil && (best == nil || d.inference.busy() < best.inference.busy()) {
			best = d
		}
	}
	m := w.host.held(id)
	switch {
	case m == nil:
		return nil, nil, errs.New(errs.NotLoaded, "worker %s does not hold model %d", w.options.Name, id)
	case m.info.Digest != digest:
		return nil, nil, errs.New(errs.NotLoaded, "worker %s holds model %d with the digest %s, not %s", w.options.Name, id, m.info.Digest, digest)
	case best == nil:
		return nil, nil, errs.New(errs.NotLoaded, "the weights of model %s are on no device of worker %s, and only a leader moves weights", m.name, w.options.Name)
	}
	return best, m, nil
}

// joinable is a batch that waits and that the request may be part of; nil if there is none. The lock is held.
func (d *device) joinable(m *model, class string, it *item) *directBatch {
	if !m.info.Signature.Batched {
		return nil
	}
	for _, j := range d.inference.queue.jobs {
		if b, ok := j.from.(*directBatch); ok && b.fits(m, class, it) {
			return b
		}
	}
	return nil
}

// displaceDirect refuses what waits without a leader, because a leader's session is live. What runs is finished. The lock
// is held.
func (w *Worker) displaceDirect(s *session) {
	if w.direct.requests == 0 {
		return
	}
	for _, d := range w.devices {
		waiting := d.inference.cancel(func(j *job) bool {
			_, direct := j.from.(*directBatch)
			return direct
		})
		for _, j := range waiting {
			w.answer(j, nil, refusef(sessionpb.ResultCode_RESULT_CODE_STALE,
				"not executed: worker %s is led again, by %s of term %d", w.options.Name, s.leader.GetName(), s.leader.GetTerm()))
		}
	}
}
