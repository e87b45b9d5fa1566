package controller

import (
	"context"
	"sync"
	"time"

	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// Bounds of the back-off between attempts to open a session.
const (
	connectPauseMin = 50 * time.Millisecond
	connectPauseMax = 300 * time.Millisecond
)

// connection is the leader's relation to one worker, whether a session is open
// or not. All fields but addresses belong to the coordinator's loop.
type connection struct {
	name   string
	cancel context.CancelFunc

	// addresses are where the worker may be: while the gossip still believes in
	// a start of it that has died there are several, and they are tried in turn.
	mu        sync.Mutex
	addresses []string
	next      int

	// session is nil while none is open.
	session *session
	// report is what opened the session.
	report *sessionpb.Report
	// held is what the worker's host memory holds, by model id: the mirror of
	// what the worker knows.
	held map[uint64]*held
	// notBefore is when a load or unload that was put off may be tried again.
	notBefore map[uint64]time.Time
	// loading counts the loads in flight.
	loading int
	// committing says that a command about this worker is being committed.
	committing bool
	// registeredAt is when the last one was.
	registeredAt time.Time
	// registered says that this session's incarnation is registered and has
	// been told so.
	registered bool
	// up says that the scheduler has the worker, with just these models.
	up       bool
	upModels []uint64
	// profiling says that a device of the worker is being measured.
	profiling map[uint32]bool
	// answered says that a first attempt to connect has ended.
	answered bool
	// since is when the session was lost, or the first attempt began.
	since time.Time
	err   error
}

// held is one model in a worker's host memory.
type held struct {
	status logpb.HoldingStatus
	info   *logpb.ModelInfo
	err    string
	loadNs int64
}

func (w *connection) setAddresses(addresses []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addresses = addresses
}

// nextAddress is the address to try next.
func (w *connection) nextAddress() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	return w.addresses[w.next%len(w.addresses)]
}

// keepConnected opens a session to a worker again and again until ctx ends. It
// runs on a goroutine of its own and tells the coordinator what happens.
func (k *coordinator) keepConnected(ctx context.Context, w *connection) {
	wait := connectPauseMin
	for ctx.Err() == nil {
		s, err := k.open(ctx, w)
		if err != nil {
			k.mailbox.post(func() { k.unreachable(w, err) })
			_ = pause(ctx, wait)
			wait = min(2*wait, connectPauseMax)
			continue
		}
		wait = connectPauseMin
		k.mailbox.post(func() { k.connected(w, s) })
		select {
		case <-s.broken():
		case <-ctx.Done():
		}
		k.mailbox.post(func() { k.disconnected(w, s) })
		s.close()
		_ = pause(ctx, wait)
	}
}

// open opens one session.
func (k *coordinator) open(ctx context.Context, w *connection) (*session, error) {
	c := k.term.c
	tunables := c.tunables.Load()
	ctx, cancel := context.WithTimeout(ctx, tunables.ConnectTimeout)
	defer cancel()
	return openSession(ctx, sessionOptions{
		worker: w.name, address: w.nextAddress(), dial: c.options.Dial,
		leader: k.term.leader, id: newRequestID(),
		heartbeat: tunables.Heartbeat, misses: tunables.HeartbeatMisses,
		now:    func() int64 { return int64(c.instant()) },
		output: k.term.dispatcher.output,
	})
}

// connected takes in a new session.
func (k *coordinator) connected(w *connection, s *session) {
	report := s.first
	w.session, w.report, w.answered, w.err = s, report, true, nil
	w.registered, w.up, w.upModels = false, false, nil
	w.held, w.loading, w.profiling = map[uint64]*held{}, 0, map[uint32]bool{}
	w.notBefore = map[uint64]time.Time{}
	for _, m := range report.Models {
		if m.Status != logpb.HoldingStatus_HOLDING_STATUS_PENDING {
			w.held[m.ModelId] = &held{status: m.Status, info: m.Info, err: m.Error, loadNs: m.LoadNs}
		}
	}
	k.log.Info("worker connected", "worker", w.name, "incarnation", report.Worker.GetIncarnation(), "models", len(report.Models))
}

// disconnected takes the worker out of the schedule at once. That is soft: it
// is back as soon as it answers.
func (k *coordinator) disconnected(w *connection, s *session) {
	if w.session != s {
		return
	}
	w.session, w.err, w.since = nil, s.why(), time.Now()
	w.registered, w.up = false, false
	k.term.dispatcher.mailbox.post(func() { k.term.dispatcher.workerDown(s, w.name) })
	k.log.Warn("worker disconnected", "worker", w.name, "cause", s.why())
}

// unreachable notes a failed attempt.
func (k *coordinator) unreachable(w *connection, err error) {
	if w.err == nil || !w.answered {
		k.log.Warn("worker is unreachable", "worker", w.name, "error", err)
	}
	w.answered, w.err = true, err
}
