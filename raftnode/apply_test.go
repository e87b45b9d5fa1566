package raftnode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		leader := c.leader()
		result, first, err := leader.Apply(t.Context(), []byte("a"))
		if err != nil || result != "a is number 1" {
			t.Errorf("apply: %v, %v", result, err)
		}
		result, second, err := leader.Apply(within(t, time.Second), []byte("b"))
		if err != nil || result != "b is number 2" || second <= first {
			t.Errorf("apply: %v at %d after %d, %v", result, second, first, err)
		}
		for _, r := range c.others(leader) {
			eventually(t, "state on "+r.name, func() bool { return r.fsm.holds("a", "b") })
		}
	})
}

func TestFollowerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		follower := c.others(c.leader())[0]
		ctx := within(t, time.Second)
		_, _, err := follower.Apply(ctx, []byte("a"))
		for call, err := range map[string]error{
			"apply":    err,
			"barrier":  follower.Barrier(ctx),
			"verify":   follower.VerifyLeader(ctx),
			"transfer": follower.Transfer(ctx, ""),
			"add":      follower.AddNonvoter(ctx, "c4-0", "c4:8012"),
			"promote":  follower.Promote(ctx, "c4-0", "c4:8012"),
			"remove":   follower.Remove(ctx, "c4-0"),
		} {
			if !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnknown) {
				t.Errorf("%s on a follower: %v", call, err)
			}
		}
	})
}

func TestIsolatedLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		c.apply("a")
		old := c.leader()
		c.part(old)

		// The lease of 250 ms runs out, in which the command's fate is open.
		var calls sync.WaitGroup
		calls.Go(func() {
			if _, _, err := old.Apply(within(t, 10*time.Second), []byte("lost?")); !errors.Is(err, ErrUnknown) {
				t.Errorf("apply by an isolated leader: %v", err)
			}
		})
		calls.Go(func() {
			if err := old.VerifyLeader(within(t, 10*time.Second)); !errors.Is(err, ErrNotLeader) {
				t.Errorf("an isolated leader verified its leadership: %v", err)
			}
		})
		calls.Go(func() {
			if err := old.Barrier(within(t, 10*time.Second)); !errors.Is(err, ErrNotLeader) {
				t.Errorf("barrier by an isolated leader: %v", err)
			}
		})
		begin := time.Now()
		calls.Wait()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it held on for %v", took)
		}

		// The majority goes on, and its history is everybody's after the cut.
		c.apply("b")
		c.net.heal()
		eventually(t, "history of the majority", func() bool { return old.fsm.holds("a", "b") })
	})
}

func TestApplyInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		leader := c.leader()
		c.part(leader)

		interrupted, interrupt := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, interrupt)
		_, _, err := leader.Apply(interrupted, []byte("lost?"))
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while it waited: %v", err)
		}
		_, _, err = leader.Apply(within(t, 10*time.Millisecond), []byte("lost?"))
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("timed out while it waited: %v", err)
		}
		_, _, err = leader.Apply(interrupted, []byte("never"))
		if errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before it began: %v", err)
		}
	})
}

func TestCloseAnswersEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		leader := c.leader()
		c.part(c.others(leader)...)
		var calls sync.WaitGroup
		for i := range 100 {
			calls.Go(func() {
				_, _, err := leader.Apply(context.Background(), fmt.Append(nil, i))
				if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNotLeader) {
					t.Errorf("apply: %v", err)
				}
			})
			calls.Go(func() {
				if err := leader.VerifyLeader(context.Background()); !errors.Is(err, ErrNotLeader) {
					t.Errorf("verify: %v", err)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		if err := leader.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("close took %v", took)
		}
		calls.Wait()

		_, _, err := leader.Apply(t.Context(), []byte("late"))
		if !errors.Is(err, ErrClosed) || errors.Is(err, ErrUnknown) {
			t.Errorf("apply after close: %v", err)
		}
		if err := leader.Barrier(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("barrier after close: %v", err)
		}
	})
}

// Raft, when it is shut down, forgets those whose command is committed and waits
// for the FSM.
func TestCloseAnswersThoseWhoWaitForTheFSM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1")
		leader := c.leader()
		leader.fsm.delay = 100 * time.Millisecond
		var calls sync.WaitGroup
		for i := range 20 {
			calls.Go(func() {
				if _, _, err := leader.Apply(context.Background(), fmt.Append(nil, i)); err != nil {
					t.Errorf("apply: %v", err)
				}
			})
			time.Sleep(time.Millisecond) // to a batch of its own
		}
		if err := leader.Close(); err != nil {
			t.Error(err)
		}
		calls.Wait()
	})
}

// A leader that reaches only a server without a vote has no quorum, whatever the
// library's own check says.
func TestVerifyLeaderWithNonvoterOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := formed(t, "c1", "c2", "c3")
		leader := c.leader()
		observer := c.start("c4")
		if err := leader.AddNonvoter(within(t, time.Second), observer.ID(), observer.Address()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "contact", observer.Formed)
		if err := leader.VerifyLeader(within(t, time.Second)); err != nil {
			t.Errorf("with a quorum: %v", err)
		}
		c.part(leader, observer)
		if err := leader.VerifyLeader(within(t, time.Second)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("without a quorum: %v", err)
		}
	})
}

// Replies to messages that were sent before the call prove nothing: the peers may
// have elected another leader since.
func TestVerifyLeaderDiscountsOldReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		gates := map[string]*gate{}
		c.adjust = func(o *Options) {
			gates[o.Name] = &gate{StreamLayer: o.Stream, pass: make(chan struct{})}
			o.Stream = gates[o.Name]
		}
		c.form("c1", "c2", "c3")
		leader := c.leader()
		if err := leader.VerifyLeader(t.Context()); err != nil {
			t.Fatal(err)
		}

		// All that the leader sends is answered, but the answers are held up; then
		// it is cut off, and they arrive one by one.
		held := gates[leader.name]
		held.shut.Store(true)
		time.Sleep(120 * time.Millisecond)
		c.part(leader)
		verified := make(chan error, 1)
		go func() { verified <- leader.VerifyLeader(within(t, 5*time.Second)) }()
		replies := 0
		for range 10 {
			synctest.Wait()
			select {
			case held.pass <- struct{}{}:
				replies++
			case <-time.After(10 * time.Millisecond):
			}
		}
		held.shut.Store(false)
		close(held.pass)
		if replies < 4 {
			t.Fatalf("only %d replies were under way", replies)
		}
		if err := <-verified; !errors.Is(err, ErrNotLeader) {
			t.Errorf("old replies confirmed the leader: %v", err)
		}
	})
}

func TestOutcomes(t *testing.T) {
	for _, test := range []struct {
		raft error
		want error
		sure bool // surely not applied
	}{
		{raft.ErrNotLeader, ErrNotLeader, true},
		{raft.ErrLeadershipTransferInProgress, ErrNotLeader, true},
		{raft.ErrEnqueueTimeout, context.DeadlineExceeded, true},
		{ErrClosed, ErrClosed, true},
		{raft.ErrLeadershipLost, raft.ErrLeadershipLost, false},
		{raft.ErrRaftShutdown, raft.ErrRaftShutdown, false},
		{raft.ErrAbortedByRestore, raft.ErrAbortedByRestore, false},
		{context.Canceled, context.Canceled, false},
		{errDisk, errDisk, false},
		{&interruption{ErrClosed}, ErrClosed, false}, // while the entry may be on its way
	} {
		err := outcome(test.raft)
		if !errors.Is(err, test.want) || errors.Is(err, ErrUnknown) == test.sure {
			t.Errorf("%v became %v", test.raft, err)
		}
		if strings.Contains(err.Error(), "%!") {
			t.Errorf("%v became %q", test.raft, err)
		}
	}
}
