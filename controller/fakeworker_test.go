package controller

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// fakeWorker is "w" at w:1. It speaks the session protocol, and what it says
// is the test's.
type fakeWorker struct {
	sessionpb.UnimplementedSessionServer
	report *sessionpb.Report
	// carryOut makes up the result of an action. With nil the action stays until
	// something is cancelled. Default: all is well.
	carryOut func(*sessionpb.Action) *sessionpb.Result
	// outputs are on their way to the leader.
	outputs chan *exchangepb.Envelope
	// sessions counts those that were opened.
	sessions atomic.Int32
}

// newFakeWorker holds model "m" of replicaWith, as a later start of its "w".
func newFakeWorker() *fakeWorker {
	info := &logpb.ModelInfo{Digest: "d", Engine: "e", EngineVersion: "1", Signature: &logpb.Signature{}, ProfileRows: []uint32{1}}
	return &fakeWorker{
		report: &sessionpb.Report{
			Worker: &logpb.Worker{
				Name: "w", Incarnation: "2", SessionAddress: "w:1", Speed: 1, HostMemoryBytes: 1 << 30,
				Devices: []*logpb.Device{{Kind: "cpu", PageBytes: 1 << 20, Pages: 10, Engines: []string{"e"}}},
				Engines: []*logpb.Engine{{Name: "e", Version: "1"}},
			},
			Models: []*sessionpb.HeldModel{{ModelId: 1, Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED, Info: info}},
		},
		carryOut: func(*sessionpb.Action) *sessionpb.Result { return &sessionpb.Result{Info: info} },
		outputs:  make(chan *exchangepb.Envelope, 100),
	}
}

// serve returns how the worker is dialled until the test ends.
func (w *fakeWorker) serve(t *testing.T) rpc.DialFunc {
	t.Helper()
	network := testnet.New()
	listener, err := network.Host("w").Listen("w:1")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(1 << 20)
	sessionpb.RegisterSessionServer(server, w)
	var wait sync.WaitGroup
	wait.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); wait.Wait() })
	return network.Host("leader").Dial
}

// Control answers pings and actions.
func (w *fakeWorker) Control(stream grpc.BidiStreamingServer[sessionpb.LeaderMessage, sessionpb.WorkerMessage]) error {
	w.sessions.Add(1)
	answer := &sessionpb.WorkerMessage{Opened: &sessionpb.Opened{}, Report: w.report}
	var kept []*sessionpb.Action
	for {
		if err := stream.Send(answer); err != nil {
			return err
		}
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		answer = &sessionpb.WorkerMessage{}
		if m.Ping != nil {
			answer.Pong = &sessionpb.Pong{Sequence: m.Ping.Sequence, LeaderNs: m.Ping.LeaderNs, WorkerNs: time.Now().UnixNano()}
		}
		for _, a := range m.Actions {
			if r := w.carryOut(a); r != nil {
				answer.Results = append(answer.Results, w.end(a, r))
			} else {
				kept = append(kept, a)
			}
		}
		if len(m.Cancels) > 0 {
			for _, a := range kept {
				answer.Results = append(answer.Results, w.end(a, &sessionpb.Result{Code: sessionpb.ResultCode_RESULT_CODE_CANCELLED}))
			}
			kept = nil
		}
	}
}

// end completes a result, and sends the outputs of a batch that ran.
func (w *fakeWorker) end(a *sessionpb.Action, r *sessionpb.Result) *sessionpb.Result {
	r.ActionId = a.Id
	for _, item := range a.GetInfer().GetItems() {
		r.Items = append(r.Items, &sessionpb.ItemResult{RequestId: item.RequestId, Attempt: item.Attempt, Code: r.Code, Message: r.Message})
		if r.Code == sessionpb.ResultCode_RESULT_CODE_OK && w.outputs != nil {
			w.outputs <- &exchangepb.Envelope{RequestId: item.RequestId, Attempt: item.Attempt, Payload: []byte("answer")}
		}
	}
	return r
}

// Data sends outputs. Inputs are not read.
func (w *fakeWorker) Data(stream grpc.BidiStreamingServer[sessionpb.LeaderData, exchangepb.DataFrame]) error {
	for {
		select {
		case e := <-w.outputs:
			if err := stream.Send(&exchangepb.DataFrame{Envelopes: []*exchangepb.Envelope{e}}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}
