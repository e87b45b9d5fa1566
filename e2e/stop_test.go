package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
)

// exitTime is how long a process may take to end when it is asked to.
const exitTime = 2 * time.Second

// TestStopSignals ends one process after the other by Ctrl-C and by SIGTERM,
// under a load of which not one request may fail.
//
// An election would take longer than the deadlines allow: so when the
// leader ends, nothing fails only because it hands over first.
func TestStopSignals(t *testing.T) {
	const deadline = 2 * time.Second
	c := startCluster(t, devcluster.Options{ControllerKeys: slowElections()})
	c.serve(t, mlp)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		leader := awaitLeader(t, c.Controllers...)
		t.Run("Follower/"+signal.String(), func(t *testing.T) {
			stopUnderLoad(t, c, c.without(leader)[0], signal, deadline)
			if now := awaitLeader(t, c.Controllers...); now != leader {
				t.Errorf("%s leads, although only a follower ended", now.Name)
			}
		})
		t.Run("Leader/"+signal.String(), func(t *testing.T) {
			before, log := term(t, leader), logFrom(t, leader)
			stopUnderLoad(t, c, leader, signal, deadline)
			next := awaitLeader(t, c.Controllers...)
			if next == leader || term(t, next) != before+1 {
				t.Errorf("%s leads in term %v; before it was %s in term %v", next.Name, term(t, next), leader.Name, before)
			}
			if !strings.Contains(log(), "leadership handed over") {
				t.Errorf("%s does not say that it has handed over:\n%s", leader.Name, log())
			}
		})
		t.Run("Worker/"+signal.String(), func(t *testing.T) {
			stopUnderLoad(t, c, c.Workers[0], signal, deadline)
		})
	}
	c.awaitHealth(t)
}

// stopUnderLoad signals a process, expects that it ends well, starts it again
// and waits until the cluster is whole. Meanwhile requests come in by all
// controllers that stay; and by clients that use the one that ends, and know
// the others.
func stopUnderLoad(t *testing.T, c *cluster, p *devcluster.Process, signal syscall.Signal, deadline time.Duration) {
	others := c.without(p)
	entries := both(t, others...)
	if p.Kind == devcluster.Controller {
		at := append([]*devcluster.Process{p}, others...)
		entries = append(entries, streamed(p.Name+" and others", clientOf(t, at...)))
	}
	l := startLoad(t, deadline, entries...)
	asked := time.Now()
	if err := p.Signal(signal); err != nil {
		t.Fatal(err)
	}
	awaitExit(t, p, asked)
	next := awaitLeader(t, others...)
	led := time.Now()
	t.Logf("%s leads %v after the signal", next.Name, ms(led.Sub(asked)))
	l.awaitAnswers(rate / 2)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	c.awaitWhole(t)
	l.awaitAnswers(rate / 2)
	l.end(asked, led)
}

// awaitExit expects that a process that was asked to ends in time, with exit
// status 0.
func awaitExit(t *testing.T, p *devcluster.Process, asked time.Time) {
	t.Helper()
	select {
	case <-p.Exited():
	case <-time.After(recoverTimeout):
		t.Fatalf("%s has not ended", p.Name)
	}
	took := time.Since(asked)
	t.Logf("%s ended after %v", p.Name, ms(took))
	if err := p.Wait(); err != nil || took > exitTime {
		t.Errorf("%s ended after %v: %v; the end of its log:\n%s", p.Name, took, err, p.LogTail(15))
	}
}

// logFrom marks the present end of a process's log; what it returns is what has
// come since.
func logFrom(t *testing.T, p *devcluster.Process) (since func() string) {
	t.Helper()
	before, err := os.ReadFile(p.Log)
	if err != nil {
		t.Fatal(err)
	}
	return func() string {
		all, err := os.ReadFile(p.Log)
		if err != nil {
			t.Fatal(err)
		}
		return string(all[len(before):])
	}
}
