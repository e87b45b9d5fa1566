package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/oip"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

const (
	// outageProbe is how often a worker is asked what it would serve.
	outageProbe = 500 * time.Millisecond
	// outageSettle bounds the wait for the first word of each worker: what was
	// held shall not all go to the one that speaks first, and one that has a
	// leader shall be heard before any is used.
	outageSettle = 300 * time.Millisecond
	// maxLost bounds the workers that are lost with one request: it may be the
	// request that kills them.
	maxLost = 2
)

// errNobody says that no worker can be asked now.
var errNobody = errors.New("no worker can be asked without a leader")

// outage is one time of serving without a leader. Its workers are those that
// the state knew when it began: nothing can be committed meanwhile.
type outage struct {
	d       *degraded
	cluster *logpb.Cluster
	cancel  context.CancelFunc
	ctx     context.Context
	wait    sync.WaitGroup
	workers []*directWorker
	// settled says that no further first word is waited for; degraded.mu guards
	// it.
	settled bool
}

// directWorker is a worker that is asked without a leader. degraded.mu guards
// what changes.
type directWorker struct {
	name, address, incarnation string

	// link is nil while there is none.
	link *link.Link
	// ready says that it would serve, led that a leader has it.
	ready, led bool
	// heard says that a first attempt to ask it has ended.
	heard bool
	// resident are the models whose weights it has on a device.
	resident map[uint64]bool
	// inHand counts what is unanswered there; released gets a token whenever it
	// falls.
	inHand   int
	released chan struct{}
}

func newOutage(d *degraded, cluster *logpb.Cluster) *outage {
	o := &outage{d: d, cluster: cluster}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	d.c.options.Replica.Read(func(s *fsm.State) {
		for _, w := range s.Workers() {
			if w.Status == logpb.WorkerStatus_WORKER_STATUS_READY && w.Kind == logpb.WorkerKind_WORKER_KIND_SESSION {
				o.workers = append(o.workers, &directWorker{
					name: w.Name, address: w.SessionAddress, incarnation: w.Incarnation, released: make(chan struct{}, 1),
				})
			}
		}
	})
	return o
}

// start connects to all workers. end must be called.
func (o *outage) start() {
	for _, w := range o.workers {
		o.wait.Go(func() {
			for o.ctx.Err() == nil {
				o.visit(w)
				o.d.change(func() { w.heard = true })
				_ = pause(o.ctx, connectPauseMax)
			}
		})
	}
	o.wait.Go(func() {
		_ = pause(o.ctx, outageSettle)
		o.d.change(func() { o.settled = true })
	})
}

// end lets what is at workers be answered, for a moment, and closes all links.
func (o *outage) end() {
	o.cancel()
	o.wait.Wait()
}

// serves says whether some worker would serve, and none says that there is a
// leader: then that one has to be waited for. The lock is held.
func (o *outage) serves() bool {
	for _, w := range o.workers {
		if w.led || !w.heard && !o.settled {
			return false
		}
	}
	return o.willing() > 0
}

// willing counts the workers that would serve. The lock is held.
func (o *outage) willing() (n int) {
	for _, w := range o.workers {
		if w.ready {
			n++
		}
	}
	return n
}

// visit opens one link to a worker, and asks over it what the worker would
// serve, until it breaks or the outage ends.
func (o *outage) visit(w *directWorker) {
	options := o.d.c.options
	options.MaxMessage = rpc.MaxMessageLimit // what is too long is found out in call
	l, closeConns, err := openLink(o.ctx, w.address, options)
	if err != nil {
		o.d.c.log.Debug("no link to a worker", "worker", w.name, "error", err)
		return
	}
	defer closeConns()
	defer l.Close()
	o.d.change(func() { w.link = l })
	defer o.d.change(func() { w.link, w.ready, w.led, w.resident = nil, false, false, nil })
	for {
		o.probe(w, l)
		timer := time.NewTimer(outageProbe)
		select {
		case <-timer.C:
			continue
		case <-l.Broken():
		case <-o.ctx.Done():
			o.drain(w, l)
		}
		timer.Stop()
		return
	}
}

// probe asks a worker whether it would serve, and with which weights.
func (o *outage) probe(w *directWorker, l *link.Link) {
	ctx, cancel := context.WithTimeout(o.ctx, identifyTimeout)
	defer cancel()
	report := &sessionpb.Report{}
	answer, err := l.Call(ctx, &exchangepb.Envelope{
		RequestId: newRequestID(), Attempt: 1, Header: &exchangepb.Header{Leaderless: o.leaderless(w)},
	})
	if err == nil {
		err = grpcerr.FromAnswer(answer.Answer)
	}
	if err == nil {
		err = proto.Unmarshal(answer.Payload, report)
	}
	if err != nil && o.ctx.Err() != nil {
		return
	}
	resident := map[uint64]bool{}
	for _, d := range report.Devices {
		for _, m := range d.Resident {
			resident[m.ModelId] = resident[m.ModelId] || !m.Loading
		}
	}
	if err != nil {
		o.d.c.log.Debug("a worker would not serve without a leader", "worker", w.name, "error", err)
	}
	ready, led := err == nil, errors.Is(err, errs.NotLeader)
	o.d.mu.Lock()
	same := w.heard && w.ready == ready && w.led == led && maps.Equal(w.resident, resident)
	o.d.mu.Unlock()
	if !same {
		o.d.change(func() { w.heard, w.ready, w.led, w.resident = true, ready, led, resident })
	}
}

func (o *outage) leaderless(w *directWorker) *exchangepb.Leaderless {
	return &exchangepb.Leaderless{ClusterId: o.cluster.Id, Epoch: o.cluster.Epoch, Incarnation: w.incarnation}
}

// drain waits until nothing is at the worker any more, but not for long.
func (o *outage) drain(w *directWorker, l *link.Link) {
	timer := time.NewTimer(degradedDrain)
	defer timer.Stop()
	for {
		o.d.mu.Lock()
		idle := w.inHand == 0
		o.d.mu.Unlock()
		if idle {
			return
		}
		select {
		case <-w.released:
		case <-l.Broken():
			return
		case <-timer.C:
			return
		}
	}
}

// choose takes the worker with the least in hand that would serve a model and
// was not tried; release must be called on it. It returns nil if there is none.
func (o *outage) choose(model uint64, tried map[*directWorker]bool) (best *directWorker, l *link.Link) {
	holds := map[string]bool{}
	o.d.c.options.Replica.Read(func(s *fsm.State) {
		for _, h := range s.Holdings(model) {
			holds[h.Worker] = h.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED
		}
	})
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	if o.d.outage != o || !o.d.serving {
		return nil, nil
	}
	for _, i := range rand.Perm(len(o.workers)) {
		w := o.workers[i]
		if w.ready && w.resident[model] && holds[w.name] && !tried[w] && !w.link.Closing() && (best == nil || w.inHand < best.inHand) {
			best = w
		}
	}
	if best == nil {
		return nil, nil
	}
	best.inHand++
	return best, best.link
}

func (o *outage) release(w *directWorker) {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	w.inHand--
	select {
	case w.released <- struct{}{}:
	default:
	}
}

// call sends a request to one worker after the other until it is answered. It
// fails with errNobody when none can be asked now.
func (o *outage) call(ctx context.Context, c *call) (*exchangepb.Envelope, error) {
	model := c.local()
	if model.GetInfo() == nil {
		return nil, errs.New(errs.NoLeader,
			"model %q is not known here, or not as a loaded one, and there is no leader to ask", c.request.ModelName).After(time.Second)
	}
	shape, err := c.fits(model)
	if err != nil {
		return nil, err
	}
	tried := map[*directWorker]bool{}
	full := errNobody
	for {
		w, l := o.choose(model.Id, tried)
		if w == nil {
			if now, _ := o.d.current(); now != o {
				return nil, errNobody
			}
			return nil, full
		}
		answer, err := o.ask(ctx, c, w, l, header(c, model, shape))
		if err == nil || ctx.Err() != nil {
			return answer, err
		}
		c.maybe = c.maybe || errs.From(err).Execution != errs.NotExecuted
		if errors.Is(err, errs.Overloaded) {
			tried[w], full = true, err
			continue
		}
		if !o.learn(w, l, model.Id, err) {
			return nil, err
		}
		if errors.Is(err, link.ErrBroken) {
			if c.lost++; c.lost >= maxLost {
				return nil, errNobody
			}
		}
	}
}

// header is the call's, such that a worker, which doesn't know an operator's
// bound on rows, makes no batch that is larger: only equal classes merge.
func header(c *call, model *logpb.Model, shape oip.Shape) *exchangepb.Header {
	h := c.header(model, shape)
	if model.MaxRows > 0 {
		h.ShapeClass += "#" + c.id
	}
	return h
}

// ask makes one attempt at one worker, and releases it.
func (o *outage) ask(ctx context.Context, c *call, w *directWorker, l *link.Link, header *exchangepb.Header) (*exchangepb.Envelope, error) {
	defer o.release(w)
	header.Leaderless = o.leaderless(w)
	answer, err := c.send(ctx, header, l.Call)
	if err != nil {
		return nil, err
	}
	if size, limit := len(answer.Payload), o.d.c.options.MaxMessage; size > limit {
		return nil, &errs.Error{Reason: errs.ExecutionFailed, Execution: errs.Executed, Message: fmt.Sprintf(
			"the answer of model %q has %d bytes, and inference.max_message allows %d; send fewer rows at once", header.ModelName, size, limit)}
	}
	answer.Answer.Degraded = true
	o.d.answers.Inc()
	return answer, nil
}

// learn takes in why a worker did not answer. It says whether another one may.
func (o *outage) learn(w *directWorker, l *link.Link, model uint64, err error) bool {
	var known func() bool
	var alter func()
	switch {
	case errors.Is(err, errs.NotLeader):
		known, alter = func() bool { return !w.ready && w.led }, func() { w.ready, w.led = false, true }
	case errors.Is(err, errs.NotLoaded):
		known, alter = func() bool { return !w.resident[model] }, func() { delete(w.resident, model) }
	case errors.Is(err, errs.Precondition), errors.Is(err, errs.ShuttingDown), errors.Is(err, link.ErrBroken):
		known, alter = func() bool { return !w.ready }, func() { w.ready = false }
	default:
		return false
	}
	// What many requests learn at once is told to those who wait only once.
	o.d.mu.Lock()
	old := w.link != l || known()
	o.d.mu.Unlock()
	if !old {
		o.d.change(func() {
			if w.link == l {
				alter()
			}
		})
	}
	return true
}
