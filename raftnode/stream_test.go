package raftnode

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// someone is a host whose errands all stand for a while.
type someone struct {
	id       string
	patience time.Duration
	asked    atomic.Int32
}

func (s *someone) greet(address raft.ServerAddress) (greeting, error) {
	return greeting{to: string(address)}, nil
}

func (s *someone) admit(g greeting) error {
	if g.to != s.id {
		return errStranger
	}
	return nil
}

func (s *someone) errand(raft.ServerAddress) func() bool {
	began := time.Now()
	return func() bool {
		s.asked.Add(1)
		return time.Since(began) < s.patience
	}
}

// host returns a stream at address, whose host goes by the same name.
func (n *memNet) host(address string, patience time.Duration) (*stream, *someone) {
	s, h := newStream(n.listen(address)), &someone{id: address, patience: patience}
	s.serve(h)
	return s, h
}

// read reads from the next connection until it ends.
func read(s *stream) (conn net.Conn, text []byte, err error) {
	conn, err = s.Accept()
	if err != nil {
		return nil, nil, err
	}
	text, err = io.ReadAll(conn)
	return conn, text, err
}

func TestStreamCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		here, _ := network.host("here:1", 0)
		there, _ := network.host("there:1", 0)
		var accepted net.Conn
		var text []byte
		cut := make(chan error)
		go func() {
			var err error
			accepted, text, err = read(there)
			cut <- err
		}()
		dialled, err := here.Dial("there:1", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dialled.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()

		if err := there.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-cut; err == nil || string(text) != "x" {
			t.Errorf("read %q from a connection that should be cut: %v", text, err)
		}
		if conn, err := there.Accept(); err == nil {
			t.Errorf("accepted %v after close", conn)
		}
		if _, err := there.Dial("here:1", time.Second); err == nil {
			t.Error("dialled after close")
		}

		waited := make(chan struct{})
		go func() {
			defer close(waited)
			there.wait()
		}()
		synctest.Wait()
		select {
		case <-waited:
			t.Error("it did not wait for the user of the connection")
		default:
		}
		for range 2 { // again is harmless
			_ = accepted.Close()
		}
		<-waited

		if err := here.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := dialled.Write([]byte("x")); err == nil {
			t.Error("wrote to a dialled connection after close")
		}
		here.wait() // for accepted connections only
	})
}

func TestDialWaitsForThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		here, host := network.host("here:1", time.Minute)
		began := time.Now()
		time.AfterFunc(10*time.Second, func() {
			there, _ := network.host("there:1", 0)
			_, _, _ = read(there)
		})
		if _, err := here.Dial("there:1", 5*time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 10*time.Second || took > 10*time.Second+200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if n := host.asked.Load(); n < 100 {
			t.Errorf("it asked %d times whether it is still wanted", n)
		}
		_ = here.Close()
	})
}

func TestDialGivesUp(t *testing.T) {
	for name, test := range map[string]struct {
		patience time.Duration
		end      func(here *stream)
		from, to time.Duration
	}{
		"at once, when nothing hangs on it": {0, func(*stream) {}, 0, 0},
		"when the errand no longer stands":  {3 * time.Second, func(*stream) {}, 3 * time.Second, 3100 * time.Millisecond},
		"when the stream is closed":         {time.Minute, func(s *stream) { _ = s.Close() }, time.Second, time.Second},
		"when somebody is in a hurry":       {time.Minute, func(s *stream) { s.hurry() }, time.Second, 1100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, _ := newMemNet().host("here:1", test.patience)
				began := time.Now()
				time.AfterFunc(time.Second, func() { test.end(here) })
				if _, err := here.Dial("there:1", 5*time.Second); err == nil {
					t.Error("dialled nobody")
				}
				if took := time.Since(began); took < test.from || took > test.to {
					t.Errorf("it took %v", took)
				}
				_ = here.Close()
			})
		})
	}
}

// A frozen process is reached, since its system accepts for it, and never answers.
func TestDialIsNotFooledByASilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		here, _ := network.host("here:1", 10*time.Second)
		there, _ := network.host("there:1", 0)
		network.silence("there:1")
		if _, err := here.Dial("there:1", 5*time.Second); err == nil {
			t.Error("a silent peer was taken for a live one")
		}
		_, _ = here.Close(), there.Close()
	})
}

func TestAStrangerIsNotTalkedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		here, _ := network.host("here:1", time.Minute)
		there, stranger := network.host("there:1", 0)
		stranger.id = "someone else"
		heard := make(chan string)
		go func() {
			conn, text, _ := read(there)
			_ = conn.Close()
			heard <- string(text)
		}()
		began := time.Now()
		if _, err := here.Dial("there:1", 5*time.Second); !errors.Is(err, errStranger) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != strangerPause {
			t.Errorf("it took %v to say so", took)
		}
		if text := <-heard; text != "" {
			t.Errorf("it heard %q", text)
		}
		_, _ = here.Close(), there.Close()
	})
}

func TestNonsenseIsNoGreeting(t *testing.T) {
	for _, text := range []string{"", "x", "GET / HTTP/1.1\r\n\r\n", greetingMagic, greetingMagic + "\xffshort", "\x00\x01\x02\x03 an older replica's message"} {
		synctest.Test(t, func(t *testing.T) {
			network := newMemNet()
			visitor := network.listen("visitor:1")
			there, _ := network.host("there:1", 0)
			ended := make(chan []byte)
			go func() {
				conn, text, _ := read(there)
				_ = conn.Close()
				ended <- text
			}()
			conn, err := visitor.Dial("there:1", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			go func() { _, _ = conn.Write([]byte(text)) }()
			if passed := <-ended; len(passed) > 0 {
				t.Errorf("%q passed as %q", text, passed)
			}
			if took := time.Since(began); took > greetingTimeout {
				t.Errorf("%q was waited for %v", text, took)
			}
			_, _ = conn.Close(), there.Close()
		})
	}
}
