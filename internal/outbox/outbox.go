// Package outbox gathers what is to be sent on a stream while its writer is
// busy, so that the writer can put it all into one message.
package outbox

import (
	"context"
	"sync"
)

// Box is an unbounded queue with one consumer. Its owner bounds what goes in:
// by credit, or by the number of actions in hand.
type Box[T any] struct {
	size func(T) int
	max  int

	mu    sync.Mutex
	items []T
	ready chan struct{}
}

// New makes a box whose Drain hands out at most max of what size measures at
// once, but always at least one item.
func New[T any](max int, size func(T) int) *Box[T] {
	return &Box[T]{size: size, max: max, ready: make(chan struct{}, 1)}
}

// Put appends an item. It never blocks.
func (b *Box[T]) Put(items ...T) {
	b.mu.Lock()
	b.items = append(b.items, items...)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take returns the next items to send, nil when there are none.
func (b *Box[T]) take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, total := 0, 0
	for n < len(b.items) {
		total += b.size(b.items[n])
		if n > 0 && total > b.max {
			break
		}
		n++
	}
	taken := b.items[:n:n]
	b.items = b.items[n:]
	if len(b.items) == 0 {
		b.items = nil
	}
	return taken
}

// Drain sends what gathers until ctx ends or send fails, and returns why.
func (b *Box[T]) Drain(ctx context.Context, send func([]T) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.ready:
		}
		for items := b.take(); len(items) > 0; items = b.take() {
			if err := send(items); err != nil {
				return err
			}
		}
	}
}
