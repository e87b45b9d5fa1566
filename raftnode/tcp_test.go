package raftnode

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestTCP(t *testing.T) {
	var nodes []*Node
	var servers []Server
	for _, name := range []string{"c1", "c2", "c3"} {
		stream, err := ListenTCP("127.0.0.1:0", "")
		if err != nil {
			t.Fatal(err)
		}
		node, err := Open(Options{Name: name, Dir: t.TempDir(), Stream: stream, FSM: &journal{},
			Timing: Timing{Heartbeat: 200 * time.Millisecond, Election: 200 * time.Millisecond, LeaderLease: 200 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := node.Close(); err != nil {
				t.Error(err)
			}
			if conn, err := net.DialTimeout("tcp", node.Address(), time.Second); err == nil {
				_ = conn.Close()
				t.Errorf("%s still listens", node.ID())
			}
		})
		nodes = append(nodes, node)
		servers = append(servers, Server{ID: node.ID(), Address: node.Address(), Voter: true})
	}
	if err := nodes[0].Bootstrap(servers); err != nil {
		t.Fatal(err)
	}
	eventually(t, "command on a leader", func() bool {
		for _, node := range nodes {
			if result, _, err := node.Apply(within(t, 5*time.Second), []byte("a")); err == nil {
				return strings.HasPrefix(result.(string), "a is number ")
			}
		}
		return false
	})
}

func TestTCPAddresses(t *testing.T) {
	for _, test := range []struct{ bind, advertise, want string }{
		{"127.0.0.1:0", "controller-1.example:8012", "controller-1.example:8012"},
		{"0.0.0.0:0", "10.0.0.1:8012", "10.0.0.1:8012"},
		{"[::1]:0", "[fd00::1]:8012", "[fd00::1]:8012"},
	} {
		stream, err := ListenTCP(test.bind, test.advertise)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := stream.Addr().String(); got != test.want {
			t.Errorf("%s advertises %s, want %s", test.bind, got, test.want)
		}
		_ = stream.Close()
	}
	for _, test := range []struct{ bind, advertise, want string }{
		{"0.0.0.0:0", "", "set an address"},
		{"127.0.0.1:0", "0.0.0.0:8012", "set an address"},
		{"127.0.0.1:0", "[::]:8012", "set an address"},
		{"127.0.0.1:0", ":8012", "no host"},
		{"127.0.0.1:0", "10.0.0.1", "missing port"},
		{"127.0.0.1:0", "10.0.0.1:0", "no port"},
		{"no such place", "", "listen for raft"},
	} {
		if _, err := ListenTCP(test.bind, test.advertise); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("bind %q, advertise %q: %v", test.bind, test.advertise, err)
		}
	}
}

// A peer that is gone without a word must not hold up a Close.
func TestTCPCloseEndsDial(t *testing.T) {
	stream, err := ListenTCP("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, err := stream.Dial(raft.ServerAddress("127.0.0.1:9"), time.Minute); err == nil {
		_ = conn.Close()
		t.Error("a closed stream dialled")
	}
}
