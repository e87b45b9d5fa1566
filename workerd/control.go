package workerd

import (
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// ended makes the regular end of a stream no error.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// sessionOf says whether the leader may have a session, and finds the one that its other stream has made, or makes it. The
// lock is held.
func (w *Worker) sessionOf(open *sessionpb.Open) (*session, error) {
	if w.closing {
		return nil, errGoodbye
	}
	if open.GetSessionId() == "" || open.GetLeader().GetClusterId() == "" {
		return nil, errNoOpen
	}
	if name := open.GetWorker(); name != "" && name != w.options.Name {
		return nil, status.Errorf(codes.FailedPrecondition, "this is worker %s, not %s: the address has changed hands", w.options.Name, name)
	}
	if at := w.fence.judge(open.GetLeader()); at == standingStale || at == standingForeign {
		w.log.Warn("session refused", "leader", open.GetLeader().GetName(), "cluster", open.GetLeader().GetClusterId(),
			"epoch", open.GetLeader().GetEpoch(), "term", open.GetLeader().GetTerm(), "newest_term", w.fence.newest.GetTerm())
		return nil, &staleLeader{w.fence.newest}
	}
	s := w.sessions[open.GetSessionId()]
	if s != nil && (&fence{s.leader}).judge(open.GetLeader()) != standingSame {
		return nil, status.Errorf(codes.AlreadyExists, "session %s belongs to another leader", s.id)
	}
	if s == nil {
		s = newSession(open, w.options.LeaderSilence)
		s.results = w.results
		w.sessions[s.id] = s
	}
	return s, nil
}

// openControl makes a session the current one. What its predecessor had queued is dropped, what runs is finished but not
// answered: the report that opens the session says what is there.
func (w *Worker) openControl(open *sessionpb.Open) (*session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := w.sessionOf(open)
	switch {
	case err != nil:
		return nil, err
	case s.hasControl:
		return nil, status.Errorf(codes.AlreadyExists, "session %s is open; use a new session id", s.id)
	}
	if open.GetProbe() { // whoever has a session here keeps it
		s.probe, s.hasControl, s.heardAt = true, true, w.clock()
		s.send(&sessionpb.WorkerMessage{Opened: &sessionpb.Opened{Newest: w.fence.newest}, Report: w.report()})
		close(s.opened)
		return s, nil
	}
	w.fence.admit(open.GetLeader())
	if w.current != nil {
		w.supersede(w.current)
	}
	w.current = s
	s.hasControl, s.heardAt = true, w.clock()
	w.displaceDirect(s)
	s.send(&sessionpb.WorkerMessage{Opened: &sessionpb.Opened{Newest: w.fence.newest}, Report: w.report()})
	close(s.opened)
	w.log.Info("session opened", "session", s.id, "leader", s.leader.GetName(), "epoch", s.leader.GetEpoch(), "term", s.leader.GetTerm())
	return s, nil
}

// openData attaches a Data stream to its session, or makes one that waits for its Control stream.
func (w *Worker) openData(open *sessionpb.Open) (*session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := w.sessionOf(open)
	switch {
	case err != nil:
		return nil, err
	case s.hasData:
		return nil, status.Errorf(codes.AlreadyExists, "session %s has a Data stream; use a new session id", s.id)
	}
	s.hasData = true
	return s, nil
}

// leave ends a session when one of its streams has ended; both call it. While the worker shuts down, the other stream may
// still send what waits.
func (w *Worker) leave(s *session, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.hush.Stop()
	s.finish()
	if !w.closing {
		s.close(cause)
	}
	if w.sessions[s.id] != s {
		return
	}
	delete(w.sessions, s.id)
	w.superseded = slices.DeleteFunc(w.superseded, func(other *session) bool { return other == s })
	w.drop(s)
	if w.current == s {
		w.current = nil
	}
	w.log.Info("session ended", "session", s.id, "leader", s.leader.GetName(), "term", s.leader.GetTerm(), "cause", cause)
}

// drop forgets the actions and payloads of a session. The lock is held.
func (w *Worker) drop(s *session) {
	for e := range w.executors() {
		e.drop(s)
	}
	s.intake = newIntake(strayBytes)
}

// receive acts on a message of Control.
func (w *Worker) receive(s *session, m *sessionpb.LeaderMessage) {
	now := w.clock()
	w.mu.Lock()
	defer w.mu.Unlock()
	s.heard()
	if p := m.GetPing(); p != nil {
		s.send(&sessionpb.WorkerMessage{Pong: w.pong(s, p, now)})
	}
	live := w.current == s
	if s.beat(now) && live {
		w.displaceDirect(s)
	}
	switch {
	case live:
		w.receiveStanding(s, m)
	case s.probe && m.GetRefusal() != "":
		w.refuse(s, m.GetRefusal())
	}
	for _, a := range m.GetActions() {
		s.lastAction = max(s.lastAction, a.GetId())
		w.submit(newJob(s, a, now))
	}
	if !live {
		return
	}
	for _, c := range m.GetCancels() {
		w.cancel(s, c)
	}
	if m.GetReport() {
		s.send(&sessionpb.WorkerMessage{Report: w.report()})
	}
	s.intake.expire(now)
}

// submit queues an action, or answers why it isn't. The lock is held.
func (w *Worker) submit(j *job) {
	if err := w.route(j); err != nil {
		if codeOf(err) == sessionpb.ResultCode_RESULT_CODE_STALE {
			w.refusedStale(j)
		}
		w.answer(j, nil, err)
	}
}

// route puts an action into the queue that it belongs to. The lock is held.
func (w *Worker) route(j *job) error {
	switch {
	case j.from != origin(w.current):
		return refusef(sessionpb.ResultCode_RESULT_CODE_STALE, "not executed: leader %s of epoch %d, term %d has a newer session",
			w.fence.newest.GetName(), w.fence.newest.GetEpoch(), w.fence.newest.GetTerm())
	case w.closing:
		return errShuttingDown
	case !w.registered:
		return refusef(sessionpb.ResultCode_RESULT_CODE_NOT_REGISTERED, "incarnation %s is not registered yet", w.options.Incarnation)
	}
	id := j.action.GetModelId()
	switch j.action.GetBody().(type) {
	case *sessionpb.Action_LoadModel:
		j.run = w.host.load
	case *sessionpb.Action_UnloadModel:
		j.run = w.host.unload
	default:
		return w.routeToDevice(j)
	}
	j.ready = func(int64) bool { return w.host.free(id) }
	return w.host.executor.submit(j)
}

func (w *Worker) routeToDevice(j *job) error {
	index := int(j.action.GetDevice())
	if index >= len(w.devices) {
		return refusef(sessionpb.ResultCode_RESULT_CODE_UNKNOWN_DEVICE, "there is no device %d, only %d of them from 0", index, len(w.devices))
	}
	d := w.devices[index]
	switch j.action.GetBody().(type) {
	case *sessionpb.Action_LoadWeights:
		j.run = d.loadWeights
		return d.transfer.submit(j)
	case *sessionpb.Action_EvictWeights:
		j.run = d.evictWeights
		return d.transfer.submit(j)
	case *sessionpb.Action_Infer:
		return d.queueInfer(w.current, j)
	case *sessionpb.Action_Profile:
		j.run = d.profile
		j.ready = func(int64) bool { return !d.awaits(j.action.GetModelId()) }
		return d.inference.submit(j)
	default:
		return refusef(sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT, "the action has no body that this worker knows; upgrade the worker")
	}
}

// answer completes the result of a job and sends it, unless its session is over. The lock is held.
func (w *Worker) answer(j *job, r *sessionpb.Result, err error) {
	if r == nil {
		r = &sessionpb.Result{}
	}
	if err != nil {
		r.Code, r.Message = codeOf(err), err.Error()
	}
	if p, ok := errors.AsType[*panicked](err); ok {
		w.log.Error("panic while executing an action", "model", j.action.GetModelId(), "panic", p.value, "stack", string(p.stack))
	}
	r.ActionId, r.ReceivedNs, r.StartedNs, r.EndedNs = j.action.GetId(), j.received, j.started, w.clock()
	if index := int(j.action.GetDevice()); index < len(w.devices) {
		d := w.devices[index]
		r.FreePages = uint32(d.cache.free)
		d.inference.poke() // it may have waited for this load
	}
	j.from.settle(j, r)
}

// cancel leaves a request out of its batch if that hasn't started. The lock is held.
func (w *Worker) cancel(s *session, c *exchangepb.Cancel) {
	j := s.intake.cancel(itemKey{c.GetRequestId(), c.GetAttempt()})
	if j == nil {
		return
	}
	inference := w.devices[j.action.GetDevice()].inference
	inference.poke()
	for _, it := range j.items {
		if !it.cancelled {
			return
		}
	}
	for _, removed := range inference.cancel(func(other *job) bool { return other == j }) {
		w.answer(removed, nil, errCancelled)
	}
}

// receiveData takes payloads in. They are decoded without the lock.
func (w *Worker) receiveData(s *session, m *sessionpb.LeaderData) {
	w.mu.Lock()
	s.heard()
	w.mu.Unlock()
	for _, e := range m.GetEnvelopes() {
		payload := decode(e)
		w.mu.Lock()
		if w.current == s {
			if j := s.intake.arrive(payload, w.clock()); j != nil {
				w.devices[j.action.GetDevice()].inference.poke()
			}
		}
		w.mu.Unlock()
	}
}
