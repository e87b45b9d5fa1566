package testnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/internal/testnet"
)

// pair connects host "a" to host "b" and returns both ends.
func pair(t *testing.T, n *testnet.Network) (a, b net.Conn) {
	t.Helper()
	l, err := n.Host("b").Listen("b:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = n.Host("a").Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatalf("write %q: %v", s, err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// stalls checks that nothing arrives for a minute.
func stalls(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	defer c.SetReadDeadline(time.Time{})
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v; want a stalled connection", n, err)
	}
}

func TestEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, testnet.New())
		done := make(chan error)
		go func() {
			_, err := io.Copy(b, b)
			done <- errors.Join(err, b.Close())
		}()
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // four times the buffer
		go a.Write(sent)
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(a, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("the echo differs: %v", err)
		}
		a.Close()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(got); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("read after close: %v", err)
		}
	})
}

func TestCloseDeliversWhatWasWrittenThenEOF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, testnet.New())
		write(t, a, "last words")
		a.Close()
		expect(t, b, "last words")
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read: %v, want EOF", err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("write: %v, want a broken pipe", err)
		}
		b.Close()
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, testnet.New())
		defer a.Close()
		defer b.Close()
		start := time.Now()
		a.SetReadDeadline(start.Add(time.Second))
		_, err := a.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second {
			t.Fatalf("read: %v after %v", err, time.Since(start))
		}
		a.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := a.Write(make([]byte, 8<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n != 4<<20 {
			t.Fatalf("write: %d bytes, %v; want a full buffer of 4 MiB", n, err)
		}
		// A deadline that is set while a read waits takes effect.
		b.SetReadDeadline(time.Time{})
		io.CopyN(io.Discard, b, 4<<20)
		time.AfterFunc(time.Minute, func() { b.SetDeadline(time.Now()) })
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read: %v", err)
		}
	})
}

func TestCutStallsAndHealDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := pair(t, n)
		write(t, a, "before ")
		n.Cut("a", "b")
		write(t, a, "during ")
		expect(t, b, "before ")
		stalls(t, b)
		n.Heal("b", "a")
		write(t, a, "after")
		expect(t, b, "during after")

		// The end of a stream is held back like its bytes.
		n.Cut("a", "b")
		a.Close()
		stalls(t, b)
		n.HealAll()
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read: %v, want EOF", err)
		}
		b.Close()
	})
}

func TestCutOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := pair(t, n)
		defer a.Close()
		defer b.Close()
		n.CutOneWay("a", "b")
		write(t, b, "hello")
		expect(t, a, "hello")
		write(t, a, "hello")
		stalls(t, b)
		n.Heal("a", "b")
		expect(t, b, "hello")
	})
}

func TestIsolate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := pair(t, n)
		defer a.Close()
		defer b.Close()
		n.Isolate("a")
		write(t, a, "x")
		stalls(t, b)
		// A host that is made later is cut off too; the isolated one still reaches itself.
		l, err := n.Host("a").Listen(":8012")
		if err != nil || l.Addr().String() != "a:8012" {
			t.Fatal(l.Addr(), err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.Host("c").Dial(ctx, "a:8012"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("dial: %v", err)
		}
		c, err := n.Host("a").Dial(t.Context(), "localhost:8012")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		n.Rejoin("a")
		expect(t, b, "x")
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := pair(t, n)
		defer a.Close()
		old := n.Host("b")
		l, err := old.Listen("b:8012")
		if err != nil {
			t.Fatal(err)
		}
		waiting, err := n.Host("a").Dial(t.Context(), "b:8012") // never accepted
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.Close()
		write(t, b, "x")
		n.Kill("b")
		expect(t, a, "x")
		for _, c := range []net.Conn{a, waiting} {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("the peer reads %v, want EOF", err)
			}
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("the dead read %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("the dead accept: %v", err)
		}
		if _, err := old.Dial(t.Context(), "a:1"); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("the dead dial: %v", err)
		}
		if _, err := n.Host("a").Dial(t.Context(), "b:8012"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial to the dead: %v", err)
		}
		again, err := n.Host("b").Listen("b:8012")
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		c, err := n.Host("a").Dial(t.Context(), "b:8012")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestKillBehindACutIsSeenAfterHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, _ := pair(t, n)
		defer a.Close()
		n.Cut("a", "b")
		n.Kill("b")
		stalls(t, a)
		n.Heal("a", "b")
		if _, err := a.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read: %v, want EOF", err)
		}
	})
}

func TestDialWaitsForHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		l, err := n.Host("b").Listen("b:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n.CutOneWay("b", "a")
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = n.Host("a").Dial(ctx, l.Addr().String())
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second {
			t.Fatalf("dial: %v after %v", err, time.Since(start))
		}
		time.AfterFunc(time.Second, n.HealAll)
		c, err := n.Host("a").Dial(t.Context(), l.Addr().String())
		if err != nil || time.Since(start) != 2*time.Second {
			t.Fatalf("dial: %v after %v", err, time.Since(start))
		}
		c.Close()
	})
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		n.SetLatency(10 * time.Millisecond)
		start := time.Now()
		a, b := pair(t, n)
		write(t, a, "x")
		expect(t, b, "x")
		b.Close()
		if _, err := a.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != 40*time.Millisecond {
			t.Fatalf("read: %v after %v; want EOF after a dial and two ways", err, time.Since(start))
		}
		a.Close()
	})
}

func TestListenRefusesForeignAndTakenAddresses(t *testing.T) {
	n := testnet.New()
	l, err := n.Host("a").Listen("a:8012")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := n.Host("a").Listen("0.0.0.0:8012"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("taken port: %v", err)
	}
	if _, err := n.Host("a").Listen("b:8012"); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("another's address: %v", err)
	}
	if _, err := n.Host("a").GossipTransport(8012); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("taken port for gossip: %v", err)
	}
}
