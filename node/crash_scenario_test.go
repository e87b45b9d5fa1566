package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// crashLatency makes a commit take time: an entry is on the leader's disk two of
// these before it is committed, and another one passes until the others know.
const crashLatency = 3 * time.Millisecond

// askedAfter is when the clients ask for their models, from the moment that the
// first leader leads. Times of the leader's own, such as its looks at the clock,
// count from there, too: so all startups have the same course.
const askedAfter = 2 * time.Second

// crashModels are what the clients ask for; crashTable is their table. Two have
// one source, and so one profile on each kind of device. The first load of each
// has one worker alone: so loading has many steps. Loads of gamma are still under
// way when the next leader comes.
var crashModels = []*logpb.LoadModel{
	{Name: "alpha", Source: "table.csv#alpha"},
	{Name: "twin", Source: "table.csv#alpha"},
	{Name: "bad", Source: "table.csv#nosuch"},
	{Name: "beta", Source: "table.csv#beta", SloNs: int64(time.Second)},
	{Name: "gamma", Source: "table.csv#gamma", MaxRows: 1},
	{Name: "few", Source: "table.csv#few", Copies: 1, Constraints: []*logpb.Label{{Key: "gpu", Value: "v100"}}},
}

var crashTable = []string{"alpha,10,1,2,3,,,,20", "beta,20,2,3,4,,,,60", "gamma,30,3,4,6,,,,1200", "few,10,1,1,2,,,,40"}

// startCrashWorkers starts three workers with two kinds of device.
func (c *cluster) startCrashWorkers() {
	dir := c.faultyTable(crashTable...)
	c.tuneWorker = func(w *configs.Worker) {
		w.ModelDir = dir
		if w.Name == "w3" {
			w.Devices[0].Kind = "a10"
		}
		w.Labels = map[string]string{"gpu": w.Devices[0].Kind}
	}
	for _, name := range []string{"w1", "w2", "w3"} {
		c.startWorker(name)
	}
}

// course is when a startup did what, each after the moment that its first leader
// led, as that one saw it.
type course struct {
	phases map[logpb.Phase]time.Duration
	// loaded is when the last load was answered.
	loaded time.Duration
}

// rehearsal is one startup with all its clients, from the first election until
// the cluster serves.
type rehearsal struct {
	c *cluster
	// leader is the first one, since began.
	leader string
	began  time.Time
	loads  []*loadCall
	// early: the loads are asked for at once, not after askedAfter.
	early bool
	// buffered are requests from before the cluster serves.
	buffered *traffic
	wait     sync.WaitGroup
}

// rehearse waits for the first leader and sets the clients going.
func (c *cluster) rehearse(early bool) *rehearsal {
	c.t.Helper()
	c.net.SetLatency(crashLatency)
	c.startCrashWorkers()
	r := &rehearsal{c: c, early: early}
	r.leader = c.untilOneLeads(10*time.Second, controllerNames...)
	r.began = time.Now()
	r.buffered = c.startTrafficFor("alpha", 20, 30*time.Second, survivors(r.leader)...)
	for i, model := range crashModels {
		call := &loadCall{model: model}
		r.loads = append(r.loads, call)
		r.wait.Go(func() {
			if !early {
				time.Sleep(askedAfter)
			}
			call.run(c, i)
		})
	}
	return r
}

// untilOneLeads waits until one of the named controllers takes itself for the leader.
func (c *cluster) untilOneLeads(within time.Duration, among ...string) string {
	c.t.Helper()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(time.Millisecond / 2) {
		for _, name := range among {
			raft := c.controllers[name].raft
			if id, _ := raft.Leader(); id == raft.ID() {
				return name
			}
		}
	}
	c.t.Fatalf("none of %v led within %v", among, within)
	return ""
}

// untilApplied waits until a controller has applied a phase, and returns when
// that was. It asks nobody, so it costs neither time nor packets.
func (c *cluster) untilApplied(name string, phase logpb.Phase, within time.Duration) time.Time {
	c.t.Helper()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	for {
		replica, now := c.controllers[name].replica, logpb.Phase(0)
		changed := replica.Changed(fsm.Cluster)
		replica.Read(func(s *fsm.State) { now = s.Phase() })
		if now >= phase {
			return time.Now()
		}
		select {
		case <-changed:
		case <-timeout.C:
			c.t.Fatalf("%s is still in %v, not in %v, after %v", name, now, phase, within)
		}
	}
}

// course watches a startup that nothing disturbs.
func (r *rehearsal) course() course {
	r.c.t.Helper()
	seen := course{phases: map[logpb.Phase]time.Duration{}}
	for phase := logpb.Phase_PHASE_WAITING; phase <= logpb.Phase_PHASE_SERVING; phase++ {
		seen.phases[phase] = r.c.untilApplied(r.leader, phase, 30*time.Second).Sub(r.began)
	}
	r.wait.Wait()
	for _, l := range r.loads {
		seen.loaded = max(seen.loaded, l.at.Sub(r.began))
	}
	return seen
}

// finish waits until all clients have been answered and the named controllers
// serve, and checks the answers.
func (r *rehearsal) finish(names ...string) {
	c := r.c
	c.t.Helper()
	r.wait.Wait()
	for _, l := range r.loads {
		l.check(c, r.early)
	}
	for _, name := range names {
		c.untilApplied(name, logpb.Phase_PHASE_SERVING, time.Minute)
	}
	time.Sleep(500 * time.Millisecond) // whoever is to do something again does it now
	r.buffered.end()
	r.buffered.expectNoFault()
	for _, m := range crashModels {
		for _, name := range names {
			err := ask(context.Background(), c.inference(name), within(image(m.Name, 1), 5*time.Second))
			if m.Name == "bad" && reasonOf(err).Reason != errs.LoadFailed || m.Name != "bad" && err != nil {
				c.t.Errorf("a request for %s through %s: %v", m.Name, name, err)
			}
		}
	}
}

// loadCall is a client that wants a model and goes on until it has an answer.
type loadCall struct {
	model *logpb.LoadModel
	// What became of it; at is when.
	answer *controlpb.ModelStatus
	err    error
	at     time.Time
	// refused are the times that it was told that there is no leader.
	refused int
}

// run asks all controllers in turn, beginning with another one for each i, as our
// client does: with one id. That there is no leader is an answer, too; then the
// client asks again.
func (l *loadCall) run(c *cluster, i int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var controls []controlpb.ControlClient
	for _, name := range controllerNames {
		controls = append(controls, c.control(name))
	}
	request := &controlpb.LoadModelRequest{RequestId: "load-of-" + l.model.Name, Model: l.model}
	for began := time.Now(); ; i++ {
		request.RequestedAgoNs = int64(time.Since(began))
		answer, err := controls[i%len(controls)].LoadModel(ctx, request)
		l.at, l.err = time.Now(), err
		switch {
		case err == nil:
			l.answer = answer.Models[0]
			return
		case reasonOf(err).Reason == errs.NoLeader:
			l.refused++
		case status.Code(err) != codes.Unavailable || ctx.Err() != nil:
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// check expects a model that can be loaded to be loaded by all that were chosen,
// and one that can't to have failed.
func (l *loadCall) check(c *cluster, early bool) {
	c.t.Helper()
	switch {
	case early && l.err == nil && l.answer.Code == string(errs.NoMatch):
		return // of the workers so far: those with the labels come later
	case l.err != nil || len(l.answer.Copies) == 0:
		c.t.Errorf("the load of %s, refused %d times, was answered by %v, %v", l.model.Name, l.refused, l.answer, l.err)
		return
	}
	want := logpb.HoldingStatus_HOLDING_STATUS_LOADED
	if l.model.Name == "bad" {
		want = logpb.HoldingStatus_HOLDING_STATUS_FAILED
	}
	for _, h := range l.answer.Copies {
		if h.Status != want {
			c.t.Errorf("the load of %s was answered although its copy at %s is %v (%s)", l.model.Name, h.Worker, h.Status, h.Error)
		}
	}
}

// crash is the death of a leader and what was agreed on until then.
type crash struct {
	leader string
	at     time.Time
	before agreed
	term   uint64
}

// crash kills whoever leads, at an instant.
func (c *cluster) crash(leader string, at time.Time) *crash {
	c.t.Helper()
	time.Sleep(time.Until(at))
	node := c.controllers[leader]
	if id, _ := node.raft.Leader(); id != node.raft.ID() {
		c.t.Errorf("the fault did not bite: %s does not lead any more", leader)
	}
	died := &crash{leader: leader, at: time.Now(), before: c.agreed(), term: node.raft.Term()}
	c.kill(leader)
	return died
}

// news says, of a phase, who knew of it when the leader died: nobody, the
// leader alone, or others too.
func (d *crash) news(phase logpb.Phase) string {
	knew := 0
	for _, p := range d.before.phases {
		if p >= phase {
			knew++
		}
	}
	return [...]string{"nobody", "the leader alone", "one other", "all"}[knew]
}

// expectNothingAgain checks in the journal that nothing was done twice.
func (d *crash) expectNothingAgain(c *cluster) {
	c.t.Helper()
	names, digests := map[uint64]string{}, map[string]string{}
	c.controllers[survivors(d.leader)[0]].replica.Read(func(s *fsm.State) {
		for _, m := range s.Models() {
			names[m.Id], digests[m.Name] = m.Name, m.Info.GetDigest()
		}
	})
	// A worker that has begun to load for a leader that dies goes on, and tells
	// the next one: so no exception is needed for loads that were under way.
	loads := map[copyKey]int{}
	for id, name := range names {
		for _, l := range c.journal.find("model loaded", fmt.Sprintf(" model=%d ", id)) {
			loads[copyKey{l.node, name}]++
		}
	}
	for k, status := range c.agreed().copies {
		tried := len(c.journal.find("a worker could not load", " worker="+k.worker+" ", " model="+k.model+" "))
		switch {
		case status == logpb.HoldingStatus_HOLDING_STATUS_LOADED && loads[k] != 1:
			c.t.Errorf("%s loaded %s %d times", k.worker, k.model, loads[k])
		case status == logpb.HoldingStatus_HOLDING_STATUS_FAILED && tried == 0:
			c.t.Errorf("that %s could not load %s is not in the journal", k.worker, k.model)
		}
	}
	for k := range d.before.copies {
		for _, l := range c.journal.find("a worker could not load", " worker="+k.worker+" ", " model="+k.model+" ") {
			if l.at.After(d.at) {
				c.t.Errorf("%s tried %s at %s again, %v after the leader had died", l.node, k.model, k.worker, l.at.Sub(d.at))
			}
		}
	}
	measured := map[measureKey]int{}
	for name, digest := range digests {
		for _, kind := range []string{"v100", "a10"} {
			for _, l := range c.journal.find("profiling term=", " model="+name+" ", " device_kind="+kind+" ") {
				k := measureKey{digest, kind}
				if l.at.After(d.at) && l.node != d.leader && d.before.measured[k] {
					c.t.Errorf("%s on %s was measured again for %s, %v after the leader had died", name, kind, l.node, l.at.Sub(d.at))
				}
				measured[k]++
			}
		}
	}
	for k := range c.agreed().measured {
		if n := measured[k]; n < 1 || n > 2 { // once, and once more if it was under way
			c.t.Errorf("%.8s on %s was measured %d times", k.digest, k.kind, n)
		}
	}
}
