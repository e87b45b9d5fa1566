package controller

import "sync"

// mailbox gathers functions that a loop is to run. Anybody may post; one
// goroutine takes.
type mailbox struct {
	ready chan struct{}

	mu     sync.Mutex
	posts  []func()
	news   bool // some of them
	closed bool
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// post has f run by the loop. It never blocks. False: the loop has ended, and f
// will not run.
func (m *mailbox) post(f func()) bool { return m.add(f, true) }

// ask is post for what only looks, and leaves the loop nothing to do afterwards.
func (m *mailbox) ask(f func()) bool { return m.add(f, false) }

func (m *mailbox) add(f func(), news bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.posts, m.news = append(m.posts, f), m.news || news
	select {
	case m.ready <- struct{}{}:
	default:
	}
	return true
}

// run runs what has been posted, and says whether some of it did more than ask.
func (m *mailbox) run() (news bool) {
	m.mu.Lock()
	posts, news := m.posts, m.news
	m.posts, m.news = nil, false
	m.mu.Unlock()
	for _, f := range posts {
		f()
	}
	return news
}

// close refuses further posts and runs what is left.
func (m *mailbox) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.run()
}
