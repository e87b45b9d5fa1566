package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/outbox"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// sessionFrame bounds a frame of tensors that holds more than one.
const sessionFrame = 1 << 20

// errStale says that the worker knows a newer leader.
var errStale = errors.New("the worker knows a newer leader")

// sessionOptions is what opening a session takes.
type sessionOptions struct {
	worker  string // its name
	address string
	dial    rpc.DialFunc
	leader  *sessionpb.Leader
	id      string
	// probe: the session is only to find out who is there.
	probe     bool
	heartbeat time.Duration
	misses    int
	// now is the leader's clock in nanoseconds.
	now func() int64
	// output takes the answers of requests, report the reports after the first
	// one, and leaving is told that the worker is about to end. They must not
	// block.
	output  func(*session, *exchangepb.Envelope)
	report  func(*session, *sessionpb.Report)
	leaving func(*session)
}

// session is a leader's connection to one worker: actions out, results in,
// heartbeats both ways. A session that breaks is never used again.
type session struct {
	options sessionOptions
	control *outbox.Box[*sessionpb.LeaderMessage]
	data    *outbox.Box[*exchangepb.Envelope]
	conns   []*rpc.Conn
	ctx     context.Context
	cancel  context.CancelCauseFunc
	wait    sync.WaitGroup
	opened  chan struct{}
	alive   chan struct{} // a token whenever something arrives
	// first is the report that opened the session. Read after opened.
	first *sessionpb.Report

	mu       sync.Mutex
	clock    clock
	sequence uint64
	heard    int64 // leader's clock
	beat     *sessionpb.Pong
	resident map[uint32][]uint64 // by device, as heartbeats say
	lastID   uint64
	actions  map[uint64]func(*sessionpb.Result)
	left     bool // the worker has said that it is about to end
	ended    bool
}

// openSession connects to a worker and waits for its report and its clock. close must be
// called on what it returns.
func openSession(ctx context.Context, o sessionOptions) (*session, error) {
	s := &session{
		options: o,
		control: outbox.New(64, func(*sessionpb.LeaderMessage) int { return 1 }),
		data:    outbox.New(sessionFrame, func(e *exchangepb.Envelope) int { return len(e.Payload) }),
		opened:  make(chan struct{}),
		alive:   make(chan struct{}, 1),
		actions: map[uint64]func(*sessionpb.Result){}, resident: map[uint32][]uint64{}, beat: &sessionpb.Pong{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	// Until it is open the session ends with ctx, also while gRPC still dials.
	opening := context.AfterFunc(ctx, func() {
		s.cancel(fmt.Errorf("worker at %s did not report in time", o.address))
	})
	defer opening()
	if err := s.connect(); err != nil {
		s.cancel(err) // the first cause stays
	}
	select {
	case <-s.opened:
		if opening() {
			return s, nil
		}
		<-s.ctx.Done() // ctx has ended just now
	case <-s.ctx.Done():
	}
	s.close()
	return nil, context.Cause(s.ctx)
}

// connect opens both streams and starts their goroutines.
func (s *session) connect() error {
	o := s.options
	for range 2 {
		conn, err := rpc.Connect(o.address, o.dial, rpc.MaxMessageLimit)
		if err != nil {
			return err
		}
		s.conns = append(s.conns, conn)
	}
	control, err := sessionpb.NewSessionClient(s.conns[0]).Control(s.ctx)
	if err != nil {
		return err
	}
	data, err := sessionpb.NewSessionClient(s.conns[1]).Data(s.ctx)
	if err != nil {
		return err
	}
	open := &sessionpb.Open{Leader: o.leader, SessionId: o.id, Worker: o.worker, Probe: o.probe}
	s.start(func() error { return s.readControl(control) })
	s.start(func() error {
		err := s.readData(data)
		s.lastWords()
		return err
	})
	s.start(func() error {
		if err := control.Send(&sessionpb.LeaderMessage{Open: open}); err != nil {
			return s.cut(err)
		}
		return s.cut(s.control.Drain(s.ctx.Done(), func(messages []*sessionpb.LeaderMessage) error { return control.Send(merge(messages)) }))
	})
	s.start(func() error {
		if err := data.Send(&sessionpb.LeaderData{Open: open}); err != nil {
			return s.cut(err)
		}
		return s.cut(s.data.Drain(s.ctx.Done(), func(envelopes []*exchangepb.Envelope) error {
			return data.Send(&sessionpb.LeaderData{Envelopes: envelopes})
		}))
	})
	s.start(s.heartbeat)
	return nil
}

// cut makes of a writer's error what ended the session: io.EOF only says that
// the stream's reader is about to tell.
func (s *session) cut(err error) error {
	if errors.Is(err, io.EOF) {
		<-s.ctx.Done()
	}
	return err
}

// lastWordsPatience is how long the end of the data stream lets Control speak: a
// worker that leaves says so there, and both streams end.
const lastWordsPatience = 100 * time.Millisecond

func (s *session) lastWords() {
	timer := time.NewTimer(lastWordsPatience)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// start runs one of the session's goroutines; the first to return ends it.
func (s *session) start(run func() error) {
	s.wait.Go(func() { s.cancel(run()) })
}

// merge puts messages that gathered into one. Order within each field stays.
func merge(messages []*sessionpb.LeaderMessage) *sessionpb.LeaderMessage {
	all := messages[0]
	for _, m := range messages[1:] {
		all.Actions = append(all.Actions, m.Actions...)
		all.Cancels = append(all.Cancels, m.Cancels...)
		all.Report = all.Report || m.Report
		if m.Ping != nil {
			all.Ping = m.Ping
		}
		if m.RegisteredIncarnation != "" {
			all.RegisteredIncarnation = m.RegisteredIncarnation
		}
		if m.Refusal != "" {
			all.Refusal = m.Refusal
		}
		all.Leave = all.Leave || m.Leave
	}
	return all
}

// broken is closed when the session has ended.
func (s *session) broken() <-chan struct{} { return s.ctx.Done() }

// why says what ended the session.
func (s *session) why() error { return context.Cause(s.ctx) }

// died says whether the session ended because the worker's process did, as far
// as that can be told from here: its connections were closed, and it had not said
// that it would go.
func (s *session) died() bool {
	s.mu.Lock()
	left := s.left
	s.mu.Unlock()
	return !left && status.Code(s.why()) == codes.Unavailable
}

// close ends the session, waits for its goroutines, and then tells those who
// wait for results that none will come (with nil).
func (s *session) close() {
	s.cancel(errors.New("closed"))
	s.wait.Wait()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Lock()
	s.ended = true
	left := s.actions
	s.actions = nil
	s.mu.Unlock()
	for _, done := range left {
		done(nil)
	}
}

// registered tells the worker that its registration is committed.
func (s *session) registered(incarnation string) {
	s.control.Put(&sessionpb.LeaderMessage{RegisteredIncarnation: incarnation})
}

// do sends an action whose window is on the leader's clock. done is called
// exactly once, must not block, and gets nil when the session ended first.
func (s *session) do(a *sessionpb.Action, done func(*sessionpb.Result)) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		done(nil)
		return
	}
	s.lastID++
	a.Id = s.lastID
	offset, _ := s.clock.best(s.options.now())
	s.actions[a.Id] = done
	if a.EarliestNs != 0 {
		a.EarliestNs += int64(offset)
	}
	if a.LatestNs != 0 {
		a.LatestNs += int64(offset)
	}
	// Under the lock, so that actions leave in the order of their numbers: a report
	// says which was the last to arrive.
	s.control.Put(&sessionpb.LeaderMessage{Actions: []*sessionpb.Action{a}})
	s.mu.Unlock()
}

// askReport has the worker report all that it knows.
func (s *session) askReport() { s.control.Put(&sessionpb.LeaderMessage{Report: true}) }

// leave asks the worker to end its process.
func (s *session) leave() { s.control.Put(&sessionpb.LeaderMessage{Leave: true}) }

// dismissPatience is how long a refused worker may take to read why.
const dismissPatience = 200 * time.Millisecond

// dismiss tells the worker why the leader does not want it, and ends the session.
func (s *session) dismiss(why string) {
	s.control.Put(&sessionpb.LeaderMessage{Refusal: why})
	timer := time.NewTimer(dismissPatience)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
	s.cancel(errors.New(why))
}

// end ends the session.
func (s *session) end(why error) { s.cancel(why) }

// outstanding is how many actions have no result yet.
func (s *session) outstanding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.actions)
}

// input sends a request's tensors.
func (s *session) input(e *exchangepb.Envelope) { s.data.Put(e) }

// cancelRequest tells the worker that nobody waits for a request any more.
func (s *session) cancelRequest(id string, attempt uint32) {
	s.control.Put(&sessionpb.LeaderMessage{Cancels: []*exchangepb.Cancel{{RequestId: id, Attempt: attempt}}})
}

func (s *session) readControl(stream sessionpb.Session_ControlClient) error {
	open := false
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		s.hear()
		if m.Opened != nil && m.Opened.Stale {
			return fmt.Errorf("%w: %s in epoch %d, term %d", errStale, m.Opened.Newest.GetName(), m.Opened.Newest.GetEpoch(), m.Opened.Newest.GetTerm())
		}
		if m.Pong != nil {
			s.pong(m.Pong)
		}
		for _, r := range m.Results {
			s.finish(r)
		}
		switch {
		case m.Report == nil:
		case s.first == nil:
			if name := m.Report.Worker.GetName(); name != s.options.worker {
				return fmt.Errorf("the worker at %s calls itself %q, not %q", s.options.address, name, s.options.worker)
			}
			s.first = m.Report
		default:
			s.options.report(s, m.Report)
		}
		if m.Leaving {
			s.leaves()
		}
		if !open && s.first != nil && s.clocked() {
			open = true
			close(s.opened)
		}
	}
}

// leaves notes that the worker is about to end.
func (s *session) leaves() {
	s.mu.Lock()
	s.left = true
	s.mu.Unlock()
	s.options.leaving(s)
}

func (s *session) readData(stream sessionpb.Session_DataClient) error {
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, e := range frame.Envelopes {
			s.options.output(s, e)
		}
	}
}

// hear notes that something has arrived.
func (s *session) hear() {
	s.mu.Lock()
	s.heard = s.options.now()
	s.mu.Unlock()
	select {
	case s.alive <- struct{}{}:
	default:
	}
}

// clocked says whether the worker's clock is known.
func (s *session) clocked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock.count > 0
}

func (s *session) pong(p *sessionpb.Pong) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock.observe(p.LeaderNs, p.WorkerNs, s.options.now())
	s.beat = p
	for _, d := range p.Devices {
		if d.ResidentChanged {
			s.resident[d.Index] = d.Resident
		}
	}
}

// finish hands a result, with its times on the leader's clock, to whoever
// waits for it.
func (s *session) finish(r *sessionpb.Result) {
	s.mu.Lock()
	done := s.actions[r.ActionId]
	delete(s.actions, r.ActionId)
	offset, _ := s.clock.best(s.options.now())
	s.mu.Unlock()
	if r.Code == sessionpb.ResultCode_RESULT_CODE_STALE {
		s.end(fmt.Errorf("%w: %s", errStale, r.Message)) // nothing is carried out here any more
	}
	if done == nil {
		return
	}
	for _, at := range []*int64{&r.ReceivedNs, &r.StartedNs, &r.EndedNs} {
		if *at != 0 {
			*at -= int64(offset)
		}
	}
	done(r)
}

// missing ends the actions that the worker should have by its report, and knows
// nothing of. It returns how many.
func (s *session) missing(r *sessionpb.Report) (lost int) {
	s.mu.Lock()
	var ids []uint64
	for id := range s.actions {
		if id <= r.LastAction && !slices.Contains(r.Outstanding, id) {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	for _, id := range ids {
		s.finish(&sessionpb.Result{ActionId: id, Code: sessionpb.ResultCode_RESULT_CODE_LOST, Message: "the worker does not know the action any more"})
	}
	return len(ids)
}

// heartbeat sends pings, and ends the session when the worker is silent.
func (s *session) heartbeat() error {
	s.ping()
	return link.Watch(s.ctx, s.options.heartbeat, s.options.misses, s.alive, s.ping)
}

func (s *session) ping() {
	s.mu.Lock()
	s.sequence++
	ping := &sessionpb.Ping{Sequence: s.sequence, LeaderNs: s.options.now()}
	s.mu.Unlock()
	s.control.Put(&sessionpb.LeaderMessage{Ping: ping})
}

// vitals is what the session knows of the worker right now.
type vitals struct {
	heardAgo, offset, roundTrip time.Duration
	beat                        *sessionpb.Pong
	// resident are the models on each device.
	resident map[uint32][]uint64
	leaving  bool
}

func (s *session) vitals() vitals {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := vitals{heardAgo: time.Duration(s.options.now() - s.heard), beat: s.beat, resident: maps.Clone(s.resident), leaving: s.left}
	v.offset, v.roundTrip = s.clock.best(s.options.now())
	return v
}
