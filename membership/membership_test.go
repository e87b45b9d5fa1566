package membership_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"

	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/membership"
)

// pushPullBound is when even a member that all gossip has missed knows: gossip is quick, but only likely.
const pushPullBound = 25 * time.Second

// start runs a member on the host of its name. A name that begins with "c" is a controller's.
func start(t *testing.T, n *testnet.Network, name, incarnation string, edit func(*membership.Options)) *runningMember {
	t.Helper()
	host := n.Host(name)
	o := membership.Options{
		Name:        name,
		Incarnation: incarnation,
		Role:        membership.Worker,
		Addresses:   membership.Addresses{Session: name + ":8020"},
		Resolver:    host,
		Seeds:       []string{"c1:7946"},
		Key:         []byte("0123456789abcdef"),
	}
	if strings.HasPrefix(name, "c") {
		o.Role = membership.Controller
		o.Addresses = membership.Addresses{Peer: name + ":8011", Raft: name + ":8012"}
		o.Seeds = []string{"c1:7946", "c2:7946", "c3:7946"}
	}
	port := 7946
	if name[0] == 'w' {
		port = 0 // a new one at each start
	}
	transport, err := host.GossipTransport(port)
	if err != nil {
		t.Fatal(err)
	}
	o.Transport = transport
	if edit != nil {
		edit(&o)
	}
	c, err := membership.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &runningMember{Cluster: c, cancel: cancel, done: make(chan error, 1)}
	go func() { m.done <- c.Run(ctx) }()
	return m
}

type runningMember struct {
	*membership.Cluster
	cancel context.CancelFunc
	done   chan error
}

func (m *runningMember) stop(t *testing.T) {
	t.Helper()
	m.cancel()
	if err := <-m.done; err != nil {
		t.Error(err)
	}
}

// startAll starts members in their first incarnation and waits until all see all.
func startAll(t *testing.T, n *testnet.Network, names ...string) map[string]*runningMember {
	t.Helper()
	members := make(map[string]*runningMember)
	for _, name := range names {
		members[name] = start(t, n, name, "1", nil)
	}
	time.Sleep(pushPullBound)
	for _, m := range members {
		expectMembers(t, m, withIncarnation(names, "1")...)
	}
	return members
}

func stopAll(t *testing.T, members map[string]*runningMember) {
	t.Helper()
	for _, m := range members {
		m.stop(t)
	}
	time.Sleep(10 * time.Second) // for memberlist's probes under way
}

func withIncarnation(names []string, incarnation string) (ids []string) {
	for _, name := range names {
		ids = append(ids, name+"/"+incarnation)
	}
	return ids
}

func ids(m *runningMember) (ids []string) {
	for _, member := range m.Members() {
		ids = append(ids, member.Name+"/"+member.Incarnation)
	}
	return ids
}

func expectMembers(t *testing.T, m *runningMember, want ...string) {
	t.Helper()
	if got := ids(m); !slices.Equal(got, want) {
		t.Fatalf("%s sees %v, want %v", m.LocalAddress(), got, want)
	}
}

// await returns how long it takes until m sees exactly these members.
func await(t *testing.T, m *runningMember, want ...string) time.Duration {
	t.Helper()
	begin := time.Now()
	limit := time.After(time.Minute)
	for {
		changed := m.Changed()
		if slices.Equal(ids(m), want) {
			return time.Since(begin)
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s still sees %v after a minute, want %v", m.LocalAddress(), ids(m), want)
		}
	}
}

func TestJoinThroughOneSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		seed := func(o *membership.Options) { o.Seeds = []string{"c1:7946"} }
		members := map[string]*runningMember{}
		for _, name := range []string{"w2", "c3", "w1", "c2", "c1"} {
			members[name] = start(t, n, name, "1", seed)
		}
		for _, m := range members {
			if took := await(t, m, "c1/1", "c2/1", "c3/1", "w1/1", "w2/1"); took > pushPullBound {
				t.Errorf("joined after %v", took)
			}
		}
		got := members["w1"].Members()[1]
		want := membership.Member{
			Name:          "c2",
			Incarnation:   "1",
			Role:          membership.Controller,
			Addresses:     membership.Addresses{Peer: "c2:8011", Raft: "c2:8012"},
			GossipAddress: members["c2"].LocalAddress(),
		}
		if got != want {
			t.Errorf("w1 sees %+v, want %+v", got, want)
		}
		stopAll(t, members)
	})
}

func TestMeetMakesTwoGossipsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		members := map[string]*runningMember{}
		for _, name := range []string{"c1", "c2"} {
			members[name] = start(t, n, name, "1", func(*membership.Options) {})
		}
		for range 3 { // again is harmless
			if err := members["c1"].Meet(t.Context(), "c2:7946"); err != nil {
				t.Fatal(err)
			}
		}
		await(t, members["c2"], "c1/1", "c2/1")
		if err := members["c1"].Meet(t.Context(), "nowhere"); err == nil {
			t.Error("an address without a port was taken")
		}
		stopAll(t, members)
	})
}

func TestKillIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		members := startAll(t, n, "c1", "c2", "c3", "w1", "w2")
		n.Kill("w1")
		for _, name := range []string{"c1", "c2", "c3", "w2"} {
			if took := await(t, members[name], "c1/1", "c2/1", "c3/1", "w2/1"); took > 15*time.Second {
				t.Errorf("%s found the death after %v", name, took)
			}
		}
		stopAll(t, members)
	})
}

func TestRestartAtAnotherPortIsAcceptedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		members := startAll(t, n, "c1", "c2", "c3", "w1")
		old := members["w1"]
		n.Kill("w1")
		members["w1"] = start(t, n, "w1", "2", nil)
		if old.LocalAddress() == members["w1"].LocalAddress() {
			t.Fatal("the restarted worker has the old port: this test shows nothing")
		}
		time.Sleep(time.Second)
		expectMembers(t, members["c1"], "c1/1", "c2/1", "c3/1", "w1/1", "w1/2")
		if !slices.Contains(ids(members["c2"]), "w1/2") && !slices.Contains(ids(members["c3"]), "w1/2") {
			t.Error("neither c2 nor c3 has heard of the restarted worker")
		}
		await(t, members["c1"], "c1/1", "c2/1", "c3/1", "w1/2")
		old.stop(t)
		stopAll(t, members)
	})
}

func TestPartitionHealsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		members := startAll(t, n, "c1", "c2", "c3", "w1", "w2")
		// The seed that the workers know is on the smaller side.
		for _, a := range []string{"c1", "w1"} {
			for _, b := range []string{"c2", "c3", "w2"} {
				n.Cut(a, b)
			}
		}
		time.Sleep(10 * time.Minute) // both sides have long forgotten each other
		expectMembers(t, members["w1"], "c1/1", "w1/1")
		expectMembers(t, members["w2"], "c2/1", "c3/1", "w2/1")
		n.HealAll()
		for name, m := range members {
			if took := await(t, m, "c1/1", "c2/1", "c3/1", "w1/1", "w2/1"); took > pushPullBound {
				t.Errorf("%s joined again after %v", name, took)
			}
		}
		stopAll(t, members)
	})
}

func TestLeaveIsSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := startAll(t, testnet.New(), "c1", "c2", "c3", "w1", "w2")
		begin := time.Now()
		members["w2"].stop(t)
		if took := time.Since(begin); took > 600*time.Millisecond {
			t.Errorf("leaving took %v", took)
		}
		expectMembers(t, members["w2"], "c1/1", "c2/1", "c3/1", "w1/1")
		delete(members, "w2")
		time.Sleep(time.Second)
		know := 0
		for _, m := range members {
			if slices.Equal(ids(m), []string{"c1/1", "c2/1", "c3/1", "w1/1"}) {
				know++
			}
		}
		if know < len(members)-1 {
			t.Errorf("%d of %d know of it after a second", know, len(members))
		}
		stopAll(t, members)
	})
}

func TestStopDoesNotWaitForASeedThatDropsPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		n.Isolate("c1")
		w1 := start(t, n, "w1", "1", nil)
		n.Host("c1")
		time.Sleep(time.Minute)
		begin := time.Now()
		w1.stop(t)
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestSeedsThatComeLaterAreJoinedAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		log, text := logger()
		w1 := start(t, n, "w1", "1", func(o *membership.Options) { o.Logger = log })
		time.Sleep(time.Minute) // the name doesn't resolve
		n.Host("c1")
		time.Sleep(time.Minute) // nobody listens
		expectLines(t, text, "[WARN]", "no seed reached", 1)
		expectLines(t, text, "[WARN]", "", 1)
		c1 := start(t, n, "c1", "1", nil)
		await(t, w1, "c1/1", "w1/1")
		time.Sleep(time.Minute)
		expectLines(t, text, "[INFO]", "seed reached: seed=c1:7946", 1)
		expectLines(t, text, "[INFO]", "member joined: member=c1 incarnation=1 role=controller", 1)

		n.Kill("c1")
		await(t, w1, "w1/1")
		time.Sleep(time.Minute)
		expectLines(t, text, "[INFO]", "member gone: member=c1", 1)
		expectLines(t, text, "[WARN]", "no seed reached", 2)
		expectLines(t, text, "", "memberlist", 0)
		stopAll(t, map[string]*runningMember{"w1": w1, "c1": c1})
	})
}

func TestSeedsThatAreLostTogetherAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		log, text := logger()
		members := startAll(t, n, "c1", "c2", "c3")
		members["w1"] = start(t, n, "w1", "1", func(o *membership.Options) {
			o.Logger, o.Seeds = log, []string{"c1:7946", "c2:7946", "c3:7946"}
		})
		time.Sleep(time.Minute)
		expectLines(t, text, "[WARN]", "", 0)
		n.Kill("c2")
		time.Sleep(time.Minute)
		expectLines(t, text, "[WARN]", "seed not reached; trying again until it is: seed=c2:7946", 1)
		n.Kill("c1")
		n.Kill("c3")
		time.Sleep(10 * time.Minute)
		expectLines(t, text, "[WARN]", `no seed reached; trying again until one is: seeds=["c1:7946", "c2:7946", "c3:7946"]`, 1)
		expectLines(t, text, "[WARN]", "", 2)
		stopAll(t, members)
	})
}

func TestOtherKeysAreKeptOut(t *testing.T) {
	for name, key := range map[string][]byte{"wrong": []byte("fedcba9876543210"), "none": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := testnet.New()
				members := startAll(t, n, "c1", "c2")
				log, text := logger()
				members["w1"] = start(t, n, "w1", "1", func(o *membership.Options) { o.Key, o.Logger = key, log })
				time.Sleep(time.Minute)
				expectMembers(t, members["c1"], "c1/1", "c2/1")
				expectMembers(t, members["w1"], "w1/1")
				expectLines(t, text, "[WARN]", "no seed reached", 1)
				stopAll(t, members)
			})
		})
	}
}

func TestStrangersAreSkipped(t *testing.T) {
	strangers := map[string]string{
		"consul-1":  `{"role":"worker"}`, // no incarnation
		"garbage/1": "\x00\xff{",
		"empty/1":   "",
		"other/1":   `{"role":"printer","addresses":{}}`,
		"shape/1":   `{"role":"worker","addresses":["w1:8020"]}`,
	}
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		log, text := logger()
		c1 := start(t, n, "c1", "1", func(o *membership.Options) { o.Logger = log })
		var lists []*memberlist.Memberlist
		for name, meta := range strangers {
			lists = append(lists, stranger(t, n, name, meta))
		}
		w1 := start(t, n, "w1", "1", nil)
		await(t, c1, "c1/1", "w1/1")
		await(t, w1, "c1/1", "w1/1")
		time.Sleep(time.Minute)
		for name := range strangers {
			expectLines(t, text, "[WARN]", "node="+name, 1)
		}
		for _, list := range lists {
			list.Shutdown()
		}
		time.Sleep(time.Minute)
		expectMembers(t, c1, "c1/1", "w1/1")
		stopAll(t, map[string]*runningMember{"c1": c1, "w1": w1})
	})
}

// stranger joins c1 with metadata of its own making.
func stranger(t *testing.T, n *testnet.Network, name, meta string) *memberlist.Memberlist {
	t.Helper()
	transport, err := n.Host("stranger").GossipTransport(0)
	if err != nil {
		t.Fatal(err)
	}
	config := memberlist.DefaultLANConfig()
	config.Name = name
	config.SecretKey = []byte("0123456789abcdef")
	config.Transport = transport
	config.Delegate = rawMetadata{meta: meta}
	config.LogOutput = io.Discard
	list, err := memberlist.Create(config)
	if err != nil {
		t.Fatal(err)
	}
	c1, err := n.Host("stranger").LookupNetIP(t.Context(), "ip", "c1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := list.Join([]string{fmt.Sprintf("%s:7946", c1[0])}); err != nil {
		t.Fatal(err)
	}
	return list
}

type rawMetadata struct {
	memberlist.Delegate
	meta string
}

func (r rawMetadata) NodeMeta(int) []byte             { return []byte(r.meta) }
func (r rawMetadata) GetBroadcasts(int, int) [][]byte { return nil }
func (r rawMetadata) LocalState(bool) []byte          { return nil }

// logger returns a logger at info level and a function that returns what it has logged.
func logger() (hclog.Logger, func() string) {
	buffer := &syncBuffer{}
	return hclog.New(&hclog.LoggerOptions{Output: buffer, Level: hclog.Info}), buffer.String
}

func expectLines(t *testing.T, text func() string, level, part string, want int) {
	t.Helper()
	got := 0
	for line := range strings.Lines(text()) {
		if strings.Contains(line, level) && strings.Contains(line, part) {
			got++
		}
	}
	if got != want {
		t.Errorf("%d lines of the log have %q and %q, want %d:\n%s", got, level, part, want, text())
	}
}
