package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// okResults is a worker's count of actions that it has carried out.
const okResults = `orrery_worker_results_total{code="ok"}`

// TestWorkerKilled kills a worker that has requests in hand, lets it come back,
// and then kills the other one: the first has to serve alone what nobody asked
// it to load again.
func TestWorkerKilled(t *testing.T) {
	c := startCluster(t, devcluster.Options{ControllerKeys: slowElections()})
	c.serve(t, mlp)
	l := startLoad(t, 2*time.Second, both(t, c.Controllers...)...)
	first := busiest(t, c.Workers)
	second := c.Workers[0]
	if first == second {
		second = c.Workers[1]
	}
	began := time.Now()
	for _, w := range []*devcluster.Process{first, second} {
		before := incarnation(t, c, w.Name)
		// Stopped first, so that it surely has a request in hand when it dies.
		if err := w.Pause(); err != nil {
			t.Fatal(err)
		}
		eventually(t, recoverTimeout, "a request in the hands of "+w.Name, func() error {
			if l.stuck(50*time.Millisecond) == 0 {
				return errors.New("no request waits")
			}
			return nil
		})
		stuck := l.stuck(0)
		if err := w.Kill(); err != nil {
			t.Fatal(err)
		}
		t.Logf("SIGKILL of %s while %d requests waited", w.Name, stuck)
		l.awaitAnswers(rate)
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		eventually(t, recoverTimeout, w.Name+" has its model again", func() error {
			if n, err := metric(t.Context(), w, "orrery_worker_models"); err != nil || n != 1 {
				return fmt.Errorf("it has %v models (%w)", n, err)
			}
			if now := incarnation(t, c, w.Name); now == before {
				return fmt.Errorf("its incarnation is still %s", now)
			}
			return nil
		})
		c.awaitWhole(t)
		t.Logf("%s is back with its model after %v", w.Name, ms(time.Since(began)))
	}
	l.awaitAnswers(rate)
	l.end(began, time.Now())
	if n, err := metric(t.Context(), first, okResults); err != nil || n < rate {
		t.Errorf("%s served alone and has %v results (%v)", first.Name, n, err)
	}
	c.awaitHealth(t)
}

// busiest is the worker with the most results.
func busiest(t *testing.T, workers []*devcluster.Process) (most *devcluster.Process) {
	t.Helper()
	results := -1.0
	for _, w := range workers {
		n, err := metric(t.Context(), w, okResults)
		if err != nil {
			t.Fatal(err)
		}
		if n > results {
			most, results = w, n
		}
	}
	return most
}

// incarnation is that of a worker as it is registered.
func incarnation(t *testing.T, c *cluster, worker string) string {
	t.Helper()
	answer, err := clientOf(t, c.Controllers...).ListWorkers(within(t, callTimeout), &controlpb.ListWorkersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range answer.Workers {
		if w.Worker.GetName() == worker {
			return w.Worker.GetIncarnation()
		}
	}
	t.Fatalf("worker %s is not registered", worker)
	return ""
}

// TestLeaderFrozen stops the leader in its tracks and lets it go on when
// another one leads.
func TestLeaderFrozen(t *testing.T) {
	const frozen = 3 * time.Second
	c := startCluster(t, devcluster.Options{})
	c.serve(t, mlp)
	leader, l := c.loadFollowers(t, 5*time.Second)
	others, before := c.without(leader), term(t, leader)

	paused := time.Now()
	if err := leader.Pause(); err != nil {
		t.Fatal(err)
	}
	next := awaitLeader(t, others...)
	elected := time.Now()
	t.Logf("SIGSTOP of %s; %s led after %v, in term %v", leader.Name, next.Name, ms(elected.Sub(paused)), term(t, next))
	eventually(t, recoverTimeout, "the end of the pause", func() error {
		if left := frozen - time.Since(paused); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
	if err := leader.Resume(); err != nil {
		t.Fatal(err)
	}
	c.awaitWhole(t)
	l.awaitAnswers(rate)
	l.end(paused, elected)
	if n := l.sentBetween(paused, elected); n == 0 || term(t, next) <= before {
		t.Errorf("the fault did not bite: %d requests were sent while there was no leader, and the term is %v", n, term(t, next))
	}
	if now := awaitLeader(t, c.Controllers...); now == leader {
		t.Logf("%s leads again", now.Name) // unlikely, but no fault
	}
	c.awaitHealth(t)
}

// TestControllerWiped takes a controller's disk away.
func TestControllerWiped(t *testing.T) {
	c := startCluster(t, devcluster.Options{ControllerKeys: slowElections()})
	leader := c.serve(t, mlp)
	wiped := c.without(leader)[0]
	before := replicaIDs(c.awaitHealth(t))
	l := startLoad(t, 5*time.Second, both(t, c.without(wiped)...)...)

	killed := time.Now()
	if err := wiped.Kill(); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(c.Dir(), wiped.Name, "data")
	if files, err := os.ReadDir(data); err != nil || len(files) == 0 {
		t.Fatalf("its data directory has %v (%v)", files, err)
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	l.awaitAnswers(rate / 2)
	if err := wiped.Start(); err != nil {
		t.Fatal(err)
	}
	c.awaitWhole(t)
	back := time.Now()
	l.awaitAnswers(rate / 2)
	l.end(killed, back)
	t.Logf("%s lost its disk, and is a voter again after %v", wiped.Name, ms(back.Sub(killed)))
	after := replicaIDs(c.awaitHealth(t))
	for _, p := range c.Controllers {
		if same := before[p.Name] == after[p.Name]; same != (p != wiped) {
			t.Errorf("the replica of %s was %s and is %s", p.Name, before[p.Name], after[p.Name])
		}
	}
	if now := awaitLeader(t, c.Controllers...); now != leader {
		t.Errorf("%s leads, although only a follower was away", now.Name)
	}
	// What it knows now it was told by the others.
	if _, err := clientOf(t, wiped).ModelMetadata(within(t, callTimeout), mlp, ""); err != nil {
		t.Errorf("the model at %s: %v", wiped.Name, err)
	}
}

// replicaIDs are the replicas' ids by name.
func replicaIDs(s *controlpb.ClusterStatusResponse) map[string]string {
	ids := map[string]string{}
	for _, r := range s.Replicas {
		ids[r.Name] = r.Id
	}
	return ids
}

// TestAllControllersKilled kills all controllers at once: what they had agreed
// on is still there when they come back, and nothing is loaded or measured
// again.
func TestAllControllersKilled(t *testing.T) {
	c := startCluster(t, devcluster.Options{})
	leader := c.serve(t, mlp)
	cl := clientOf(t, c.Controllers...)
	before, err := cl.ListModels(within(t, callTimeout), &controlpb.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	incarnations := map[string]string{}
	var logs []func() string
	for _, p := range c.All() {
		logs = append(logs, logFrom(t, p))
		if p.Kind == devcluster.Worker {
			incarnations[p.Name] = incarnation(t, c, p.Name)
		}
	}
	was := term(t, leader)

	var kills sync.WaitGroup
	for _, p := range c.Controllers {
		kills.Go(func() {
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
		})
	}
	kills.Wait()
	killed := time.Now()
	for _, p := range c.Controllers {
		if exitedBy(p.Wait()) != syscall.SIGKILL {
			t.Fatalf("%s has ended by %v", p.Name, p.Wait())
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	// A client that has waited is answered as soon as there is a leader.
	first := pictures(t)[0]
	response, _, err := cl.Infer(within(t, recoverTimeout), request(mlp, first))
	if err == nil {
		err = compare(response, mlp, first)
	}
	if err != nil {
		t.Fatalf("the first request after the restart: %v", err)
	}
	t.Logf("all controllers were killed; the first answer came after %v", ms(time.Since(killed)))
	c.awaitWhole(t)
	c.awaitServing(t)
	now := awaitLeader(t, c.Controllers...)
	if term(t, now) <= was {
		t.Errorf("the term is %v, and was %v", term(t, now), was)
	}
	sameModels(t, cl, before.Models)
	for _, w := range c.Workers {
		if i := incarnation(t, c, w.Name); i != incarnations[w.Name] {
			t.Errorf("the incarnation of %s was %s and is %s", w.Name, incarnations[w.Name], i)
		}
	}
	nothingAgain(t, c, logs)
	l := startLoad(t, 3*time.Second, both(t, c.Controllers...)...)
	l.awaitAnswers(rate)
	l.end(killed, killed)
	c.awaitHealth(t)
}

// nothingAgain expects that what the processes have logged since some point
// tells of nothing that is done once only.
func nothingAgain(t *testing.T, c *cluster, since []func() string) {
	t.Helper()
	for _, once := range []string{": profiling: ", "model loaded", "coordinator: startup: "} {
		logged := 0
		for i, p := range c.All() {
			log := since[i]()
			if strings.Contains(log, once) {
				t.Errorf("%s did something again (%q):\n%s", p.Name, once, log)
			}
			logged += strings.Count(p.LogTail(1<<20), once)
		}
		if logged == 0 {
			t.Errorf("no process has ever logged %q: the test does not see what it looks for", once)
		}
	}
}

// sameModels expects the models, their copies and their profiles to be what
// they were.
func sameModels(t *testing.T, cl *client.Client, before []*controlpb.ModelStatus) {
	t.Helper()
	after, err := cl.ListModels(within(t, callTimeout), &controlpb.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(before) == 0 || len(after.Models) != len(before) {
		t.Fatalf("the models were %v and are %v", before, after.Models)
	}
	for i, m := range after.Models {
		if !proto.Equal(m, before[i]) || len(m.Profiles) == 0 {
			t.Errorf("the model was %v and is %v", before[i], m)
		}
	}
}
