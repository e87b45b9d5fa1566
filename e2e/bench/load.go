package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orrery-project/orrery/proto/inferencepb"
)

const (
	// InputBytes is how long each request's input is. Its model is an emulated
	// one with as many input bytes and at least 8 output bytes.
	InputBytes = 64
	// sendTick is the shortest time that the load sleeps: at rates beyond 1000/s
	// requests are sent in bunches.
	sendTick = time.Millisecond
)

// ErrCrowded is a request that was not sent because too many were unanswered.
var ErrCrowded = errors.New("not sent: too many requests are unanswered")

// Outcome is what became of one request.
type Outcome struct {
	Entry    string
	Sent     time.Time
	Took     time.Duration
	Degraded bool
	Err      error
}

// Done is when it was answered.
func (o Outcome) Done() time.Time { return o.Sent.Add(o.Took) }

// LoadOptions say what a load sends. All but InFlight must be set.
type LoadOptions struct {
	Model string
	// Rate is requests a second; Deadline that of each.
	Rate     int
	Deadline time.Duration
	Entries  []Entry
	// InFlight bounds the requests that are unanswered; 0: no bound.
	InFlight int
	// Each is told each outcome, by many goroutines at a time.
	Each func(Outcome)
}

// Load sends requests at a steady rate, whether or not earlier ones have been
// answered, to several entries in turn.
type Load struct {
	options  LoadOptions
	began    time.Time
	stop     chan struct{}
	stopOnce func()
	inFlight atomic.Int64
	wait     sync.WaitGroup
}

// StartLoad begins to send. End must be called; it closes the entries.
func StartLoad(o LoadOptions) *Load {
	l := &Load{options: o, began: time.Now(), stop: make(chan struct{})}
	l.stopOnce = sync.OnceFunc(func() { close(l.stop) })
	l.wait.Go(l.run)
	return l
}

func (l *Load) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for i := 0; ; i++ {
		// By the clock, so that a late start of one does not slow the rest down.
		due := l.began.Add(time.Duration(float64(i) * float64(time.Second) / float64(l.options.Rate)))
		if early := time.Until(due); early > 0 {
			timer.Reset(max(early, sendTick))
			select {
			case <-timer.C:
			case <-l.stop:
				return
			}
		}
		select {
		case <-l.stop:
			return
		default:
		}
		if n := l.inFlight.Add(1); l.options.InFlight > 0 && n > int64(l.options.InFlight) {
			l.inFlight.Add(-1)
			l.options.Each(Outcome{Entry: l.entry(i).Name, Sent: time.Now(), Err: ErrCrowded})
			continue
		}
		l.wait.Go(func() {
			defer l.inFlight.Add(-1)
			l.one(i)
		})
	}
}

func (l *Load) entry(i int) Entry { return l.options.Entries[i%len(l.options.Entries)] }

func (l *Load) one(i int) {
	input := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(i)), InputBytes/8)
	e := l.entry(i)
	ctx, cancel := context.WithTimeout(context.Background(), l.options.Deadline)
	defer cancel()
	sent := time.Now()
	response, degraded, err := e.Infer(ctx, Request(l.options.Model, input))
	o := Outcome{Entry: e.Name, Sent: sent, Took: time.Since(sent), Degraded: degraded, Err: err}
	if err == nil {
		o.Err = check(response, input)
	}
	l.options.Each(o)
}

// Request is one of one row, with an input of InputBytes.
func Request(model string, input []byte) *inferencepb.ModelInferRequest {
	return &inferencepb.ModelInferRequest{
		ModelName:        model,
		Inputs:           []*inferencepb.ModelInferRequest_InferInputTensor{{Name: "input", Datatype: "UINT8", Shape: []int64{1, InputBytes}}},
		RawInputContents: [][]byte{input},
	}
}

// Stop stops sending; requests that are under way go on.
func (l *Load) Stop() { l.stopOnce() }

// End stops sending, waits for the last answers and closes the entries.
func (l *Load) End() {
	l.stopOnce()
	l.wait.Wait()
	for _, e := range l.options.Entries {
		_ = e.Close()
	}
	l.options.Entries = nil
}
