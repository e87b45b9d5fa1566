package workerd

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/outbox"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

const (
	// controlBytes bounds the results that wait until a leader reads them.
	controlBytes = 16 << 20
	// dataBytes bounds the outputs that wait until a leader reads them.
	dataBytes = 256 << 20
	// frameBytes bounds the envelopes in one DataFrame, unless a single one is larger.
	frameBytes = 1 << 20
	// quietAfter is the least silence of a leader that counts; quietFactor times the longest one so far is another bound.
	quietAfter  = time.Second
	quietFactor = 3
)

var (
	errGoodbye = status.Error(codes.Unavailable, "the worker is shutting down")
	errUnread  = status.Error(codes.ResourceExhausted, "the leader doesn't read its stream")
	errNoOpen  = status.Error(codes.InvalidArgument, "the first message of a stream must open its session: leader with cluster id, session id")
)

// session is the rule of one leader over one pair of streams. Its Control stream makes it; its Data stream may come
// first, and then waits.
type session struct {
	id      string
	leader  *sessionpb.Leader
	control *outbox.Box[*sessionpb.WorkerMessage]
	data    *outbox.Box[*exchangepb.Envelope]
	// dataLimit bounds what waits in data, bytes.
	dataLimit int
	// unread are the bytes in data, and in the message that is being sent.
	unread atomic.Int64

	opened chan struct{} // closed when the Control stream has opened it

	once sync.Once
	done chan struct{} // closed by close
	err  error         // why; valid once done is closed

	// Guarded by the worker's lock.
	hasControl, hasData bool
	// probe: it is there to be asked, and never the current one.
	probe   bool
	intake  *intake
	silence time.Duration
	hush    *time.Timer // closes the session when its leader is silent for so long
	// lastAction is the newest that has arrived.
	lastAction uint64
	// told is, by device, the count of moves that the last heartbeat told of; nil before the first one.
	told []uint64
	// heardAt is when Control was last heard, longest the longest silence before; worker's clock.
	heardAt, longest int64
	// results counts what was answered, by code; it is the worker's.
	results map[sessionpb.ResultCode]uint64
}

func newSession(open *sessionpb.Open, silence time.Duration) *session {
	s := &session{
		id:        open.GetSessionId(),
		leader:    open.GetLeader(),
		control:   outbox.New(controlBytes, func(m *sessionpb.WorkerMessage) int { return proto.Size(m) }),
		data:      outbox.New(frameBytes, func(e *exchangepb.Envelope) int { return proto.Size(e) }),
		dataLimit: dataBytes,
		opened:    make(chan struct{}),
		done:      make(chan struct{}),
		intake:    newIntake(strayBytes),
	}
	s.watch(silence)
	return s
}

// watch ends the session when its leader is silent for so long from now on.
func (s *session) watch(silence time.Duration) {
	if s.hush != nil {
		s.hush.Stop()
	}
	s.silence = silence
	s.hush = time.AfterFunc(silence, func() {
		s.close(status.Errorf(codes.DeadlineExceeded, "nothing was heard from the leader for %v", silence))
	})
}

// heard puts the end by silence off.
func (s *session) heard() {
	s.hush.Reset(s.silence)
}

// beat notes that Control was heard, and says whether it had been quiet.
func (s *session) beat(now int64) bool {
	quiet := s.quiet(now)
	s.longest = max(s.longest, now-s.heardAt)
	s.heardAt = now
	return quiet
}

// quiet says whether the leader has been silent for so much longer than usual that it has to be taken for gone, although
// nothing has ended the session yet.
func (s *session) quiet(now int64) bool {
	return now-s.heardAt > min(int64(s.silence), max(int64(quietAfter), quietFactor*s.longest))
}

// begin implements origin.
func (s *session) begin(j *job) { s.intake.forget(j) }

// deliver implements origin.
func (s *session) deliver(outputs []*exchangepb.Envelope) { s.sendData(outputs) }

// settle implements origin.
func (s *session) settle(j *job, r *sessionpb.Result) {
	s.results[r.GetCode()]++
	s.intake.forget(j)
	if !j.dropped {
		s.send(&sessionpb.WorkerMessage{Results: []*sessionpb.Result{r}})
	}
}

// close ends both streams. Only the first error counts.
func (s *session) close(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.done)
	})
}

// cause is why the session ended, or, when it was finished, the goodbye.
func (s *session) cause() error {
	select {
	case <-s.done:
		return s.err
	default:
		return errGoodbye
	}
}

// finish has both streams end once what waits has been sent.
func (s *session) finish() {
	s.control.Finish()
	s.data.Finish()
}

// send queues a message on Control. A leader that doesn't read loses its session; nobody waits for it.
func (s *session) send(m *sessionpb.WorkerMessage) {
	if !s.control.PutWithin(controlBytes, m) {
		s.close(errUnread)
	}
}

// sendData queues envelopes on Data.
func (s *session) sendData(envelopes []*exchangepb.Envelope) {
	for _, e := range envelopes {
		s.unread.Add(int64(proto.Size(e)))
		if !s.data.PutWithin(s.dataLimit, e) {
			s.close(errUnread)
			return
		}
	}
}

// writeControl sends what gathers for Control until the session ends.
func (s *session) writeControl(send func(*sessionpb.WorkerMessage) error) error {
	err := s.control.Drain(s.done, func(gathered []*sessionpb.WorkerMessage) error {
		for _, m := range mergeControl(gathered) {
			if err := send(m); err != nil {
				return err
			}
		}
		return nil
	})
	return cmp.Or(err, s.cause())
}

// writeData sends what gathers for Data until the session ends.
func (s *session) writeData(send func(*exchangepb.DataFrame) error) error {
	err := s.data.Drain(s.done, func(gathered []*exchangepb.Envelope) error {
		defer func() {
			for _, e := range gathered {
				s.unread.Add(-int64(proto.Size(e)))
			}
		}()
		return send(&exchangepb.DataFrame{Envelopes: gathered})
	})
	return cmp.Or(err, s.cause())
}

// mergeControl makes few messages of many, without changing their order: a message holds at most one pong, and what
// came before or after a report or a goodbye doesn't share its message, since a report is true for the moment at which it
// was made, and what comes after a goodbye is to be read in its light.
func mergeControl(gathered []*sessionpb.WorkerMessage) []*sessionpb.WorkerMessage {
	merged := gathered[:1]
	for _, m := range gathered[1:] {
		last := merged[len(merged)-1]
		if last.Leaving || m.Leaving || last.Report != nil || m.Report != nil || m.Opened != nil || last.Pong != nil && m.Pong != nil {
			merged = append(merged, m)
			continue
		}
		if m.Pong != nil {
			last.Pong = m.Pong
		}
		last.Results = append(last.Results, m.Results...)
	}
	return merged
}

// staleLeader is the error of a leader that may not open a session.
type staleLeader struct {
	newest *sessionpb.Leader
}

func (e *staleLeader) Error() string {
	return fmt.Sprintf("leader %s of cluster %s, epoch %d, term %d is known here: the caller is not its successor",
		e.newest.GetName(), e.newest.GetClusterId(), e.newest.GetEpoch(), e.newest.GetTerm())
}

// Control implements sessionpb.SessionServer.
func (w *Worker) Control(stream sessionpb.Session_ControlServer) error {
	err := w.serve(
		func(opened chan<- *session) error { return w.readControl(stream, opened) },
		func(s *session) error { return s.writeControl(stream.Send) },
	)
	if stale, ok := errors.AsType[*staleLeader](err); ok {
		return stream.Send(&sessionpb.WorkerMessage{Opened: &sessionpb.Opened{Stale: true, Newest: stale.newest}})
	}
	return err
}

// Data implements sessionpb.SessionServer.
func (w *Worker) Data(stream sessionpb.Session_DataServer) error {
	err := w.serve(
		func(opened chan<- *session) error { return w.readData(stream, opened) },
		func(s *session) error { return s.writeData(stream.Send) },
	)
	if stale, ok := errors.AsType[*staleLeader](err); ok {
		return status.Error(codes.FailedPrecondition, stale.Error())
	}
	return err
}

// serve runs the reader and the writer of a stream until one of them ends or the session is over. Returning from a
// handler is what ends a blocked Recv or Send, so the worker, not the handler, waits for the two. The reader is the one
// that opens the session and leaves it.
func (w *Worker) serve(read func(opened chan<- *session) error, write func(*session) error) error {
	if !w.enter() {
		return errGoodbye
	}
	defer w.streams.Done()

	ended := make(chan error, 2)
	opened := make(chan *session, 1)
	w.streams.Go(func() { ended <- read(opened) })
	wait := time.NewTimer(w.options.LeaderSilence)
	defer wait.Stop()
	var s *session
	select {
	case s = <-opened:
	case err := <-ended:
		return err
	case <-wait.C:
		return status.Errorf(codes.DeadlineExceeded, "no session was opened within %v", w.options.LeaderSilence)
	case <-w.stopping:
		return errGoodbye
	}
	w.streams.Go(func() { ended <- write(s) })
	select {
	case err := <-ended:
		return err
	case <-s.done:
		return s.err
	}
}

// enter counts a stream, unless the worker is closing.
func (w *Worker) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return false
	}
	w.streams.Add(1)
	return true
}

func (w *Worker) readControl(stream sessionpb.Session_ControlServer, opened chan<- *session) (err error) {
	m, err := stream.Recv()
	if err != nil {
		return ended(err)
	}
	s, err := w.openControl(m.GetOpen())
	if err != nil {
		return err
	}
	defer func() { w.leave(s, err) }()
	opened <- s
	for {
		w.receive(s, m)
		if m, err = stream.Recv(); err != nil {
			return ended(err)
		}
	}
}

func (w *Worker) readData(stream sessionpb.Session_DataServer, opened chan<- *session) (err error) {
	m, err := stream.Recv()
	if err != nil {
		return ended(err)
	}
	s, err := w.openData(m.GetOpen())
	if err != nil {
		return err
	}
	defer func() { w.leave(s, err) }()
	select {
	case <-s.opened:
	case <-s.done:
		return s.err
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	opened <- s
	for {
		w.receiveData(s, m)
		if m, err = stream.Recv(); err != nil {
			return ended(err)
		}
	}
}
