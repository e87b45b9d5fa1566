// Package outbox gathers what is to be sent on a stream while its writer is
// busy, so that the writer can put it all into one message. Nobody who puts
// something in ever waits for the peer.
package outbox

import "sync"

// Box is a queue with one consumer. It is unbounded but for PutWithin: its
// owner bounds what goes in, by credit or by the number of actions in hand.
type Box[T any] struct {
	size func(T) int
	max  int

	mu       sync.Mutex
	items    []T
	waiting  int // sizes of items
	finished bool
	ready    chan struct{}
}

// New makes a box whose Drain hands out at most max of what size measures at
// once, but always at least one item.
func New[T any](max int, size func(T) int) *Box[T] {
	return &Box[T]{size: size, max: max, ready: make(chan struct{}, 1)}
}

// Put appends items. It never blocks. After Finish they are dropped.
func (b *Box[T]) Put(items ...T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, item := range items {
		b.put(item)
	}
}

// PutWithin appends an item unless more than limit would then wait; an empty
// box takes any item. It says whether there was room.
func (b *Box[T]) PutWithin(limit int, item T) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting > 0 && b.waiting+b.size(item) > limit {
		return false
	}
	b.put(item)
	return true
}

func (b *Box[T]) put(item T) {
	if b.finished {
		return
	}
	b.items = append(b.items, item)
	b.waiting += b.size(item)
	b.signal()
}

func (b *Box[T]) signal() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// Finish lets Drain send what is there and then end.
func (b *Box[T]) Finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = true
	b.signal()
}

// take returns the next items to send, and whether none will ever come again.
func (b *Box[T]) take() (items []T, finished bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, total := 0, 0
	for n < len(b.items) {
		size := b.size(b.items[n])
		if n > 0 && total+size > b.max {
			break
		}
		total += size
		n++
	}
	items = b.items[:n:n]
	b.items = b.items[n:]
	b.waiting -= total
	if len(b.items) == 0 {
		b.items = nil
	}
	return items, b.finished && n == 0
}

// Drain sends what gathers until done is closed, or Finish was called and all
// has been sent (nil), or send fails.
func (b *Box[T]) Drain(done <-chan struct{}, send func([]T) error) error {
	for {
		for {
			items, finished := b.take()
			if finished {
				return nil
			}
			if len(items) == 0 {
				break
			}
			if err := send(items); err != nil {
				return err
			}
		}
		select {
		case <-done:
			return nil
		case <-b.ready:
		}
	}
}
