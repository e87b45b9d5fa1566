package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

const (
	greetingMagic = "orrery-raft-1\n"
	greetingYes   = 'y'
	greetingNo    = 'n'

	// greetingTimeout bounds how long an accepted connection may be silent at
	// first. Afterwards it may be idle for as long as it likes.
	greetingTimeout = 5 * time.Second
)

// errStranger says that another replica, or one of another line, answers at an
// address.
var errStranger = errors.New("a replica that answers there is not that one: " +
	"it was wiped, or its cluster was recovered without it")

// lineKey is where the line is in the stable store.
var lineKey = []byte("RecoveryLine")

// greeting is how a connection begins. Raft's messages name who sends them, but
// not whom they are for. So a replica that was wiped, and is a new one now, would
// take those for its former self: it would vote again in a term in which it has
// voted already, and be counted for entries that it does not have.
//
// The line is the last recovery from a lost quorum that a replica has seen, empty
// if none. The replicas that were lost may come back, with a quorum of their own
// and the old configuration in which the recovered one is still a member. They
// are of another line and can't reach it.
type greeting struct {
	to   string // the id of the replica that is meant
	line string
}

// send says g and waits for the answer; conn has a deadline.
func (g greeting) send(conn io.ReadWriter) error {
	if len(g.to) > 255 || len(g.line) > 255 {
		return fmt.Errorf("the id %q is too long", g.to)
	}
	var b bytes.Buffer
	b.WriteString(greetingMagic)
	for _, s := range []string{g.to, g.line} {
		b.WriteByte(byte(len(s)))
		b.WriteString(s)
	}
	if _, err := conn.Write(b.Bytes()); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != greetingYes {
		return errStranger
	}
	return nil
}

// readGreeting reads what send has written.
func readGreeting(r io.Reader) (g greeting, err error) {
	magic := make([]byte, len(greetingMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return g, err
	}
	if string(magic) != greetingMagic {
		return g, errors.New("not a replica's greeting")
	}
	for _, s := range []*string{&g.to, &g.line} {
		var size [1]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return g, err
		}
		text := make([]byte, size[0])
		if _, err := io.ReadFull(r, text); err != nil {
			return g, err
		}
		*s = string(text)
	}
	return g, nil
}

// receive reads the greeting of an accepted connection and answers it. The error
// is io.EOF for one that is not for this replica: the other side says why.
func (c *streamConn) receive() error {
	if err := c.stream.introduced(); err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(greetingTimeout))
	g, err := readGreeting(c.Conn)
	if err != nil {
		return io.EOF
	}
	answer := byte(greetingYes)
	if c.stream.host.admit(g) != nil {
		answer = greetingNo
	}
	if _, err := c.Conn.Write([]byte{answer}); err != nil || answer != greetingYes {
		return io.EOF
	}
	return c.SetDeadline(time.Time{})
}

// greet implements host.
func (n *Node) greet(address raft.ServerAddress) (greeting, error) {
	for _, s := range n.Servers() {
		if s.Address == string(address) {
			line, err := readLine(n.store)
			return greeting{to: s.ID, line: line}, err
		}
	}
	return greeting{}, fmt.Errorf("no member has the address %s", address)
}

// admit implements host. A replica without a cluster takes on the line of the one
// that greets it, which is about to make it a member.
func (n *Node) admit(g greeting) error {
	if g.to != n.id {
		return errStranger
	}
	line, err := readLine(n.store)
	if err != nil || g.line == line {
		return err
	}
	if n.Formed() {
		return errStranger
	}
	return n.store.Set(lineKey, []byte(g.line))
}

// readLine returns the line of the replica whose store it is.
func readLine(stable raft.StableStore) (string, error) {
	line, err := stable.Get(lineKey)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the line: %w", err)
	}
	return string(line), nil
}

// errand implements host. Only leaders and candidates dial. What a leader has to
// say to a member is worth repeating for as long as it leads and the other is a
// member at that address: the library gives up a follower's replication for up to
// ten seconds after failures, and loses heartbeats to a quarter second. What a
// candidate asks is worth it in the round of which it is part, which then need
// not wait for the next when a voter comes back.
func (n *Node) errand(address raft.ServerAddress) func() bool {
	began, term, state := time.Now(), n.raft.CurrentTerm(), n.raft.State()
	round := 2 * n.raft.ReloadableConfig().ElectionTimeout
	return func() bool {
		if n.raft.State() != state || n.raft.CurrentTerm() != term || !n.hasMember(address) {
			return false
		}
		switch state {
		case raft.Leader:
			return true
		case raft.Candidate:
			return time.Since(began) < round
		}
		return false
	}
}

func (n *Node) hasMember(address raft.ServerAddress) bool {
	for _, s := range n.Servers() {
		if s.Address == string(address) {
			return true
		}
	}
	return false
}
