package workerd

import (
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// errOutboxFull says that a leader doesn't read what it is sent.
var errOutboxFull = errors.New("the leader doesn't read its stream")

// frameBytes bounds the envelopes in one DataFrame, unless a single one is larger.
const frameBytes = 1 << 20

// outbox gathers what the writer of one stream is to send. Nobody who puts something in ever waits for the peer.
type outbox[M proto.Message] struct {
	limit int // bytes

	mu       sync.Mutex
	messages []M
	bytes    int
	finished bool
	wake     chan struct{}
}

func newOutbox[M proto.Message](limitBytes int) *outbox[M] {
	return &outbox[M]{limit: limitBytes, wake: make(chan struct{}, 1)}
}

// put adds a message. After finish it is dropped. It fails with errOutboxFull when more bytes wait than the limit; one
// message is always taken, whatever its size.
func (o *outbox[M]) put(m M) error {
	size := proto.Size(m)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.finished {
		return nil
	}
	if o.bytes > 0 && o.bytes+size > o.limit {
		return errOutboxFull
	}
	o.messages = append(o.messages, m)
	o.bytes += size
	o.signal()
	return nil
}

// finish lets the writer send what is there and end.
func (o *outbox[M]) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finished = true
	o.signal()
}

func (o *outbox[M]) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take waits for messages and returns all that are there. It returns none when the outbox is finished and empty, or
// when done closes.
func (o *outbox[M]) take(done <-chan struct{}) []M {
	for {
		o.mu.Lock()
		gathered, finished := o.messages, o.finished
		o.messages, o.bytes = nil, 0
		o.mu.Unlock()
		if len(gathered) > 0 || finished {
			return gathered
		}
		select {
		case <-o.wake:
		case <-done:
			return nil
		}
	}
}

// mergeControl makes few messages of many, without changing their order: a message holds at most one pong, and what
// came before or after a report doesn't share its message, since a report is true for the moment at which it was made.
func mergeControl(gathered []*sessionpb.WorkerMessage) []*sessionpb.WorkerMessage {
	merged := gathered[:1]
	for _, m := range gathered[1:] {
		last := merged[len(merged)-1]
		if last.Report != nil || m.Report != nil || m.Opened != nil || last.Pong != nil && m.Pong != nil {
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

// frames packs envelopes into frames of up to limit bytes; a larger envelope has a frame of its own.
func frames(envelopes []*exchangepb.Envelope, limit int) []*exchangepb.DataFrame {
	var packed []*exchangepb.DataFrame
	room := 0
	for _, e := range envelopes {
		size := proto.Size(e)
		if len(packed) == 0 || size > room {
			packed = append(packed, &exchangepb.DataFrame{})
			room = limit
		}
		last := packed[len(packed)-1]
		last.Envelopes = append(last.Envelopes, e)
		room -= size
	}
	return packed
}
