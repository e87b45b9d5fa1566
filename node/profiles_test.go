package node

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// delayed has the emulated engine take so much longer.
func delayed(r *inferencepb.ModelInferRequest, by time.Duration) *inferencepb.ModelInferRequest {
	if r.Parameters == nil {
		r.Parameters = map[string]*inferencepb.InferParameter{}
	}
	r.Parameters["emulated_delay"] = &inferencepb.InferParameter{ParameterChoice: &inferencepb.InferParameter_StringParam{StringParam: by.String()}}
	return r
}

// The times of inference have moved away from the profile: it is written again,
// once, and the next leader starts from there.
func TestAProfileThatHasDriftedIsWrittenAgain(t *testing.T) {
	tune := func(config *configs.Controller) {
		quick(config)
		config.Startup.ProfileRefresh = 10 * time.Second
	}
	inTunedBubble(t, 0, tune, func(t *testing.T, c *cluster) {
		leader := c.serveTable(map[string]string{"m": "32,4,10,12,14,16"})
		c.awaitNewestVersion()
		to := c.inference(leader)
		ask100 := func(delay time.Duration) {
			for i := range 100 {
				if err := ask(t.Context(), to, delayed(image("m", i), delay)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(12 * time.Second)
		}
		first := c.model(leader, "m").Profiles[0]
		if first.DriftedUnixNs != 0 || first.Worker != "w1" || first.MeasuredUnixNs == 0 {
			t.Errorf("as measured: %v", first)
		}
		ask100(500 * time.Microsecond) // 5 %
		if p := c.model(leader, "m").Profiles[0]; p.DriftedUnixNs != 0 {
			t.Errorf("it was written again although it is near enough: %v", p)
		}
		ask100(5 * time.Millisecond)
		slower := c.model(leader, "m").Profiles[0]
		if e := slower.Execution[0]; slower.DriftedUnixNs == 0 || e.P50Ns != int64(15*time.Millisecond) || e.Rows != 1 {
			t.Fatalf("after runs of 15ms: %v", slower)
		}
		if e := slower.Execution[3]; e.P50Ns != int64(16*time.Millisecond) || slower.WeightsLoadP50Ns != first.WeightsLoadP50Ns || slower.Worker != "w1" {
			t.Errorf("what has not run is no longer as it was: %v", slower)
		}
		ask100(5 * time.Millisecond)
		if p := c.model(leader, "m").Profiles[0]; p.DriftedUnixNs != slower.DriftedUnixNs {
			t.Errorf("written again without a drift: %v", p)
		}
		// Once more when a look came while most of the last runs were still fast ones.
		if lines := c.journal.find("a profile has drifted"); len(lines) < 1 || len(lines) > 2 {
			t.Errorf("%d times it is said that it has drifted", len(lines))
		}
	})
}

// A device that is not as fast as the one on which the profile was measured is
// found by a few runs, which no later leader repeats.
func TestDevicesOfAKindAreChecked(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		// The tables agree in what makes the digest: the speed of the worker differs.
		dir := c.table("m,32,4,10,12,14,16")
		c.tuneWorker = func(w *configs.Worker) {
			w.ModelDir = dir
			w.Devices = append(w.Devices, w.Devices[0])
			if w.Name == "w2" {
				w.Engines.Emulated.Slowdown = 1.5
			}
		}
		for _, name := range []string{"w1", "w2", "w3"} {
			c.startWorker(name)
		}
		leader := c.leader(controllerNames...)
		c.registered(leader, 3)
		c.awaitNewestVersion()
		c.mustLoad(leader, "m", "table.csv#m")
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)

		ratios := func(at string) map[string]float64 {
			r, err := c.control(at).ListWorkers(context.Background(), &controlpb.ListWorkersRequest{})
			if err != nil {
				t.Fatal(err)
			}
			all := map[string]float64{}
			for _, w := range r.Workers {
				for _, check := range w.Worker.Checks {
					all[fmt.Sprint(w.Worker.Name, "/", check.Device)] = check.Ratio
				}
			}
			return all
		}
		measured := c.model(leader, "m").Profiles[0]
		slow := 1.5
		if measured.Worker == "w2" {
			slow = 1
		}
		checked := ratios(leader)
		if len(checked) != 5 {
			t.Errorf("checked %v, want all devices but the one of %v", checked, measured)
		}
		for device, ratio := range checked {
			want := 1.0
			if measured.Worker == "w2" {
				want = 1 / 1.5
			}
			if device[:2] == "w2" {
				want = slow
			}
			if ratio < want*0.99 || ratio > want*1.01 {
				t.Errorf("%s: %v, want %v", device, ratio, want)
			}
		}
		if lines := c.journal.find("a device is not as fast"); len(lines) == 0 {
			t.Error("nobody was told")
		}
		if profilings := c.journal.find("profiling"); len(profilings) != 1 {
			t.Errorf("%d measurements of one kind: %v", len(profilings), profilings)
		}

		killed := time.Now()
		others := survivors(leader)
		c.kill(leader)
		next := c.leader(others...)
		c.expectServed(map[string]string{"m": "table.csv#m"}, others...)
		time.Sleep(5 * time.Second)
		if again := ratios(next); fmt.Sprint(again) != fmt.Sprint(checked) {
			t.Errorf("checks after the leader has gone: %v, before: %v", again, checked)
		}
		for _, l := range c.journal.find("a device is not as fast") {
			if l.at.After(killed) {
				t.Errorf("%s checked a device again", l.node)
			}
		}
	})
}

// A model that allows fewer rows needs fewer measured; when another one of the same
// source allows more, only what is missing is measured.
func TestOnlyMissingRowsAreMeasured(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		leader := c.leader(controllerNames...)
		c.registered(leader, 1)
		load := func(name string, maxRows uint32) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if _, err := c.control(leader).LoadModel(ctx, &controlpb.LoadModelRequest{Model: &logpb.LoadModel{Name: name, Source: resnet18, MaxRows: maxRows}}); err != nil {
				t.Fatal(err)
			}
		}
		rows := func(name string) (rows []uint32) {
			for _, e := range c.model(leader, name).Profiles[0].Execution {
				rows = append(rows, e.Rows)
			}
			return rows
		}
		load("few", 3)
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		if got := rows("few"); !slices.Equal(got, []uint32{1, 2, 4}) {
			t.Errorf("with 3 rows at most %v were measured", got)
		}
		first := c.model(leader, "few").Profiles[0]
		c.awaitNewestVersion()
		c.admitLateLoads(leader)
		load("many", 0)
		c.eventually(time.Minute, "all rows", func() error {
			if got := rows("many"); !slices.Equal(got, []uint32{1, 2, 4, 8, 16}) {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		second := c.model(leader, "many").Profiles[0]
		if second.WeightsLoadP50Ns != first.WeightsLoadP50Ns || second.Execution[0].String() != first.Execution[0].String() {
			t.Errorf("what was measured is measured again: %v, before %v", second, first)
		}
		if err := ask(t.Context(), c.inference(leader), image("many", 1)); err != nil {
			t.Error(err)
		}
	})
}
