package testnet_test

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/orrery-project/orrery/internal/testnet"
)

func gossiper(t *testing.T, h *testnet.Host, name string) *memberlist.Memberlist {
	t.Helper()
	transport, err := h.GossipTransport(7946)
	if err != nil {
		t.Fatal(err)
	}
	config := memberlist.DefaultLANConfig()
	config.Name, config.Transport, config.LogOutput = name, transport, io.Discard
	list, err := memberlist.Create(config)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestMemberlist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		n.SetLatency(time.Millisecond)
		var lists []*memberlist.Memberlist
		for i := range 3 {
			name := fmt.Sprintf("c%d", i+1)
			lists = append(lists, gossiper(t, n.Host(name), name))
		}
		first := lists[0].LocalNode().Address()
		for _, list := range lists[1:] {
			if _, err := list.Join([]string{first}); err != nil {
				t.Fatal(err)
			}
		}
		count := func(after time.Duration, want ...int) {
			t.Helper()
			time.Sleep(after)
			for i, list := range lists {
				if got := list.NumMembers(); got != want[i] {
					t.Fatalf("c%d sees %d members, want %d", i+1, got, want[i])
				}
			}
		}
		count(time.Second, 3, 3, 3)
		n.Isolate("c3")
		count(time.Minute, 2, 2, 1)
		n.Rejoin("c3")
		if _, err := lists[2].Join([]string{first}); err != nil {
			t.Fatal(err)
		}
		count(5*time.Second, 3, 3, 3)
		n.Kill("c2")
		count(time.Minute, 2, 1, 2)

		for _, list := range lists {
			if err := list.Shutdown(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(10 * time.Second) // for probes under way
	})
}
