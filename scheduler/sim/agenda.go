package sim

import "github.com/orrery-project/orrery/scheduler"

// kind is what happens at an instant.
type kind uint8

const (
	// A source sends its next request; a client of a closed loop its own.
	sourceSends kind = iota
	clientSends
	// An action, or a cancel, reaches its worker.
	actionArrives
	cancelArrives
	// A device's engine is done; a device has to look at its queues.
	executed
	transferred
	look
	// A result, or a report, reaches the controller.
	resultArrives
	reportArrives
	// A worker's end of the connection closes; a worker has been silent.
	connectionEnds
	silent
	fault
	leaderComes
	// The deadline of a request that is held without a leader.
	heldTooLong
)

// event is something that will happen.
type event struct {
	at   scheduler.Instant
	seq  uint64 // of two at one instant the earlier one was planned first
	kind kind
	// who is a source, worker or fault; which is a device or model.
	who, which int32
	// session is that of the worker when the event was planned.
	session uint32
	job     *job
	result  *scheduler.Result
	request scheduler.RequestID
}

// agenda is a heap of events.
type agenda struct {
	events []event
	seq    uint64
}

func before(a, b *event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

// push plans an event.
func (g *agenda) push(e event) {
	g.seq++
	e.seq = g.seq
	g.events = append(g.events, e)
	i := len(g.events) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !before(&e, &g.events[parent]) {
			break
		}
		g.events[i] = g.events[parent]
		i = parent
	}
	g.events[i] = e
}

// pop takes the first event out. There must be one.
func (g *agenda) pop() event {
	first := g.events[0]
	n := len(g.events) - 1
	last := g.events[n]
	g.events[n] = event{}
	g.events = g.events[:n]
	if n == 0 {
		return first
	}
	i := 0
	for {
		// The first of up to four children.
		child := 4*i + 1
		if child >= n {
			break
		}
		least := child
		for c := child + 1; c < min(child+4, n); c++ {
			if before(&g.events[c], &g.events[least]) {
				least = c
			}
		}
		if !before(&g.events[least], &last) {
			break
		}
		g.events[i] = g.events[least]
		i = least
	}
	g.events[i] = last
	return first
}
