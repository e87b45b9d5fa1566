package controller

import "sync"

// mailbox gathers functions that a loop is to run. Anybody may post; one
// goroutine takes.
type mailbox struct {
	ready chan struct{}

	mu     sync.Mutex
	posts  []func()
	closed bool
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// post has f run by the loop. It never blocks. False: the loop has ended, and f
// will not run.
func (m *mailbox) post(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.posts = append(m.posts, f)
	select {
	case m.ready <- struct{}{}:
	default:
	}
	return true
}

// run runs what has been posted.
func (m *mailbox) run() {
	m.mu.Lock()
	posts := m.posts
	m.posts = nil
	m.mu.Unlock()
	for _, f := range posts {
		f()
	}
}

// close refuses further posts and runs what is left.
func (m *mailbox) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.run()
}
