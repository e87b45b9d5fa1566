package testnet_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/orrery-project/orrery/internal/testnet"
)

// streamLayer is what raft's NetworkTransport needs of a host.
type streamLayer struct {
	net.Listener
	host *testnet.Host
}

func (s streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.host.Dial(ctx, string(address))
}

func TestRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		nodes := make(map[string]*raft.Raft)
		var servers []raft.Server
		var transports []*raft.NetworkTransport
		for _, name := range []string{"c1", "c2", "c3"} {
			servers = append(servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name + ":8012")})
			host := n.Host(name)
			l, err := host.Listen(":8012")
			if err != nil {
				t.Fatal(err)
			}
			transport := raft.NewNetworkTransport(streamLayer{l, host}, 3, time.Second, io.Discard)
			transports = append(transports, transport)
			config := raft.DefaultConfig()
			config.LocalID, config.LogOutput = raft.ServerID(name), io.Discard
			store := raft.NewInmemStore()
			nodes[name], err = raft.NewRaft(config, &raft.MockFSM{}, store, store, raft.NewDiscardSnapshotStore(), transport)
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := nodes["c1"].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
			t.Fatal(err)
		}
		leader := func() string {
			_, id := nodes["c1"].LeaderWithID()
			for name := range nodes {
				if _, other := nodes[name].LeaderWithID(); other != id || id == "" {
					t.Fatalf("c1 says that %q leads, %s says %q", id, name, other)
				}
			}
			return string(id)
		}
		time.Sleep(10 * time.Second)
		old := leader()
		n.Isolate(old)
		time.Sleep(10 * time.Second)
		if nodes[old].State() == raft.Leader {
			t.Fatalf("%s leads without a quorum", old)
		}
		n.HealAll()
		time.Sleep(10 * time.Second)
		if err := nodes[leader()].Apply([]byte("x"), time.Second).Error(); err != nil {
			t.Fatal(err)
		}

		for i, transport := range transports {
			transport.Close()
			n.Kill(fmt.Sprintf("c%d", i+1)) // inbound connections, which Close leaves open
		}
		for _, node := range nodes {
			if err := node.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		}
	})
}
