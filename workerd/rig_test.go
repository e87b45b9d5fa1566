package workerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

// rig is a worker that serves on a network in memory.
type rig struct {
	t      *testing.T
	net    *testnet.Network
	worker *Worker
	engine *fakeEngine
	server *grpc.Server
	stop   context.CancelFunc
	ended  chan error // of Run
}

// inBubble runs a test with a worker in virtual time. It ends only when everything that the worker started has ended.
func inBubble(t *testing.T, adjust func(*Options, *fakeEngine), test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, adjust)
		test(t, r)
		r.shutDown()
	})
}

func newRig(t *testing.T, adjust func(*Options, *fakeEngine)) *rig {
	t.Helper()
	e := &fakeEngine{name: "fake", running: make(map[int]int), sources: map[string]*fakeModel{
		"fake:a": {weightsBytes: 250, hostBytes: 400, loadTime: time.Second, weightsTime: 20 * time.Millisecond},
		"fake:b": {weightsBytes: 300, hostBytes: 400, loadTime: time.Second, weightsTime: 20 * time.Millisecond},
	}}
	options := Options{
		Name: "w1", Incarnation: "w1-first", SessionAddress: "w:8020", HostMemory: 1000,
		Labels: map[string]string{"zone": "z", "class": "c"}, Engines: []engine.Engine{e},
		Devices: []DeviceOptions{{Kind: "gpu", PageBytes: 100, Pages: 5}}, ModelDir: t.TempDir(),
	}
	if adjust != nil {
		adjust(&options, e)
	}
	w, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &rig{t: t, net: testnet.New(), worker: w, engine: e, server: grpc.NewServer(), stop: stop, ended: make(chan error, 1)}
	w.RegisterService(r.server)
	listener, err := r.net.Host("w").Listen("w:8020")
	if err != nil {
		t.Fatal(err)
	}
	go r.server.Serve(listener)
	go func() { r.ended <- w.Run(ctx) }()
	return r
}

// shutDown ends the worker, checks that it gave everything back, and says how long that took. It may be called again.
func (r *rig) shutDown() (took time.Duration) {
	r.t.Helper()
	start := time.Now()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("Run: %v", err)
		}
		r.ended <- nil
	case <-time.After(time.Minute):
		r.t.Error("Run has not returned")
	}
	took = time.Since(start)
	r.server.Stop()
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	if r.engine.open != 0 || r.engine.loaded != 0 {
		r.t.Errorf("%d models and %d weights were left open", r.engine.open, r.engine.loaded)
	}
	if r.engine.overlap {
		r.t.Error("two batches ran on one device at once")
	}
	return took
}

// leader is one session as a leader sees it.
type leader struct {
	t       *testing.T
	open    *sessionpb.Open
	service sessionpb.SessionClient
	control sessionpb.Session_ControlClient
	data    sessionpb.Session_DataClient
	hush    context.CancelFunc // stops the pings

	mu      sync.Mutex
	seen    []*sessionpb.WorkerMessage // without pongs
	results map[uint64][]*sessionpb.Result
	outputs map[string][]*exchangepb.Envelope
	pong    *sessionpb.Pong
	err     error // of Control, once it has ended
	dataErr error // of Data
	changed chan struct{}
	action  uint64
	// goodbye: the worker has said that it leaves; afterGoodbye are the actions with a result later on.
	goodbye      bool
	afterGoodbye map[uint64]bool
}

func (r *rig) dial(term uint64, id string) *leader {
	r.t.Helper()
	conn, err := grpc.NewClient("passthrough:///w:8020",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return r.net.Host(fmt.Sprint("leader", term)).Dial(ctx, address)
		}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return &leader{
		t: r.t, service: sessionpb.NewSessionClient(conn), changed: make(chan struct{}),
		open: &sessionpb.Open{
			Leader:    &sessionpb.Leader{ClusterId: "cluster", Epoch: 1, Term: term, Name: fmt.Sprint("leader", term)},
			SessionId: id,
		},
		afterGoodbye: make(map[uint64]bool),
		results:      make(map[uint64][]*sessionpb.Result), outputs: make(map[string][]*exchangepb.Envelope),
	}
}

// lead opens a session with both streams and registers the worker.
func (r *rig) lead(term uint64, id string) *leader {
	r.t.Helper()
	l := r.dial(term, id)
	l.openControl()
	l.openData()
	l.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
	return l
}

// openControl opens the stream and pings five times a second.
func (l *leader) openControl() {
	l.t.Helper()
	ctx, hush := context.WithCancel(l.t.Context())
	l.t.Cleanup(hush)
	l.hush = hush
	var err error
	if l.control, err = l.service.Control(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	l.send(&sessionpb.LeaderMessage{Open: l.open})
	go l.readControl()
	go func() {
		for n := uint64(1); pause(ctx, 200*time.Millisecond) == nil; n++ {
			l.mu.Lock()
			l.control.Send(&sessionpb.LeaderMessage{Ping: &sessionpb.Ping{Sequence: n, LeaderNs: int64(n) * 10}})
			l.mu.Unlock()
		}
	}()
}

func (l *leader) openData() {
	l.t.Helper()
	var err error
	if l.data, err = l.service.Data(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	if err := l.data.Send(&sessionpb.LeaderData{Open: l.open}); err != nil && !errors.Is(err, io.EOF) {
		l.t.Fatal(err)
	}
	go l.readData()
}

func (l *leader) readControl() {
	for {
		m, err := l.control.Recv()
		l.note(func() {
			l.err = err
			if err != nil {
				return
			}
			if m.Pong != nil {
				l.pong = m.Pong
			}
			if m.Opened != nil || m.Report != nil {
				l.seen = append(l.seen, m)
			}
			l.goodbye = l.goodbye || m.Leaving
			for _, r := range m.Results {
				l.afterGoodbye[r.ActionId] = l.goodbye && !m.Leaving
				l.results[r.ActionId] = append(l.results[r.ActionId], r)
			}
		})
		if err != nil {
			return
		}
	}
}

func (l *leader) readData() {
	for {
		f, err := l.data.Recv()
		if err != nil {
			l.note(func() { l.dataErr = err })
			return
		}
		l.note(func() {
			for _, e := range f.Envelopes {
				l.outputs[e.RequestId] = append(l.outputs[e.RequestId], e)
			}
		})
	}
}

func (l *leader) note(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

// until waits for a condition on what was received, at most a virtual minute.
func (l *leader) until(what string, condition func() bool) {
	l.t.Helper()
	deadline := time.After(time.Minute)
	for {
		l.mu.Lock()
		met, changed := condition(), l.changed
		l.mu.Unlock()
		if met {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			l.t.Fatalf("no %s", what)
		}
	}
}

// send sends a message. io.EOF means that the stream has ended; why is for readControl to find out.
func (l *leader) send(m *sessionpb.LeaderMessage) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.control.Send(m); err != nil && !errors.Is(err, io.EOF) {
		l.t.Fatal(err)
	}
}

// do sends an action and returns its id.
func (l *leader) do(a *sessionpb.Action) uint64 {
	l.t.Helper()
	l.action++
	a.Id = l.action
	l.send(&sessionpb.LeaderMessage{Actions: []*sessionpb.Action{a}})
	return a.Id
}

// result waits for the only result of an action.
func (l *leader) result(id uint64) *sessionpb.Result {
	l.t.Helper()
	var r *sessionpb.Result
	l.until(fmt.Sprint("result of action ", id), func() bool {
		if len(l.results[id]) > 0 {
			r = l.results[id][0]
		}
		return r != nil
	})
	return r
}

// silent says that an action has no result after everything has come to rest.
func (l *leader) silent(id uint64) bool {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.results[id]) == 0
}

// expect does an action and wants it to end with a code.
func (l *leader) expect(code sessionpb.ResultCode, a *sessionpb.Action) *sessionpb.Result {
	l.t.Helper()
	return l.wants(code, l.do(a))
}

func (l *leader) wants(code sessionpb.ResultCode, id uint64) *sessionpb.Result {
	l.t.Helper()
	r := l.result(id)
	if r.Code != code {
		l.t.Fatalf("action %d ended with %v (%s), want %v", id, r.Code, r.Message, code)
	}
	return r
}

// report waits for the nth message, from 0, that opened the session or was a report.
func (l *leader) report(n int) *sessionpb.WorkerMessage {
	l.t.Helper()
	var m *sessionpb.WorkerMessage
	l.until("report", func() bool {
		if len(l.seen) > n {
			m = l.seen[n]
		}
		return m != nil
	})
	return m
}

// freshReport asks for a report.
func (l *leader) freshReport() *sessionpb.Report {
	l.t.Helper()
	synctest.Wait()
	n := len(l.seen)
	l.send(&sessionpb.LeaderMessage{Report: true})
	return l.report(n).Report
}

// payload sends a request's tensors; rows are pairs of numbers.
func (l *leader) payload(request string, pairs ...float32) {
	l.t.Helper()
	l.request(request, &inferencepb.ModelInferRequest{
		Id: "id " + request,
		Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "FP32", Shape: []int64{int64(len(pairs) / 2), 2}},
		},
		RawInputContents: [][]byte{floats(pairs...)},
	})
}

func (l *leader) request(request string, m *inferencepb.ModelInferRequest) {
	l.t.Helper()
	payload, err := proto.Marshal(m)
	if err != nil {
		l.t.Fatal(err)
	}
	l.raw(request, payload)
}

func (l *leader) raw(request string, payload []byte) {
	l.t.Helper()
	e := &exchangepb.Envelope{RequestId: request, Attempt: 1, Payload: payload}
	if err := l.data.Send(&sessionpb.LeaderData{Envelopes: []*exchangepb.Envelope{e}}); err != nil {
		l.t.Fatal(err)
	}
}

// output waits for a request's answer.
func (l *leader) output(request string) *inferencepb.ModelInferResponse {
	l.t.Helper()
	l.until("output of "+request, func() bool { return len(l.outputs[request]) > 0 })
	synctest.Wait()
	response := new(inferencepb.ModelInferResponse)
	if err := proto.Unmarshal(l.outputs[request][0].Payload, response); err != nil {
		l.t.Fatal(err)
	}
	return response
}

// hold loads a model and its weights.
func (l *leader) hold(id uint64, source string) {
	l.t.Helper()
	l.expect(ok, loadModel(id, source))
	l.expect(ok, loadWeights(id))
}

func (l *leader) cancel(request string) {
	l.t.Helper()
	l.send(&sessionpb.LeaderMessage{Cancels: []*exchangepb.Cancel{{RequestId: request, Attempt: 1}}})
}

const ok = sessionpb.ResultCode_RESULT_CODE_OK

func loadModel(id uint64, source string) *sessionpb.Action {
	return &sessionpb.Action{ModelId: id, Body: &sessionpb.Action_LoadModel{LoadModel: &sessionpb.LoadModel{
		Source: source, Name: fmt.Sprint("model", id), Version: "3",
	}}}
}

func unloadModel(id uint64) *sessionpb.Action {
	return &sessionpb.Action{ModelId: id, Body: &sessionpb.Action_UnloadModel{UnloadModel: &sessionpb.UnloadModel{}}}
}

func loadWeights(id uint64) *sessionpb.Action {
	return &sessionpb.Action{ModelId: id, Body: &sessionpb.Action_LoadWeights{LoadWeights: &sessionpb.LoadWeights{}}}
}

func evictWeights(id uint64) *sessionpb.Action {
	return &sessionpb.Action{ModelId: id, Body: &sessionpb.Action_EvictWeights{EvictWeights: &sessionpb.EvictWeights{}}}
}

func profile(id uint64, p *sessionpb.Profile) *sessionpb.Action {
	return &sessionpb.Action{ModelId: id, Body: &sessionpb.Action_Profile{Profile: p}}
}

// infer is a batch of requests of one row each.
func infer(id uint64, requests ...string) *sessionpb.Action {
	body := &sessionpb.Infer{}
	for _, r := range requests {
		body.Items = append(body.Items, &sessionpb.BatchItem{RequestId: r, Attempt: 1, Rows: 1})
	}
	return &sessionpb.Action{ModelId: id, Body: &sessionpb.Action_Infer{Infer: body}}
}

// within gives an action a window on the worker's clock.
func within(a *sessionpb.Action, earliest, latest time.Duration) *sessionpb.Action {
	a.EarliestNs, a.LatestNs = int64(earliest), int64(latest)
	return a
}

// now is the worker's clock.
func (r *rig) now() time.Duration { return time.Duration(r.worker.clock()) }

var errBroken = errors.New("the engine is broken")
