package e2e

import (
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
)

// TestUndisturbed is about what must not disturb a cluster: mistakes, malice
// and questions. Its parts share one cluster, and in the end all of its
// processes are still those that were started.
func TestUndisturbed(t *testing.T) {
	c := startCluster(t, devcluster.Options{ModelDir: badModelDir(t), ControllerKeys: slowElections()})
	pids := map[string]int{}
	for _, p := range c.All() {
		pids[p.Name] = p.PID()
	}
	t.Run("BadLoads", func(t *testing.T) { badLoads(t, c) })
	leader := c.serve(t, mlp)
	t.Run("LateLoad", func(t *testing.T) { lateLoad(t, c) })
	t.Run("CommandLine", func(t *testing.T) { readOnly(t, c) })
	t.Run("ConfigFiles", func(t *testing.T) { configFiles(t, c) })
	t.Run("Reload", func(t *testing.T) { reload(t, c) })
	t.Run("BadRequests", func(t *testing.T) { badInferences(t, c) })
	t.Run("OversizedRequest", func(t *testing.T) { oversized(t, c) })
	t.Run("Cancelled", func(t *testing.T) { cancelled(t, c) })

	before := term(t, leader)
	for _, hostile := range []struct {
		name string
		do   func(*testing.T, *cluster)
	}{
		{"VanishingClients", vanishingClients}, {"Junk", junkEverywhere}, {"Nonsense", nonsense},
	} {
		t.Run(hostile.name, func(t *testing.T) {
			// Others are served meanwhile as if nothing happened.
			l := startLoad(t, 5*time.Second, both(t, c.Controllers...)...)
			began := time.Now()
			hostile.do(t, c)
			ended := time.Now()
			l.awaitAnswers(rate / 2)
			l.end(began, ended)
			awaitNothingHeld(t, c)
		})
	}
	checkMemory(t, c)

	c.awaitHealth(t)
	if now := term(t, leader); now != before {
		t.Errorf("the term is %v, and was %v", now, before)
	}
	if now := awaitLeader(t, c.Controllers...); now != leader {
		t.Errorf("%s leads; before it was %s", now.Name, leader.Name)
	}
	for _, p := range c.All() {
		select {
		case <-p.Exited():
			t.Errorf("%s has ended: %v", p.Name, p.Wait())
		default:
		}
		if p.PID() != pids[p.Name] {
			t.Errorf("%s is another process", p.Name)
		}
	}
}
