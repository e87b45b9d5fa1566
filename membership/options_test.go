package membership_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orrery-project/orrery/membership"
)

// syncBuffer is a bytes.Buffer that may be read while others write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func loopback(name string, seeds ...string) membership.Options {
	return membership.Options{
		Name:        name,
		Incarnation: "1",
		Role:        membership.Worker,
		Bind:        "127.0.0.1:0",
		Seeds:       seeds,
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := map[string]struct {
		edit func(*membership.Options)
		want string
	}{
		"large metadata":        {func(o *membership.Options) { o.Addresses.Peer = strings.Repeat("x", 512) }, "exceeds gossip's limit of 512"},
		"no name":               {func(o *membership.Options) { o.Name = "" }, "a name is needed"},
		"slash in name":         {func(o *membership.Options) { o.Name = "a/b" }, `"a/b"`},
		"long name":             {func(o *membership.Options) { o.Name = strings.Repeat("x", 300) }, "shorten the name"},
		"no incarnation":        {func(o *membership.Options) { o.Incarnation = "" }, "incarnation is empty"},
		"unknown role":          {func(o *membership.Options) { o.Role = "printer" }, `role "printer"`},
		"short key":             {func(o *membership.Options) { o.Key = []byte("secret") }, "has 6 bytes"},
		"negative interval":     {func(o *membership.Options) { o.RejoinInterval = -1 }, "negative"},
		"slow probe":            {func(o *membership.Options) { o.ProbeTimeout = time.Second }, "not shorter"},
		"seed without port":     {func(o *membership.Options) { o.Seeds = []string{"c1"} }, `seed "c1": write it as host:port`},
		"bind without port":     {func(o *membership.Options) { o.Bind = "127.0.0.1" }, "write it as host:port"},
		"foreign bind":          {func(o *membership.Options) { o.Bind = "192.0.2.1:0" }, `"192.0.2.1:0"`},
		"unspecified bind":      {func(o *membership.Options) { o.Bind = "[::]:0" }, "advertise"},
		"unspecified advertise": {func(o *membership.Options) { o.Advertise = "0.0.0.0:7946" }, "unspecified"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := loopback("w1")
			test.edit(&o)
			c, err := membership.Open(o)
			if err == nil {
				stopped, cancel := context.WithCancel(t.Context())
				cancel()
				c.Run(stopped)
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want it to say %q", err, test.want)
			}
		})
	}
}

func TestAdvertisedAddress(t *testing.T) {
	o := loopback("w1")
	o.Advertise = "localhost:1234"
	c, err := membership.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	defer c.Run(stopped)
	host, port, err := net.SplitHostPort(c.LocalAddress())
	if err != nil || port != "1234" || !net.ParseIP(host).IsLoopback() {
		t.Errorf("local address %s (%v)", c.LocalAddress(), err)
	}
}

func TestLoopback(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c1, err := membership.Open(loopback("c1"))
	if err != nil {
		t.Fatal(err)
	}
	w1, err := membership.Open(loopback("w1", c1.LocalAddress()))
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	leave, leaveW1 := context.WithCancel(ctx)
	running.Go(func() { c1.Run(ctx) })
	running.Go(func() { w1.Run(leave) })
	awaitCount := func(c *membership.Cluster, want int) {
		for {
			changed := c.Changed()
			if len(c.Members()) == want {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				t.Errorf("%s sees %v, want %d", c.LocalAddress(), c.Members(), want)
				return
			}
		}
	}
	awaitCount(c1, 2)
	awaitCount(w1, 2)
	leaveW1()
	awaitCount(c1, 1)
	cancel()
	running.Wait()

	// The port is free again.
	l, err := net.Listen("tcp", c1.LocalAddress())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
