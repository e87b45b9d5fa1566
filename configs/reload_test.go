package configs

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func parsedController(t *testing.T, extra string) *Controller {
	t.Helper()
	c, err := ParseController("c.yaml", []byte(leastController+extra), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReloadAppliesLiveKeysAndRefusesTheRest(t *testing.T) {
	running := parsedController(t, "")
	before := *running
	next := parsedController(t, `
expose: [http]
log: {level: debug, format: json}
startup: {load_idle: 1s, loads_per_worker: 9}
inference: {held_requests: 7, link_requests: 8}
workers: {forget_after: 1h}
control: {no_leader_timeout: 9s}
scheduler: {schedule_ahead: 1ms}
raft: {leader_lease: 50ms}
`)
	merged, changes, err := running.Reload(next)
	if err != nil {
		t.Fatal(err)
	}
	wantChanges := Changes{
		Live: []string{
			"startup.loads_per_worker", "inference.held_requests", "workers.forget_after",
			"control.no_leader_timeout", "log.level",
		},
		Restart: []string{"expose", "raft.leader_lease", "startup.load_idle", "inference.link_requests", "scheduler.schedule_ahead", "log.format"},
	}
	if diff := cmp.Diff(wantChanges, changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	want := before
	want.Startup.LoadsPerWorker = 9
	want.Inference.HeldRequests = 7
	want.Workers.ForgetAfter = time.Hour
	want.Control.NoLeaderTimeout = 9 * time.Second
	want.Log.Level = "debug"
	if diff := cmp.Diff(want, *merged); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, *running); diff != "" {
		t.Errorf("Reload changed its receiver:\n%s", diff)
	}
	const wantErr = "not applied: expose, raft.leader_lease, startup.load_idle, inference.link_requests, scheduler.schedule_ahead, log.format; " +
		"restart for the new values, or put back the old ones"
	if err := changes.Err(); err == nil || err.Error() != wantErr {
		t.Errorf("got  %v\nwant %s", err, wantErr)
	}
}

func TestReloadWithoutAChange(t *testing.T) {
	// An empty list is no change from none.
	merged, changes, err := parsedController(t, "").Reload(parsedController(t, "expose: []\n"))
	if err != nil || len(changes.Live)+len(changes.Restart) != 0 || changes.Err() != nil {
		t.Errorf("changes %+v, error %v", changes, err)
	}
	if diff := cmp.Diff(parsedController(t, ""), merged); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

// TestReloadRefusesHalvesThatDontFit: held_bytes is live, the max_message that it went with is not.
func TestReloadRefusesHalvesThatDontFit(t *testing.T) {
	next := parsedController(t, "inference: {max_message: 1MiB, held_bytes: 2MiB}\n")
	merged, changes, err := parsedController(t, "").Reload(next)
	if merged != nil || err == nil || !strings.Contains(err.Error(), "inference.held_bytes: 2MiB is less than inference.max_message, 64MiB") {
		t.Errorf("merged %v, error %v", merged, err)
	}
	if diff := cmp.Diff(Changes{Live: []string{"inference.held_bytes"}, Restart: []string{"inference.max_message"}}, changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestReloadWorker(t *testing.T) {
	parse := func(extra string) *Worker {
		w, err := ParseWorker("w.yaml", []byte(leastWorker+extra), nil)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	merged, changes, err := parse("").Reload(parse("log: {level: trace}\nlabels: {zone: a}\nspeed: 2\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Changes{Live: []string{"log.level"}, Restart: []string{"labels", "speed"}}, changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if merged.Log.Level != "trace" || merged.Speed != 1 || merged.Labels != nil {
		t.Errorf("merged %+v", merged)
	}
}

func TestLiveKeys(t *testing.T) {
	live := func(doc document) []string {
		var paths []string
		for _, k := range keysOf(doc) {
			if k.live && !k.section {
				paths = append(paths, k.path)
			}
		}
		return paths
	}
	want := []string{
		"raft.digest_interval", "startup.infer_buffer", "startup.loads_per_worker", "startup.profile_share", "startup.profile_refresh",
		"inference.default_timeout", "inference.held_requests", "inference.held_bytes",
		"inference.degraded_after", "inference.degraded_for",
		"workers.connect_timeout", "workers.compare_interval", "workers.dead_after", "workers.lost_after", "workers.forget_after",
		"control.no_leader_timeout", "log.level",
	}
	if diff := cmp.Diff(want, live(new(Controller))); diff != "" {
		t.Errorf("controller (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"log.level"}, live(new(Worker))); diff != "" {
		t.Errorf("worker (-want +got):\n%s", diff)
	}
}
