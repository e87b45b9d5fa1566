package node

import (
	"testing"
	"time"
)

// survivors are the controllers but one.
func survivors(without string) []string {
	var out []string
	for _, name := range controllerNames {
		if name != without {
			out = append(out, name)
		}
	}
	return out
}

func TestNothingIsLostWhenTheLeaderIsCutOff(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		others := survivors(leader)
		// One of them will lead, and the other has to find it.
		var loads []*traffic
		for _, name := range others {
			loads = append(loads, c.startTraffic(50, 3*time.Second, name))
		}
		time.Sleep(2 * time.Second)
		c.net.Isolate(leader)
		next := c.leader(others...)
		if next == leader {
			t.Fatalf("%s still leads", leader)
		}
		time.Sleep(3 * time.Second)
		c.net.Rejoin(leader)
		time.Sleep(2 * time.Second)
		for i, load := range loads {
			load.end()
			load.expectNoFault()
			t.Logf("%d requests through %s (leader %s), longest gap %v", load.sent, others[i], next, load.longestGap())
			if gap := load.longestGap(); gap > 1500*time.Millisecond {
				t.Errorf("%s answered nothing for %v", others[i], gap)
			}
		}
		c.digestsEqual()
	})
}

func TestNothingIsLostWhenTheLeaderIsKilled(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		others := survivors(leader)
		load := c.startTraffic(100, 3*time.Second, others...)
		time.Sleep(2 * time.Second)
		c.kill(leader)
		c.leader(others...)
		time.Sleep(2 * time.Second)
		c.startController(leader)
		time.Sleep(2 * time.Second)
		load.end()
		load.expectNoFault()
		t.Logf("%d requests, longest gap %v", load.sent, load.longestGap())
		c.digestsEqual()
	})
}

func TestNothingIsLostWhenTheLeaderIsStopped(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		load := c.startTraffic(100, time.Second, survivors(leader)...)
		time.Sleep(time.Second)
		c.stop(leader)
		time.Sleep(2 * time.Second)
		load.end()
		load.expectNoFault()
		if gap := load.longestGap(); gap > 500*time.Millisecond {
			t.Errorf("no answer for %v, although leadership was to be handed over", gap)
		}
	})
}

func TestNothingIsLostWhenAWorkerIsKilled(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		c.serve(2)
		load := c.startTraffic(100, time.Second, controllerNames...)
		time.Sleep(time.Second)
		c.kill("w1")
		time.Sleep(2 * time.Second)
		before := load.answered()
		c.startWorker("w1")
		time.Sleep(5 * time.Second)
		load.end()
		load.expectNoFault()
		if load.answered() <= before {
			t.Error("nothing was answered after the worker came back")
		}
	})
}
