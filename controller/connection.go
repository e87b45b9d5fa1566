package controller

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// Bounds of the back-off between attempts to open a session. One that ends within
// shortSession counts as a failed attempt.
const (
	connectPauseMin = 50 * time.Millisecond
	connectPauseMax = 300 * time.Millisecond
	shortSession    = time.Second
)

// connection is the leader's relation to one worker, whether a session is open
// or not. All fields but addresses belong to the coordinator's loop.
type connection struct {
	name   string
	cancel context.CancelFunc

	// addresses are where the worker may be, the registry's first: while the
	// gossip still believes in a start of it that has died there are several, and
	// they are tried in turn.
	mu        sync.Mutex
	addresses []string
	next      int

	// visit is the present session, or what is left of the last one.
	visit
	// committing says that a command about this worker is being committed.
	committing bool
	// registeredAt is when the last registration was.
	registeredAt time.Time
	// answered says that a first attempt to connect has ended; err is why the last
	// one failed, or why the last session broke.
	answered bool
	err      error
	// since is when the worker was last registered and connected, or when the
	// leader first heard of it.
	since time.Time
	// closedInRow counts the last attempts that found the worker's port closed.
	closedInRow int
	// left is an incarnation that said that it would end.
	left string

	health health
	twins  twins
}

// visit is what belongs to one session, and begins anew with the next.
type visit struct {
	// session is nil while none is open.
	session *session
	// report is the newest; the first one opened the session.
	report *sessionpb.Report
	// registered says that this session's incarnation is registered and has been
	// told so.
	registered bool
	// up says that the scheduler has the worker, with just these models.
	up       bool
	upModels []uint64
	// held is what the worker's host memory holds, by model id: the mirror of
	// what the worker knows.
	held map[uint64]*held
	// notBefore is when a load or unload that was put off may be tried again.
	notBefore map[uint64]time.Time
	// loading counts the loads in flight; profiling are the models that are being
	// measured, by device; alone is one that is loaded or measured while nothing
	// else is, because it is suspected, 0 for none.
	loading    int
	profiling  map[uint32]uint64
	alone      uint64
	aloneSince time.Time
	// leaveAsked is when a drained worker was asked to.
	leaveAsked time.Time
	// asked is when a report was asked for, reported whether it has come; repairs
	// counts what was found to differ.
	asked    time.Time
	reported bool
	repairs  uint64
}

// held is one model in a worker's host memory.
type held struct {
	status logpb.HoldingStatus
	info   *logpb.ModelInfo
	err    string
	fault  logpb.HoldingFault
	loadNs int64
	// loading: it is on its way into memory, since began.
	loading bool
	began   time.Time
	// usedThen is how much of the host memory was counted on when that began.
	usedThen uint64
}

func (h *held) loaded() bool {
	return h != nil && h.status == logpb.HoldingStatus_HOLDING_STATUS_LOADED
}

// incarnation is that of the session's worker, or of the last one.
func (w *connection) incarnation() string { return w.report.GetWorker().GetIncarnation() }

func (w *connection) setAddresses(addresses []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addresses = addresses
}

// otherAddresses are those at which the session's worker is not.
func (w *connection) otherAddresses() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.addresses), func(a string) bool { return a == w.session.options.address })
}

// nextAddress is the address to try next; after a session that is the first.
func (w *connection) nextAddress() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	address := w.addresses[w.next%len(w.addresses)]
	w.next++
	return address
}

// keepConnected opens a session to a worker again and again until ctx ends. It
// runs on a goroutine of its own and tells the coordinator what happens.
func (k *coordinator) keepConnected(ctx context.Context, w *connection) {
	wait := connectPauseMin
	for ctx.Err() == nil {
		s, closed, err := k.open(ctx, w)
		if err != nil {
			k.mailbox.post(func() { k.unreachable(w, closed, err) })
			_ = pause(ctx, wait)
			wait = min(2*wait, connectPauseMax)
			continue
		}
		opened := time.Now()
		w.mu.Lock()
		w.next = 0
		w.mu.Unlock()
		k.mailbox.post(func() { k.connected(w, s) })
		select {
		case <-s.broken():
		case <-ctx.Done():
		}
		k.mailbox.post(func() { k.disconnected(w, s) })
		s.close()
		if time.Since(opened) > shortSession {
			wait = connectPauseMin
		}
		_ = pause(ctx, wait)
		wait = min(2*wait, connectPauseMax)
	}
}

// open opens one session. Without one, closed says that nobody listens there.
func (k *coordinator) open(ctx context.Context, w *connection) (s *session, closed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.term.c.tunables.Load().ConnectTimeout)
	defer cancel()
	o := k.sessionOptions(w.name, w.nextAddress())
	var refused atomic.Bool
	dial := o.dial
	o.dial = func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := dial(ctx, address)
		refused.Store(errors.Is(err, syscall.ECONNREFUSED))
		return conn, err
	}
	s, err = openSession(ctx, o)
	return s, refused.Load(), err
}

// sessionOptions are those of a session to a worker.
func (k *coordinator) sessionOptions(worker, address string) sessionOptions {
	c, tunables := k.term.c, k.term.c.tunables.Load()
	return sessionOptions{
		worker: worker, address: address, dial: rpc.Insistent(c.options.Dial),
		leader: k.term.leader, id: newRequestID(),
		heartbeat: tunables.Heartbeat, misses: tunables.HeartbeatMisses,
		now:     func() int64 { return int64(c.instant()) },
		output:  k.term.dispatcher.output,
		report:  func(s *session, r *sessionpb.Report) { k.mailbox.ask(func() { k.compare(s, r) }) },
		leaving: func(s *session) { k.mailbox.post(func() { k.leaving(s) }) },
	}
}

// connected takes in a new session.
func (k *coordinator) connected(w *connection, s *session) {
	report := s.first
	w.answered, w.err = true, nil
	w.visit = visit{
		session: s, report: report, asked: time.Now(), reported: true,
		held: map[uint64]*held{}, notBefore: map[uint64]time.Time{}, profiling: map[uint32]uint64{},
	}
	for _, m := range report.Models {
		if m.Status != logpb.HoldingStatus_HOLDING_STATUS_PENDING {
			w.held[m.ModelId] = &held{status: m.Status, info: m.Info, err: m.Error, loadNs: m.LoadNs}
		}
	}
	k.log.Info("worker connected", "worker", w.name, "incarnation", w.incarnation(), "models", len(report.Models))
}

// leaving takes a worker that is about to end out of the schedule: what runs
// there will still be answered.
func (k *coordinator) leaving(s *session) {
	w := k.connections[s.options.worker]
	if w == nil || w.session != s {
		return
	}
	w.left = w.incarnation()
	k.log.Info("worker leaves", "worker", w.name, "incarnation", w.left)
}

// disconnected takes the worker out of the schedule at once. That is soft: it
// is back as soon as it answers.
func (k *coordinator) disconnected(w *connection, s *session) {
	if w.session != s {
		return
	}
	if w.registered {
		w.since, w.closedInRow = time.Now(), 0
	}
	died := s.died()
	if died {
		k.blameLoads(w)
	}
	wasRegistered := w.registered
	w.session, w.err = nil, s.why()
	w.registered, w.up = false, false
	w.alone = 0
	k.term.dispatcher.mailbox.post(func() { k.term.dispatcher.workerDown(s, w.name, died) })
	cause := "silent"
	switch {
	case died:
		cause = "died"
	case w.left == w.incarnation():
		cause = "left"
	}
	k.term.c.workerMetrics.losses.WithLabelValues(cause).Inc()
	k.log.Warn("worker disconnected", "worker", w.name, "cause", s.why(), "as", cause)
	if cause != "left" && wasRegistered && k.lostAlone() {
		k.strike(w, "its sessions break")
	}
}

const (
	// togetherWindow is how close in time losses are that may have one cause, and
	// togetherShare the share of all workers that makes it the likelier one.
	togetherWindow = time.Second
	togetherShare  = 0.1
)

// lostAlone notes the loss of a session, and says whether it is the worker's own:
// when many are lost at once it is their machine, the network, or this process
// that was starved.
func (k *coordinator) lostAlone() bool {
	now := time.Now()
	k.losses = append(slices.DeleteFunc(k.losses, func(at time.Time) bool { return now.Sub(at) > togetherWindow }), now)
	return len(k.losses) <= max(1, int(togetherShare*float64(len(k.connections))))
}

// unreachable notes a failed attempt.
func (k *coordinator) unreachable(w *connection, closed bool, err error) {
	if w.err == nil || !w.answered {
		k.log.Warn("worker is unreachable", "worker", w.name, "error", err)
	}
	w.answered, w.err = true, err
	w.closedInRow++
	if !closed {
		w.closedInRow = 0
	}
}

// problem is what a worker list says of a worker without a session.
func (w *connection) problem() string {
	switch {
	case w.session != nil:
		return ""
	case w.err == nil:
		return "not connected yet"
	case w.closedInRow > 0:
		return "nobody listens at its address: its process has ended, or never began"
	}
	return status.Convert(w.err).Message()
}

// inService says whether the worker may be given models and work now.
func (w *connection) inService(s *fsm.State) bool {
	return w.registered && w.left != w.incarnation() && !w.health.quarantined(time.Now()) &&
		s.Worker(w.name).GetStatus() == logpb.WorkerStatus_WORKER_STATUS_READY
}

// isRegistered may be asked of a worker that is not known.
func (w *connection) isRegistered() bool { return w != nil && w.registered }

// holds are the models that a worker holds, by its own word and by the state's, in
// order of id.
func (k *coordinator) holds(w *connection) (ids []uint64) {
	for _, h := range k.plan.records[w.name] {
		if h.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED && h.Incarnation == w.incarnation() && w.held[h.ModelId].loaded() {
			ids = append(ids, h.ModelId)
		}
	}
	return ids
}
