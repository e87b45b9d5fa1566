package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// startFleet starts many workers in one process, on the host named name.
func (c *cluster) startFleet(name string, count int) *Fleet {
	c.t.Helper()
	f, err := NewFleet(c.workerConfig(name), count, Options{Network: c.net.Host(name), Logger: c.logger(name), Version: "test"})
	if err != nil {
		c.t.Fatal(err)
	}
	c.start(name, f.Run)
	return f
}

// page is what the HTTP listener of a host answers.
func (c *cluster) page(host, path string) string {
	c.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return c.net.Host("client").Dial(ctx, address)
	}}}
	r, err := client.Get("http://" + host + ":8021" + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

func TestManyWorkersInOneProcess(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		const count = 5
		f := c.startFleet("many", count)
		leader := c.serve(count)
		r, err := c.control(leader).ListWorkers(context.Background(), &controlpb.ListWorkersRequest{})
		if err != nil || len(r.Workers) != count {
			t.Fatalf("%v, %v", r, err)
		}
		incarnations, addresses, bound := map[string]bool{}, map[string]bool{}, f.Addresses()
		for i, w := range r.Workers {
			name := fmt.Sprintf("many-%d", i+1)
			if w.Worker.Name != name || w.Worker.SessionAddress != bound[name+".session"] || !w.Live.Connected {
				t.Errorf("%v; bound at %s", w, bound[name+".session"])
			}
			incarnations[w.Worker.Incarnation], addresses[w.Worker.SessionAddress] = true, true
		}
		if len(incarnations) != count || len(addresses) != count || addresses["many:8020"] {
			t.Errorf("incarnations %v, addresses %v", incarnations, addresses)
		}
		load := c.startTraffic(100, time.Second, controllerNames...)
		time.Sleep(5 * time.Second)
		load.end()
		load.expectNoFault()
		for i, w := range f.workers {
			if w.worker.Stats().Results[sessionpb.ResultCode_RESULT_CODE_OK] == 0 {
				t.Errorf("%s did nothing, not even load the model", f.names[i])
			}
		}
		metrics := c.page("many", "/metrics")
		for _, line := range []string{
			`orrery_worker_registered{worker="many-1"} 1`, `orrery_worker_registered{worker="many-5"} 1`,
			`orrery_worker_refused{worker="many-3"} 0`, `orrery_worker_pages{device="0",kind="v100",worker="many-2"} 32`,
		} {
			if !strings.Contains(metrics, line+"\n") {
				t.Errorf("no %s in\n%s", line, metrics)
			}
		}
		begin := time.Now()
		c.stop("many")
		if took := time.Since(begin); took > 1500*time.Millisecond {
			t.Errorf("they ended after %v", took)
		}
		if n := len(c.journal.find("worker stopped")); n != count {
			t.Errorf("%d workers say that they stopped", n)
		}
	})
}

func TestMetricsOfOneWorkerHaveNoLabelForIt(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		if metrics := c.page("w1", "/metrics"); !strings.Contains(metrics, "\norrery_worker_refused 0\n") {
			t.Errorf("%s", metrics)
		}
	})
}

func TestOneOfManyThatFailsEndsAll(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		f, err := NewFleet(c.workerConfig("many"), 3, Options{Network: c.net.Host("many"), Logger: c.logger("many")})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		c.start("many", func(ctx context.Context) error { ended <- f.Run(ctx); return nil })
		time.Sleep(time.Second)
		f.workers[1].servers.listeners["session"].Close()
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "worker many-2: ") || strings.Contains(err.Error(), "many-1: ") {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the others go on")
		}
	})
}

func TestManyWorkersThatCanNotStartLeaveNothingBehind(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		config := c.workerConfig("many")
		config.Name = strings.Repeat("n", 38)
		if _, err := NewFleet(config, 10, Options{Network: c.net.Host("many")}); err == nil || !strings.Contains(err.Error(), "41 characters") {
			t.Errorf("a name that is too long: %v", err)
		}
		config.Name, config.ModelDir = "n", "/nowhere"
		if _, err := NewFleet(config, 2, Options{Network: c.net.Host("many")}); err == nil || !strings.Contains(err.Error(), "worker n-1: ") {
			t.Errorf("no folder of models: %v", err)
		}
		config.ModelDir = "../models"
		f, err := NewFleet(config, 2, Options{Network: c.net.Host("many")}) // its HTTP port is free
		if err != nil {
			t.Fatal(err)
		}
		next := *config
		next.Log.Level = "debug"
		if applied, err := f.Reload(&next); err != nil || len(applied) != 1 {
			t.Errorf("reload: %v, %v", applied, err)
		}
		next.Speed = 2
		if _, err := f.Reload(&next); err == nil || !strings.Contains(err.Error(), "speed") || strings.Contains(err.Error(), "name") {
			t.Errorf("reload: %v", err)
		}
		f.discard()
	})
}
