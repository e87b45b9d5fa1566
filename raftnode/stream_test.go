package raftnode

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestStreamCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		here, there := newStream(network.listen("here:1")), newStream(network.listen("there:1"))
		dialled, err := here.Dial("there:1", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := there.Accept()
		if err != nil {
			t.Fatal(err)
		}

		if err := there.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := accepted.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read from a connection that should be cut: %v", err)
		}
		if conn, err := there.Accept(); err == nil {
			t.Errorf("accepted %v after close", conn)
		}
		if _, err := there.Dial("here:1", time.Second); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dialled after close: %v", err)
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
