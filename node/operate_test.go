package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

const (
	ready    = logpb.WorkerStatus_WORKER_STATUS_READY
	cordoned = logpb.WorkerStatus_WORKER_STATUS_CORDONED
	draining = logpb.WorkerStatus_WORKER_STATUS_DRAINING
	evicted  = logpb.WorkerStatus_WORKER_STATUS_EVICTED
	lost     = logpb.WorkerStatus_WORKER_STATUS_LOST
)

// worker is what a controller shows of a worker, nil if it is not registered.
func (c *cluster) worker(at, name string) *controlpb.WorkerInfo {
	c.t.Helper()
	r, err := c.control(at).ListWorkers(context.Background(), &controlpb.ListWorkersRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, w := range r.Workers {
		if w.Worker.Name == name {
			return w
		}
	}
	return nil
}

// untilGone waits until a controller shows a worker no more.
func (c *cluster) untilGone(at, name string, within time.Duration) {
	c.t.Helper()
	c.eventually(within, name+" leaves the registry", func() error {
		if w := c.worker(at, name); w != nil {
			return fmt.Errorf("%v", w)
		}
		return nil
	})
}

// setStatus has a controller give a worker a status.
func (c *cluster) setStatus(at, name string, status logpb.WorkerStatus, drainFor time.Duration) {
	c.t.Helper()
	_, err := c.control(at).SetWorkerStatus(context.Background(), &controlpb.SetWorkerStatusRequest{Name: name, Status: status, DrainForNs: int64(drainFor)})
	if err != nil {
		c.t.Fatal(err)
	}
}

// model is what a controller shows of a model, empty when there is none.
func (c *cluster) model(at, name string) *controlpb.ModelStatus {
	c.t.Helper()
	r, err := c.control(at).ListModels(context.Background(), &controlpb.ListModelsRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range r.Models {
		if m.Model.Name == name {
			return m
		}
	}
	return &controlpb.ModelStatus{}
}

// loadCopies loads a model on so many workers.
func (c *cluster) loadCopies(at, name, source string, copies uint32) *controlpb.ModelStatus {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := c.control(at).LoadModel(ctx, &controlpb.LoadModelRequest{Model: &logpb.LoadModel{Name: name, Source: source, Copies: copies}})
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Models[0]
}

// holders are the workers that have a model loaded, and take work.
func holders(m *controlpb.ModelStatus) (names []string) {
	for _, copy := range m.Copies {
		if copy.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED && copy.Error == "" {
			names = append(names, copy.Worker)
		}
	}
	return names
}

// done is how many actions a worker has carried out.
func (c *cluster) done(worker string) uint64 {
	return c.results(worker, sessionpb.ResultCode_RESULT_CODE_OK)
}

// expectWork waits until a worker has carried out many actions more.
func (c *cluster) expectWork(worker string) {
	c.t.Helper()
	before := c.done(worker)
	c.eventually(5*time.Second, "work for "+worker, func() error {
		if n := c.done(worker) - before; n < 20 {
			return fmt.Errorf("%d actions", n)
		}
		return nil
	})
}

func TestACordonedWorkerKeepsWhatItHasAndGetsNothing(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		through := follower(leader, controllerNames...)
		load := c.startTraffic(200, time.Second, controllerNames...)
		time.Sleep(time.Second)
		c.setStatus(through, "w1", cordoned, 0)
		time.Sleep(500 * time.Millisecond)
		before := c.done("w1")
		time.Sleep(2 * time.Second)
		if n := c.done("w1") - before; n > 0 {
			t.Errorf("a cordoned worker did %d actions", n)
		}
		if w := c.worker(through, "w1"); w.Worker.Status != cordoned || len(w.Models) != 1 || !w.Live.Connected {
			t.Errorf("cordoned, it is shown as %v", w)
		}
		// An operator's word outlives a restart.
		c.stop("w1")
		c.startWorker("w1")
		c.untilConnected(leader, "w1", true, 5*time.Second)
		time.Sleep(2 * time.Second)
		if w := c.worker(through, "w1"); w.Worker.Status != cordoned || c.done("w1") > 0 {
			t.Errorf("restarted, it is %v and did %d actions", w.Worker.Status, c.done("w1"))
		}
		c.setStatus(through, "w1", ready, 0)
		time.Sleep(time.Second)
		c.setStatus(through, "w2", cordoned, 0)
		c.expectWork("w1")
		load.end()
		load.expectNoFault()
	})
}

// The draining worker is the only one that serves a model with one copy: it goes on
// with that until another one has taken over.
func TestADrainedWorkerHandsOverAndLeaves(t *testing.T) {
	inTunedBubble(t, 3, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 3)
		c.loadCopies(leader, "resnet18", resnet18, 1)
		c.mustLoad(leader, "everywhere", resnet152)
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		c.awaitNewestVersion()
		first := holders(c.model(leader, "resnet18"))
		if len(first) != 1 {
			t.Fatalf("it has copies on %v", first)
		}
		load := c.startTraffic(200, time.Second, controllerNames...)
		time.Sleep(time.Second)
		c.setStatus(follower(leader, controllerNames...), first[0], draining, time.Minute)
		began := time.Now()
		c.untilGone(leader, first[0], 30*time.Second)
		t.Logf("%s left after %v", first[0], time.Since(began))
		time.Sleep(time.Second)
		load.end()
		load.expectNoFault()
		if now := holders(c.model(leader, "resnet18")); len(now) != 1 || now[0] == first[0] {
			t.Errorf("now it has copies on %v", now)
		}
		select {
		case <-c.ended(first[0]):
		default:
			t.Errorf("the process of %s goes on", first[0])
		}
		c.digestsEqual()
	})
}

func TestADrainEndsWithItsDeadline(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(1)
		c.awaitNewestVersion()
		c.setStatus(leader, "w1", draining, 5*time.Second)
		time.Sleep(4 * time.Second)
		// Nobody else could serve the model: it is served as long as that may be.
		if err := ask(context.Background(), c.inference("c1"), within(image("resnet18", 1), time.Second)); err != nil {
			t.Errorf("before the deadline of the drain: %v", err)
		}
		if m := c.model("c2", "resnet18"); m.Code != "" {
			t.Errorf("it is served, and its status says %v", m)
		}
		c.untilGone(leader, "w1", 4*time.Second)
		if e := reasonOf(ask(context.Background(), c.inference("c1"), within(image("resnet18", 1), time.Second))); e.Reason != errs.NoWorker {
			t.Errorf("with nobody left: %+v", e)
		}
	})
}

func TestADrainGoesOnUnderTheNextLeader(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		c.awaitNewestVersion()
		c.loadCopies(leader, "resnet18", resnet18, 0)
		c.setStatus(leader, "w2", cordoned, 0) // so that nobody can take over
		c.setStatus(leader, "w1", draining, 0)
		time.Sleep(2 * time.Second)
		c.kill(leader)
		next := c.leader(survivors(leader)...)
		time.Sleep(2 * time.Second)
		if w := c.worker(next, "w1"); w == nil || w.Worker.Status != draining {
			t.Fatalf("under the next leader: %v", w)
		}
		if err := ask(context.Background(), c.inference(next), within(image("resnet18", 1), time.Second)); err != nil {
			t.Errorf("it serves what nobody else does: %v", err)
		}
		c.setStatus(next, "w2", ready, 0)
		c.untilGone(next, "w1", 10*time.Second)
	})
}

func TestAnEvictedWorkerIsEmptyUntilItIsResumed(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		c.awaitNewestVersion()
		load := c.startTraffic(200, time.Second, controllerNames...)
		time.Sleep(time.Second)
		c.setStatus(leader, "w1", evicted, 0)
		c.eventually(3*time.Second, "w1 is empty", func() error {
			s := c.workers["w1"].worker.Stats()
			if w := c.worker(leader, "w1"); s.Models > 0 || s.Devices[0].FreePages != s.Devices[0].Pages || len(w.Models) > 0 {
				return fmt.Errorf("%+v, %v", s, w)
			}
			return nil
		})
		time.Sleep(time.Second)
		c.setStatus(leader, "w1", ready, 0)
		time.Sleep(time.Second)
		c.setStatus(leader, "w2", cordoned, 0)
		c.expectWork("w1")
		load.end()
		load.expectNoFault()
	})
}

func TestRemovalIsForWorkersThatAreAway(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		remove := func(name string) *errs.Error {
			_, err := c.control(follower(leader, controllerNames...)).RemoveWorker(context.Background(), &controlpb.RemoveWorkerRequest{Name: name})
			if err == nil {
				return nil
			}
			return reasonOf(err)
		}
		if e := remove("w1"); e == nil || e.Reason != errs.Precondition {
			t.Errorf("a connected one: %+v", e)
		}
		if e := remove("w9"); e == nil || e.Reason != errs.UnknownWorker {
			t.Errorf("nobody: %+v", e)
		}
		c.kill("w1")
		c.untilConnected(leader, "w1", false, time.Second)
		_, err := c.control(leader).SetWorkerStatus(context.Background(), &controlpb.SetWorkerStatusRequest{Name: "w1", Status: draining})
		if e := reasonOf(err); e.Reason != errs.Precondition {
			t.Errorf("drain one that is away: %+v", e)
		}
		if e := remove("w1"); e != nil {
			t.Error(e)
		}
		if w := c.worker(leader, "w1"); w != nil {
			t.Errorf("it is still there: %v", w)
		}
		_, err = c.control(leader).SetWorkerStatus(context.Background(), &controlpb.SetWorkerStatusRequest{Name: "w2", Status: lost})
		if e := reasonOf(err); e.Reason != errs.Invalid {
			t.Errorf("who says that it is lost: %+v", e)
		}
	})
}

// A worker that is stopped in order says so: its requests are answered, and it is
// out of the registry at once.
func TestAWorkerThatLeavesIsDeregistered(t *testing.T) {
	inTunedBubble(t, 2, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(2)
		load := c.startTraffic(200, time.Second, controllerNames...)
		time.Sleep(time.Second)
		c.stop("w1")
		c.untilGone(leader, "w1", time.Second)
		time.Sleep(time.Second)
		c.startWorker("w1")
		time.Sleep(2 * time.Second)
		c.setStatus(leader, "w2", cordoned, 0)
		c.expectWork("w1")
		load.end()
		load.expectNoFault()
	})
}

// What is wanted is placed on the workers with the least, and what a lost worker
// held on another one; when it is back there are not too many.
func TestCopiesArePlacedReplacedAndKeptToTheirNumber(t *testing.T) {
	inTunedBubble(t, 4, quick, func(t *testing.T, c *cluster) {
		c.offsets["w3"], c.offsets["w4"] = time.Hour, -time.Minute
		leader := c.leader(controllerNames...)
		c.registered(leader, 4)
		count := map[string]int{}
		for i := range 8 {
			m := c.loadCopies(leader, fmt.Sprint("m", i), resnet18, 2)
			if len(holders(m)) != 2 || len(m.Copies) != 2 {
				t.Errorf("%s has copies %v", m.Model.Name, m.Copies)
			}
			for _, name := range holders(m) {
				count[name]++
			}
		}
		for name, n := range count {
			if n != 4 {
				t.Errorf("%s holds %d of 16 copies: %v", name, n, count)
			}
		}
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		gone := holders(c.model(leader, "m0"))[0]
		c.kill(gone)
		began := time.Now()
		c.eventually(5*time.Second, "two copies of all on the others", func() error {
			for i := range 8 {
				m := c.model(leader, fmt.Sprint("m", i))
				if now := holders(m); len(now) != 2 || now[0] == gone || now[1] == gone {
					return fmt.Errorf("m%d on %v", i, now)
				}
			}
			return nil
		})
		t.Logf("replaced %v after the loss", time.Since(began))
		// A worker that was only cut off comes back with what it had.
		cut := holders(c.model(leader, "m1"))[0]
		c.net.Isolate(cut)
		time.Sleep(13 * time.Second)
		if w := c.worker(leader, cut); w.Worker.Status != lost {
			t.Errorf("after 13s it is %v", w.Worker.Status)
		}
		c.net.Rejoin(cut)
		c.eventually(10*time.Second, "two copies of each, and no more", func() error {
			total := 0
			for i := range 8 {
				m := c.model(leader, fmt.Sprint("m", i))
				if now := holders(m); len(now) != 2 {
					return fmt.Errorf("m%d on %v", i, now)
				}
			}
			for name, w := range c.workers {
				if name != gone {
					total += w.worker.Stats().Models
				}
			}
			if total != 16 {
				return fmt.Errorf("workers hold %d models", total)
			}
			return nil
		})
	})
}

// A worker without the memory is not chosen when another one has it.
func TestCopiesGoWhereThereIsMemory(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		dir := c.table("big,100,4,2,3,4,6", "small,10,1,2,3,4,6")
		memory := map[string]configs.Bytes{"w1": 150 * configs.MiB, "w2": 1 * configs.GiB}
		c.tuneWorker = func(w *configs.Worker) { w.ModelDir, w.HostMemory = dir, memory[w.Name] }
		c.startWorker("w1")
		c.startWorker("w2")
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		for i := range 6 {
			m := c.loadCopies(leader, fmt.Sprint("big", i), "table.csv#big", 1)
			if len(holders(m)) != 1 {
				t.Fatalf("%s has copies %v: %s", m.Model.Name, m.Copies, m.Reason)
			}
		}
		if n := c.workers["w1"].worker.Stats().Models; n != 1 {
			t.Errorf("w1, with room for one, holds %d", n)
		}
	})
}
