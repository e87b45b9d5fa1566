package node

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// slowTable has workers with one model that takes long to load from disk.
func (c *cluster) slowTable(diskLoad time.Duration) {
	c.t.Helper()
	dir := c.faultyTable(fmt.Sprintf("slow,10,1,2,3,,,,%d", diskLoad.Milliseconds()), "fast,10,1,2,3,,,,")
	c.tuneWorker = func(w *configs.Worker) { w.ModelDir = dir }
}

// connFrom dials a controller from a host that may be killed.
func (c *cluster) connFrom(host, address string) *rpc.Conn {
	c.t.Helper()
	conn, err := rpc.Connect(address, c.net.Host(host).Dial, 64<<20)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
	return conn
}

// A client's machine dies in the middle of a load that it has asked for, with
// requests buffered on every controller and connections that have said nothing,
// half of what they had to say, or nonsense. The load goes on, and so does the
// startup.
func TestAClientThatDiesDuringStartupDisturbsNobody(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		c.slowTable(2 * time.Second)
		c.startWorker("w1")
		c.startWorker("w2")
		leader := c.leader(controllerNames...)
		c.registered(leader, 2)
		const host, buffered = "fickle", 5
		var wait sync.WaitGroup
		for i, name := range controllerNames {
			for _, words := range []string{"", "PRI * HTTP/2.0\r\n\r\nSM\r", "no protocol at all\r\n\r\n"} {
				conn, err := c.net.Host(host).Dial(t.Context(), name+":8001")
				if err == nil {
					_, err = conn.Write([]byte(words))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			control, inference := controlpb.NewControlClient(c.connFrom(host, name+":8010")), inferencepb.NewGRPCInferenceServiceClient(c.connFrom(host, name+":8001"))
			wait.Go(func() {
				load := &logpb.LoadModel{Name: fmt.Sprint("slow", i), Source: "table.csv#slow"}
				if m, err := control.LoadModel(context.Background(), &controlpb.LoadModelRequest{Model: load}); err == nil {
					t.Errorf("the fault did not bite: the client got %v", m)
				}
			})
			for j := range buffered {
				wait.Go(func() {
					if err := ask(context.Background(), inference, within(image("slow0", j), 20*time.Second)); err == nil {
						t.Error("the fault did not bite: the client got an answer")
					}
				})
			}
		}
		time.Sleep(time.Second)
		s, err := c.startup(leader)
		if err != nil || s.Phase != logpb.Phase_PHASE_LOADING || s.CountdownNs >= 0 {
			t.Fatalf("in the middle of the loads: %v, %v", s, err)
		}
		for _, name := range controllerNames {
			if n := c.held(name); n != buffered {
				t.Errorf("%s holds %v requests, not %d", name, n, buffered)
			}
		}
		term := c.controllers[leader].raft.Term()
		c.net.Kill(host)
		wait.Wait()
		time.Sleep(100 * time.Millisecond)
		for _, name := range controllerNames {
			if n := c.held(name); n != 0 {
				t.Errorf("%s still holds %v requests of a client that is gone", name, n)
			}
		}
		c.mustLoad(leader, "fast", "table.csv#fast") // by another client
		c.expectServed(map[string]string{"fast": "", "slow0": "", "slow1": "", "slow2": ""}, controllerNames...)
		if loads := c.journal.find("model loaded", " source=table.csv#slow "); len(loads) != 3*2 {
			t.Errorf("3 models were loaded on 2 workers in %d loads", len(loads))
		}
		if now := c.controllers[leader].raft.Term(); now != term {
			t.Errorf("the term is %d, and was %d", now, term)
		}
		c.digestsEqual()
	})
}

// A request for a model that nobody has asked to be loaded is one for a model
// that may still come: it is buffered, and told at the end of the startup, or of
// its time, that there is none. Names that look like ids name nothing.
func TestARequestForAnUnknownModelIsAnsweredInEveryPhase(t *testing.T) {
	names := []string{"0", "1", "2", "-1", "18446744073709551615", "unheard-of", "resnet18/2"}
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		// askAll asks for all of them through all controllers.
		askAll := func(phase string, want errs.Reason, least, most time.Duration) *sync.WaitGroup {
			var wait sync.WaitGroup
			for _, at := range controllerNames {
				for i, name := range names {
					wait.Go(func() {
						began := time.Now()
						err := ask(context.Background(), c.inference(at), within(image(name, i), 20*time.Second))
						took, e := time.Since(began), reasonOf(err)
						if e.Reason != want || e.Execution != errs.NotExecuted || took < least || took > most {
							t.Errorf("%q in phase %s, through %s: after %v %+v", name, phase, at, took, e)
						}
					})
				}
			}
			return &wait
		}
		c.untilPhase(leader, logpb.Phase_PHASE_WAITING, 5*time.Second)
		askAll("waiting", errs.Starting, 10*time.Second, 10*time.Second+tolerance).Wait()
		m := c.mustLoad(leader, "resnet18", resnet18) // id 1, the only one: there are as many models as its id says
		if m.Model.Id != 1 {
			t.Errorf("the first model has id %d", m.Model.Id)
		}
		began := time.Now()
		loading := askAll("loading", errs.UnknownModel, time.Second-tolerance, 5*time.Second)
		c.untilPhase(leader, logpb.Phase_PHASE_PROFILING, 5*time.Second)
		profiling := askAll("profiling", errs.UnknownModel, 0, 5*time.Second)
		loading.Wait()
		profiling.Wait()
		t.Logf("unknown after %v", time.Since(began))
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		askAll("serving", errs.UnknownModel, 0, tolerance).Wait()
		c.expectServed(map[string]string{"resnet18": resnet18}, controllerNames...)
	})
}
