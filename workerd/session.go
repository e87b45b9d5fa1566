package workerd

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

const (
	// controlBytes bounds the results that wait until a leader reads them.
	controlBytes = 16 << 20
	// dataBytes bounds the outputs that wait until a leader reads them.
	dataBytes = 256 << 20
)

var (
	errGoodbye = status.Error(codes.Unavailable, "the worker is shutting down")
	errNoOpen  = status.Error(codes.InvalidArgument, "the first message of a stream must open its session: leader with cluster id, session id")
)

// session is the rule of one leader over one pair of streams. Its Control stream makes it; its Data stream may come
// first, and then waits.
type session struct {
	id      string
	leader  *sessionpb.Leader
	control *outbox[*sessionpb.WorkerMessage]
	data    *outbox[*exchangepb.Envelope]

	opened chan struct{} // closed when the Control stream has opened it

	silence time.Duration
	hush    *time.Timer // closes the session when its leader is silent for so long

	once sync.Once
	done chan struct{} // closed by close
	err  error         // why; valid once done is closed

	// Guarded by the worker's lock.
	hasControl, hasData bool
	intake              *intake
}

func newSession(open *sessionpb.Open, silence time.Duration) *session {
	s := &session{
		id:      open.GetSessionId(),
		leader:  open.GetLeader(),
		control: newOutbox[*sessionpb.WorkerMessage](controlBytes),
		data:    newOutbox[*exchangepb.Envelope](dataBytes),
		opened:  make(chan struct{}),
		silence: silence,
		done:    make(chan struct{}),
		intake:  newIntake(strayBytes),
	}
	s.hush = time.AfterFunc(silence, func() {
		s.close(status.Errorf(codes.DeadlineExceeded, "nothing was heard from the leader for %v", silence))
	})
	return s
}

// heard puts the end by silence off.
func (s *session) heard() {
	s.hush.Reset(s.silence)
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
	s.control.finish()
	s.data.finish()
}

// send queues a message on Control. A leader that doesn't read loses its session; nobody waits for it.
func (s *session) send(m *sessionpb.WorkerMessage) {
	if err := s.control.put(m); err != nil {
		s.close(status.Error(codes.ResourceExhausted, err.Error()))
	}
}

// sendData queues envelopes on Data.
func (s *session) sendData(envelopes []*exchangepb.Envelope) {
	for _, e := range envelopes {
		if err := s.data.put(e); err != nil {
			s.close(status.Error(codes.ResourceExhausted, err.Error()))
			return
		}
	}
}

// writeControl sends what gathers for Control until the session ends.
func (s *session) writeControl(send func(*sessionpb.WorkerMessage) error) error {
	for {
		gathered := s.control.take(s.done)
		if len(gathered) == 0 {
			return s.cause()
		}
		for _, m := range mergeControl(gathered) {
			if err := send(m); err != nil {
				return err
			}
		}
	}
}

// writeData sends what gathers for Data until the session ends.
func (s *session) writeData(send func(*exchangepb.DataFrame) error) error {
	for {
		gathered := s.data.take(s.done)
		if len(gathered) == 0 {
			return s.cause()
		}
		for _, f := range frames(gathered, frameBytes) {
			if err := send(f); err != nil {
				return err
			}
		}
	}
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
