package raftnode

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// reign is what the calls of Lead on one cluster did.
type reign struct {
	mu     sync.Mutex
	active map[string]bool   // by replica
	terms  map[uint64]string // who was called for a term
	errs   []error
}

func (g *reign) begin(replica string, term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.active[replica] {
		g.errs = append(g.errs, errors.New(replica+" was called before its former call had returned"))
	}
	g.active[replica] = true
	if former, taken := g.terms[term]; taken {
		g.errs = append(g.errs, errors.New("a term of "+former+" was also "+replica+"'s"))
	}
	g.terms[term] = replica
}

func (g *reign) end(replica string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active[replica] = false
}

// lead runs Lead on all replicas, with calls that take a while to wind up. The
// function that it returns ends that and checks that all has returned.
func (c *cluster) lead(windUp time.Duration) (*reign, func()) {
	g := &reign{active: map[string]bool{}, terms: map[uint64]string{}}
	ctx, cancel := context.WithCancel(c.t.Context())
	var running sync.WaitGroup
	for _, r := range c.replicas {
		running.Go(func() {
			err := r.Lead(ctx, func(ctx context.Context, term uint64) {
				g.begin(r.name, term)
				<-ctx.Done()
				time.Sleep(windUp)
				g.end(r.name)
			})
			if err != nil {
				c.t.Errorf("lead on %s: %v", r.name, err)
			}
		})
	}
	return g, func() {
		cancel()
		running.Wait()
		for name, active := range g.active {
			if active {
				c.t.Errorf("a call on %s outlived Lead", name)
			}
		}
		for _, err := range g.errs {
			c.t.Error(err)
		}
	}
}

func TestLeadThroughPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		reign, stop := c.lead(400 * time.Millisecond)
		const cuts = 10
		for range cuts {
			leader := c.leader()
			c.part(leader)
			eventually(t, "end of the call", func() bool {
				reign.mu.Lock()
				defer reign.mu.Unlock()
				return !reign.active[leader.name]
			})
			c.net.heal()
			c.leader()
		}
		stop()
		if len(reign.terms) <= cuts {
			t.Errorf("%d terms were led in spite of %d cuts", len(reign.terms), cuts)
		}
	})
}

func TestLeadEndsWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		leader := c.leader()
		var lost time.Time
		var cause error
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			err := leader.Lead(ctx, func(ctx context.Context, term uint64) {
				if term != leader.Term() {
					t.Errorf("called for term %d in term %d", term, leader.Term())
				}
				<-ctx.Done()
				lost, cause = time.Now(), context.Cause(ctx)
				cancel()
			})
			if err != nil {
				t.Error(err)
			}
		})
		time.Sleep(5 * time.Second)
		if !lost.IsZero() {
			t.Fatal("the context ended in a quiet cluster")
		}
		cut := time.Now()
		c.part(leader)
		running.Wait()
		if took := lost.Sub(cut); took > 350*time.Millisecond {
			t.Errorf("a leader with a lease of 250 ms acted on for %v", took)
		}
		if !errors.Is(cause, ErrNotLeader) {
			t.Errorf("the cause is %v", cause)
		}
	})
}

// Two voters hand the leadership back and forth, faster than the calls wind up:
// a replica's next term must wait for its former call.
func TestLeadIsJoinedBeforeTheNextTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2")
		reign, stop := c.lead(3 * time.Second)
		begin := time.Now()
		for range 4 {
			if err := c.leader().Transfer(within(t, 5*time.Second), ""); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Fatalf("the transfers took %v, so no call was still winding up", took)
		}
		leader := c.leader()
		eventually(t, "call for the last term", func() bool {
			reign.mu.Lock()
			defer reign.mu.Unlock()
			return reign.terms[leader.Term()] == leader.name
		})
		stop()
	})
}

func TestLeadIsCalledOnceATerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		calls := 0
		ctx := within(t, time.Minute)
		if err := c.leader().Lead(ctx, func(context.Context, uint64) { calls++ }); err != nil {
			t.Error(err)
		}
		if ctx.Err() == nil || calls != 1 {
			t.Errorf("%d calls", calls)
		}
	})
}

func TestLeadEndsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		leader := c.leader()
		time.AfterFunc(time.Second, func() { _ = leader.Close() })
		err := leader.Lead(t.Context(), func(ctx context.Context, _ uint64) { <-ctx.Done() })
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		old := c.leader()
		begin := time.Now()
		if err := old.Transfer(within(t, time.Second), ""); err != nil {
			t.Fatal(err)
		}
		next := c.leader()
		if next == old {
			t.Error("nobody took over")
		}
		if took := time.Since(begin); took > 300*time.Millisecond {
			t.Errorf("taking over took %v", took)
		}
	})
}

// With nothing written meanwhile, raft may take a voter that has just died for up
// to date and choose it.
func TestTransferPastADeadVoter(t *testing.T) {
	for _, dead := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			c := formed(t, "c1", "c2", "c3")
			old := c.leader()
			time.Sleep(time.Second)
			gone := c.others(old)[dead]
			if err := gone.Close(); err != nil {
				t.Fatal(err)
			}
			if err := old.Transfer(within(t, 5*time.Second), ""); err != nil {
				t.Fatal(err)
			}
			if next := c.leader(); next == old {
				t.Error("nobody took over")
			}
		})
	}
}

// The library refuses another transfer for as long as it waits for the first.
func TestTransferPastASilentVoter(t *testing.T) {
	for _, silent := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			c := formed(t, "c1", "c2", "c3")
			old := c.leader()
			time.Sleep(time.Second)
			frozen := c.others(old)[silent]
			c.net.freeze(frozen.Address())
			defer c.net.thaw(frozen.Address())
			begin := time.Now()
			if err := old.Transfer(within(t, 10*time.Second), ""); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 900*time.Millisecond {
				t.Errorf("handing over took %v", took)
			}
			delete(c.replicas, frozen.name)
			if next := c.leader(); next == old {
				t.Error("nobody took over")
			}
			c.replicas[frozen.name] = frozen
		})
	}
}

// One that is known to be gone costs no attempt at all.
func TestTransferPastALongDeadVoter(t *testing.T) {
	for _, dead := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			c := formed(t, "c1", "c2", "c3")
			old := c.leader()
			gone := c.others(old)[dead]
			if err := gone.Close(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
			c.apply("a")
			if err := old.Transfer(t.Context(), gone.ID()); !errors.Is(err, ErrSilent) {
				t.Errorf("to the dead one: %v", err)
			}
			begin := time.Now()
			if err := old.Transfer(within(t, time.Second), ""); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 100*time.Millisecond {
				t.Errorf("handing over took %v", took)
			}
			if next := c.leader(); next == old {
				t.Error("nobody took over")
			}
		})
	}
}

func TestTransferToOneOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		novice := c.start("c4")
		if err := c.leader().AddNonvoter(t.Context(), novice.ID(), novice.Address()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"c3", "c1", "c2", "c3", "c3"} {
			heir := c.replicas[name]
			if err := c.leader().Transfer(within(t, time.Second), heir.ID()); err != nil {
				t.Fatal(err)
			}
			if next := c.leader(); next != heir {
				t.Errorf("%s leads, not %s", next.name, name)
			}
		}
		leader := c.leader()
		term := leader.Term()
		if err := leader.Transfer(t.Context(), "c9-0011223344556677"); !errors.Is(err, ErrNoServer) {
			t.Errorf("to a stranger: %v", err)
		}
		if err := leader.Transfer(t.Context(), novice.ID()); !errors.Is(err, ErrNotVoter) {
			t.Errorf("to one without a vote: %v", err)
		}
		c.apply("a")
		if leader.Term() != term {
			t.Error("a refused transfer cost a term")
		}
	})
}

// askForVote asks voter to vote for a candidate, and reports whether it did.
func (c *cluster) askForVote(voter, candidate *replica, term uint64) bool {
	c.t.Helper()
	s := newStream(c.net.listen("asks for votes:8012"))
	s.serve(&envoy{voter.ID()})
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: s, Timeout: time.Second, Logger: hclog.NewNullLogger()})
	defer func() { _ = transport.Close() }()
	var response raft.RequestVoteResponse
	err := transport.RequestVote(raft.ServerID(voter.ID()), raft.ServerAddress(voter.Address()), &raft.RequestVoteRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(candidate.ID()), Addr: []byte(candidate.Address())},
		Term:         term,
		LastLogIndex: 1 << 40, LastLogTerm: 1 << 40,
	}, &response)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.Granted
}

// envoy is a host that only wants to talk to one replica.
type envoy struct{ to string }

func (e *envoy) greet(raft.ServerAddress) (greeting, error)     { return greeting{to: e.to}, nil }
func (e *envoy) admit(greeting) error                           { return errStranger }
func (e *envoy) errand(raft.ServerAddress) (stands func() bool) { return func() bool { return false } }

// The figure decides when control calls are refused, so it may not look fresh
// while there is no leader.
func TestLeaderHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		lonely := c.start("c0")
		time.Sleep(time.Second)
		if ago, ever := lonely.LeaderHeard(); ever {
			t.Errorf("an empty replica heard a leader %v ago", ago)
		}
		delete(c.replicas, "c0")
		defer func() { _ = lonely.Close() }()

		c.form("c1", "c2", "c3", "c4")
		old := c.leader()
		time.Sleep(time.Second)
		for range 100 {
			time.Sleep(73 * time.Millisecond)
			for _, r := range c.replicas {
				ago, ever := r.LeaderHeard()
				limit := 300 * time.Millisecond
				if r == old {
					limit = 0
				}
				if !ever || ago > limit {
					t.Errorf("%s heard a leader %v ago (%v)", r.name, ago, ever)
				}
			}
		}

		// Two of four can't elect one, however often they ask each other.
		others := c.others(old)
		lost := time.Now()
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		if err := others[0].Close(); err != nil {
			t.Fatal(err)
		}
		votes := 0
		for term := range uint64(100) {
			time.Sleep(310 * time.Millisecond)
			for _, r := range others[1:] {
				if c.askForVote(r, others[0], 100+term) {
					votes++
				}
				ago, ever := r.LeaderHeard()
				if gone := time.Since(lost); !ever || ago < gone-10*time.Millisecond || ago > gone+300*time.Millisecond {
					t.Fatalf("%s heard a leader %v ago, which is gone for %v", r.name, ago, gone)
				}
			}
		}
		if votes < 100 {
			t.Errorf("they gave only %d votes meanwhile", votes)
		}
		c.start(old.name)
		c.start(others[0].name)
		c.leader()
		time.Sleep(time.Second)
		for _, r := range c.replicas {
			if ago, ever := r.LeaderHeard(); !ever || ago > 300*time.Millisecond {
				t.Errorf("%s heard the next leader %v ago", r.name, ago)
			}
		}
	})
}

func TestLeaderHeardAfterLosingTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		old := c.leader()
		time.Sleep(time.Minute)
		c.part(old)
		for {
			changed := old.LeaderChanged()
			ago, ever := old.LeaderHeard()
			if _, leads := old.leading(); !leads {
				if !ever || ago > 10*time.Millisecond {
					t.Errorf("the leader of a moment ago heard one %v ago", ago)
				}
				break
			}
			<-changed
		}
		lost := time.Now()
		time.Sleep(5 * time.Second)
		if ago, _ := old.LeaderHeard(); ago < time.Since(lost)-10*time.Millisecond || ago > time.Since(lost)+10*time.Millisecond {
			t.Errorf("%v after it lost the lead it heard one %v ago", time.Since(lost), ago)
		}
	})
}

func TestTransferToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		if err := c.leader().Transfer(within(t, 5*time.Second), ""); err == nil {
			t.Error("a single voter transferred its leadership")
		}
		c.apply("a") // and still leads
	})
}

func TestLeaderChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		old := c.leader()
		watcher := c.others(old)[0]
		eventually(t, "known leader", func() bool {
			id, address := watcher.Leader()
			return id == old.ID() && address == old.Address()
		})
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		// It hears first that nobody leads, then of the next leader.
		for known := ""; known == "" || known == old.ID(); known, _ = watcher.Leader() {
			changed := watcher.LeaderChanged()
			if id, _ := watcher.Leader(); id != old.ID() && id != "" {
				break
			}
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				t.Fatalf("no change after %s", known)
			}
		}
	})
}
