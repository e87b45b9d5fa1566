package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// A pinned model is kept; four others compete for the room of three. Its weights take
// much longer to load than pinWait, theirs do not.
const (
	pinWait  = time.Second
	pinTable = "kept,30,2000,5,6,7,9"
)

func rivals() []string { return []string{"a", "b", "c", "d"} }

// servePinned serves kept and its rivals on two devices of two places each.
func (c *cluster) servePinned() (leader string) {
	c.t.Helper()
	rows := []string{pinTable}
	for _, name := range rivals() {
		rows = append(rows, name+",30,40,5,6,7,9")
	}
	return c.serveTight(c.table(rows...), 64, []string{"w1", "w2"}, append(rivals(), "kept")...)
}

func (c *cluster) pin(at, name string, devices uint32) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := c.control(at).PinModel(ctx, &controlpb.PinModelRequest{Name: name, Devices: devices})
	return err
}

// rival is traffic on all the others.
func (c *cluster) rival(names ...string) (all []*traffic) {
	for _, model := range rivals() {
		all = append(all, c.startTrafficFor(model, 10, 3*time.Second, names...))
	}
	return all
}

// withWeights are the workers that have a model's weights on a device.
func (c *cluster) withWeights(at, model string) (workers []string) {
	c.t.Helper()
	r, err := c.control(at).ListWorkers(context.Background(), &controlpb.ListWorkersRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, w := range r.Workers {
		for _, d := range w.Live.Devices {
			if slices.Contains(d.Resident, model) {
				workers = append(workers, w.Worker.Name)
			}
		}
	}
	return workers
}

// heard lets the leader hear from the workers: it is told by heartbeats what is on a
// device.
func heard() { time.Sleep(time.Second) }

// untilWarm waits until a model's weights are on a device although nobody asks for it.
func (c *cluster) untilWarm(at, model string) (workers []string) {
	c.t.Helper()
	heard()
	c.eventually(10*time.Second, "weights of "+model, func() error {
		if workers = c.withWeights(at, model); len(workers) == 0 {
			return errors.New("on no device")
		}
		return nil
	})
	return workers
}

// expectKept looks for a while whether the weights of kept are always there, and asks
// for it at last. Meanwhile rivals have to be displaced, or nothing was at stake.
func (c *cluster) expectKept(at string, lasting time.Duration) {
	c.t.Helper()
	displaced := map[string]bool{}
	for began := time.Now(); time.Since(began) < lasting; time.Sleep(50 * time.Millisecond) {
		if len(c.withWeights(at, "kept")) == 0 {
			c.t.Fatalf("its weights were evicted after %v", time.Since(began))
		}
		for _, name := range rivals() {
			if len(c.withWeights(at, name)) == 0 {
				displaced[name] = true
			}
		}
	}
	if len(displaced) < 2 {
		c.t.Errorf("only %v was displaced: there was room for all", displaced)
	}
	if err := ask(c.t.Context(), c.inference(at), within(image("kept", 1), pinWait)); err != nil {
		c.t.Errorf("a request for the pinned model: %v", err)
	}
}

func TestAPinnedModelIsNeverCold(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.servePinned()
		others := survivors(leader)
		load := c.rival(others...)
		// Without a pin it does not stay, and a request has to wait for its weights.
		if err := ask(t.Context(), c.inference(leader), within(image("kept", 1), 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		heard()
		c.eventually(time.Minute, "weights that are not pinned are evicted", func() error {
			if on := c.withWeights(leader, "kept"); len(on) > 0 {
				return fmt.Errorf("they are on %v", on)
			}
			return nil
		})
		if err := ask(t.Context(), c.inference(leader), within(image("kept", 1), pinWait)); err == nil {
			t.Error("a cold request was answered at once: the test can't tell")
		}

		if err := c.pin(others[0], "nosuch", 1); reasonOf(err).Reason != errs.UnknownModel {
			t.Errorf("an unknown model: %v", err)
		}
		if err := c.pin(others[0], "kept", 1); err != nil {
			t.Fatal(err)
		}
		c.untilWarm(leader, "kept")
		c.expectKept(leader, 10*time.Second)
		if m := c.model(others[0], "kept"); m.Model.Pinned != 1 || m.GetPinnedNow() == 0 {
			t.Errorf("pinned to %d devices, its weights are on %d", m.Model.Pinned, m.GetPinnedNow())
		}

		c.kill(leader)
		next := c.leader(others...)
		heard()
		c.expectKept(next, 10*time.Second)

		// Its worker goes: another one gets the weights. When that goes as well, and all
		// come back with empty devices, so do the weights.
		holder := c.untilWarm(next, "kept")[0]
		other := map[string]string{"w1": "w2", "w2": "w1"}[holder]
		c.kill(holder)
		c.untilConnected(next, holder, false, 2*time.Second)
		if on := c.untilWarm(next, "kept"); !slices.Contains(on, other) {
			t.Errorf("the weights are on %v", on)
		}
		c.startWorker(holder)
		c.untilConnected(next, holder, true, 10*time.Second)
		heard()
		c.expectKept(next, 5*time.Second)
		c.stop(other) // in order: what runs at both when they die may be blamed for it
		c.stop(holder)
		c.startWorker(other)
		c.startWorker(holder)
		c.untilWarm(next, "kept")
		c.expectKept(next, 5*time.Second)

		// What is unpinned is evicted like any.
		if err := c.pin(next, "kept", 0); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Minute, "weights that were unpinned are evicted", func() error {
			if on := c.withWeights(next, "kept"); len(on) > 0 {
				return fmt.Errorf("they are on %v", on)
			}
			return nil
		})
		for i, l := range load {
			l.end()
			if n := l.answered(); n < 200 {
				t.Errorf("%s was asked for, and answered %d times: the load was not real", rivals()[i], n)
			}
		}
	})
}

// The weights of the new version are there before it takes over.
func TestAReplacementIsPinnedLikeWhatItReplaces(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		leader := c.servePinned()
		if err := c.pin(leader, "kept", 1); err != nil {
			t.Fatal(err)
		}
		c.untilWarm(leader, "kept")
		load := c.rival(survivors(leader)...)
		if _, err := c.replace(leader, "kept", "table.csv#kept"); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Minute, "the switch", func() error {
			if err := ask(t.Context(), c.inference(leader), within(image("kept", 1), pinWait)); err != nil {
				t.Errorf("a cold request: %v", err)
			}
			if now := c.versions(leader, "kept"); fmt.Sprint(now) != "[2]" {
				return fmt.Errorf("versions %v", now)
			}
			return nil
		})
		c.expectKept(leader, 5*time.Second)
		if m := c.model(leader, "kept"); m.Model.Pinned != 1 {
			t.Errorf("it is pinned to %d devices", m.Model.Pinned)
		}
		for _, l := range load {
			l.end()
		}
	})
}

// As long as one controller does not know of pins there are none, and all agree.
func TestAPinWaitsForTheLastReplicaToBeUpdated(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		for _, name := range controllerNames {
			c.kill(name)
			c.dirs[name] = t.TempDir()
		}
		c.startOldController("c3", 4)
		c.startController("c1")
		c.startController("c2")
		c.serve(1)
		if err := c.pin("c1", "resnet18", 1); reasonOf(err).Reason != errs.Precondition {
			t.Errorf("pinned in a cluster with an older controller: %v", err)
		}
		c.stop("c3")
		c.startController("c3")
		c.awaitNewestVersion()
		if err := c.pin("c1", "resnet18", 1); err != nil {
			t.Error(err)
		}
		c.untilWarm("c1", "resnet18")
		c.digestsEqual()
	})
}
