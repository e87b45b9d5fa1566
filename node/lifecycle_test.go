package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// stopWithin stops a node and checks how long that took.
func (c *cluster) stopWithin(name string, atMost time.Duration) {
	c.t.Helper()
	began := time.Now()
	c.stop(name)
	if took := time.Since(began); took > atMost {
		c.t.Errorf("%s took %v to stop, not at most %v", name, took, atMost)
	}
}

func TestEveryNodeStopsQuicklyUnderLoad(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		others := survivors(leader)
		load := c.startTraffic(100, time.Second, others[1])
		time.Sleep(time.Second)
		c.stopWithin("w1", 2*time.Second)
		time.Sleep(500 * time.Millisecond)
		c.startWorker("w1")
		c.stopWithin(others[0], 2*time.Second)
		time.Sleep(500 * time.Millisecond)
		c.startController(others[0])
		time.Sleep(time.Second)
		c.stopWithin(leader, 2*time.Second)
		time.Sleep(time.Second)
		load.end()
		load.expectNoFault()
		c.stopWithin(others[1], 2*time.Second) // no majority is left
		c.stopWithin("w1", 2*time.Second)
		c.stopWithin("w2", 2*time.Second)
		c.stopWithin(others[0], 2*time.Second)
	})
}

// A leader that dials a worker which does not answer must not wait for that
// when it stops, or loses its leadership.
func TestALeaderStopsQuicklyWithAWorkerThatIsCutOff(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		c.net.Isolate("w2")
		time.Sleep(time.Second)
		c.stopWithin(leader, time.Second)
	})
}

func TestAClusterThatWasSwitchedOffServesAgain(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		c.serve(2)
		for _, name := range append([]string{"w1", "w2"}, controllerNames...) {
			c.kill(name)
		}
		time.Sleep(time.Minute)
		off := time.Now()
		for _, name := range controllerNames {
			c.startController(name)
		}
		c.startWorker("w1")
		c.startWorker("w2")
		c.untilPhase("c1", logpb.Phase_PHASE_SERVING, 10*time.Second)
		c.eventually(5*time.Second, "an answer of a restarted worker", func() error {
			return ask(t.Context(), c.inference("c1"), image("resnet18", 1))
		})
		c.expectServed(map[string]string{"resnet18": resnet18}, controllerNames...)
		c.expectNotRepeated(map[string]bool{"resnet18": true}, off)
		c.digestsEqual()
	})
}

func TestAWipedControllerComesBackAsANewReplica(t *testing.T) {
	for _, role := range []string{"follower", "leader"} {
		t.Run(role, func(t *testing.T) {
			inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
				wiped := c.serve(1)
				if role == "follower" {
					wiped = follower(wiped, controllerNames...)
				}
				load := c.startTraffic(50, 3*time.Second, survivors(wiped)...)
				time.Sleep(time.Second)
				before := c.controllers[wiped].raft.ID()
				c.kill(wiped)
				c.dirs[wiped] = t.TempDir()
				c.startController(wiped)
				after := c.controllers[wiped].raft.ID()
				if after == before {
					t.Fatalf("the wiped replica is %s again", after)
				}
				c.digestsEqual() // of three voters
				s, err := c.status(wiped)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range s.Replicas {
					if r.Id == before || r.Name == wiped && r.Id != after {
						t.Errorf("replica %v beside the new %s", r, after)
					}
				}
				load.end()
				load.expectNoFault()
				c.expectServed(map[string]string{"resnet18": resnet18}, wiped)
			})
		})
	}
}

func TestQuietMinutes(t *testing.T) {
	inTunedBubble(t, 2, func(config *configs.Controller) {
		quick(config)
		calm(config)
		config.Raft.DigestInterval = time.Hour
	}, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		before, err := c.status(leader)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(quiet(5 * time.Minute))
		after, err := c.status(leader)
		if err != nil {
			t.Fatal(err)
		}
		if after.Term != before.Term || after.Leader != leader {
			t.Errorf("%s led in term %d, now %s leads in term %d", leader, before.Term, after.Leader, after.Term)
		}
		if grown := after.AppliedIndex - before.AppliedIndex; grown > 10 {
			t.Errorf("the log grew by %d entries in quiet minutes", grown)
		}
		workers, err := c.control(leader).ListWorkers(context.Background(), &controlpb.ListWorkersRequest{})
		if err != nil || len(workers.Workers) != 2 {
			t.Fatal(workers, err)
		}
		for _, w := range workers.Workers {
			if !w.Live.Connected {
				t.Errorf("%v", fmt.Sprint(w.Live))
			}
		}
		if lines := c.journal.find("worker disconnected"); len(lines) > 0 {
			t.Errorf("sessions broke in quiet minutes: %v", lines)
		}
	})
}

func TestAStoppingFollowerAnswersWhatItHasTakenIn(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		stopped := follower(c.serveTable(map[string]string{"m": "10,1,40,44,50,60"}), controllerNames...)
		to := c.inference(stopped)
		const callers = 20
		var wait sync.WaitGroup
		begun := make([]time.Time, callers) // each caller's last request
		last := make([]error, callers)
		for i := range callers {
			wait.Go(func() {
				for n := 0; last[i] == nil; n++ {
					ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
					begun[i] = time.Now()
					last[i] = ask(ctx, to, image("m", n*callers+i))
					cancel()
					time.Sleep(time.Duration(i) * 100 * time.Microsecond)
				}
			})
		}
		time.Sleep(500*time.Millisecond + 10*time.Microsecond)
		stopping := time.Now()
		c.stopWithin(stopped, time.Second)
		wait.Wait()
		for i, err := range last {
			// Those who come later find nobody, at once.
			if begun[i].Before(stopping) || status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "refused") {
				t.Errorf("%v after the stop a caller asked, and got %v", begun[i].Sub(stopping), err)
			}
		}
	})
}
