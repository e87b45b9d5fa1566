//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

const (
	modelName  = "bench"
	inputBytes = 64
	// modelTable is an emulated model that keeps a worker's core idle.
	modelTable = "model,input_bytes,output_bytes,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms,b8_ms,b16_ms\n" +
		modelName + ",64,16,1,1,1,1.2,1.5,2,3\n"
)

// entry is a way into the cluster. degraded says that the answer was marked so.
type entry struct {
	name  string
	infer func(context.Context, *inferencepb.ModelInferRequest) (answer *inferencepb.ModelInferResponse, degraded bool, err error)
	close func() error
}

// unary is an entry for clients of the Open Inference Protocol.
func unary(p *devcluster.Process) (entry, error) {
	conn, err := rpc.Connect(p.Addresses["inference"], rpc.DialTCP, 4<<20)
	if err != nil {
		return entry{}, err
	}
	service := inferencepb.NewGRPCInferenceServiceClient(conn)
	return entry{p.Name + " by ModelInfer", func(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, bool, error) {
		var trailer metadata.MD
		answer, err := service.ModelInfer(ctx, r, grpc.Trailer(&trailer))
		return answer, slices.Contains(trailer.Get("orrery-degraded"), "true"), err
	}, conn.Close}, nil
}

// streamed is an entry by our own client, at the first controller as long as
// that one answers.
func streamed(controllers ...*devcluster.Process) (entry, error) {
	o := client.Options{Name: "failover"}
	for _, p := range controllers {
		o.Inference = append(o.Inference, p.Addresses["inference"])
	}
	c, err := client.New(o)
	if err != nil {
		return entry{}, err
	}
	return entry{controllers[0].Name + " by our client", func(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, bool, error) {
		response, answer, err := c.Infer(ctx, r)
		return response, answer.GetDegraded(), err
	}, c.Close}, nil
}

// outcome is what became of one request.
type outcome struct {
	entry    string
	sent     time.Time
	took     time.Duration
	degraded bool
	err      error
}

func (o outcome) done() time.Time { return o.sent.Add(o.took) }

// errWrong is an answer that is not the model's.
var errWrong = errors.New("the answer is wrong")

// load sends requests at a steady rate, whether or not earlier ones have been
// answered, to several entries in turn.
type load struct {
	rate     int
	deadline time.Duration
	entries  []entry
	began    time.Time
	stop     chan struct{}
	stopOnce func()
	wait     sync.WaitGroup

	mu       sync.Mutex
	outcomes []outcome
}

// startLoad begins to send. end must be called; it closes the entries.
func startLoad(rate int, deadline time.Duration, entries []entry) *load {
	l := &load{rate: rate, deadline: deadline, entries: entries, began: time.Now(), stop: make(chan struct{})}
	l.stopOnce = sync.OnceFunc(func() { close(l.stop) })
	l.wait.Go(l.run)
	return l
}

func (l *load) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for i := 0; ; i++ {
		// By the clock, so that a late start of one does not slow the rest down.
		timer.Reset(time.Until(l.began.Add(time.Duration(i) * time.Second / time.Duration(l.rate))))
		select {
		case <-timer.C:
		case <-l.stop:
			return
		}
		l.wait.Go(func() { l.one(i) })
	}
}

func (l *load) one(i int) {
	input := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(i)), inputBytes/8)
	e := l.entries[i%len(l.entries)]
	ctx, cancel := context.WithTimeout(context.Background(), l.deadline)
	defer cancel()
	sent := time.Now()
	response, degraded, err := e.infer(ctx, &inferencepb.ModelInferRequest{
		ModelName:        modelName,
		Inputs:           []*inferencepb.ModelInferRequest_InferInputTensor{{Name: "input", Datatype: "UINT8", Shape: []int64{1, inputBytes}}},
		RawInputContents: [][]byte{input},
	})
	o := outcome{entry: e.name, sent: sent, took: time.Since(sent), degraded: degraded, err: err}
	if err == nil {
		o.err = check(response, input)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes = append(l.outcomes, o)
}

// check compares an answer with what the emulated model makes of the input: its
// hash.
func check(r *inferencepb.ModelInferResponse, input []byte) error {
	want := fnv.New64a()
	want.Write(input)
	if len(r.RawOutputContents) != 1 || len(r.RawOutputContents[0]) < 8 ||
		binary.LittleEndian.Uint64(r.RawOutputContents[0]) != want.Sum64() {
		return fmt.Errorf("%w: %v", errWrong, r.RawOutputContents)
	}
	return nil
}

// share is how much of the rate was answered since a moment.
func (l *load) share(since time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	answered := 0
	for i := len(l.outcomes) - 1; i >= 0 && l.outcomes[i].done().After(since); i-- {
		if l.outcomes[i].err == nil {
			answered++
		}
	}
	return float64(answered) / (float64(l.rate) * time.Since(since).Seconds())
}

// end stops sending, waits for the last answers and returns all outcomes in the
// order of their ends.
func (l *load) end() []outcome {
	l.stopOnce()
	l.wait.Wait()
	for _, e := range l.entries {
		_ = e.close()
	}
	l.entries = nil
	slices.SortFunc(l.outcomes, func(a, b outcome) int { return a.done().Compare(b.done()) })
	return l.outcomes
}

func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}
