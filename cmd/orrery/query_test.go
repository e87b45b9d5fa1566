package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

var environ = []string{"HOME=/", "ORRERY_CONTROL=nobody:1,c:1", "ORRERY_INFERENCE_ADDRESS=c:1", "LANG=en_US.UTF-8"}

func TestTables(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.start(t, n)
	var all strings.Builder
	for _, line := range []string{"model list", "model status fashion-mlp", "model unload fashion-mlp", "worker list", "worker status w1",
		"worker cordon w2", "worker evict w2", "worker resume w2", "worker remove w2", "worker drain w3 --deadline 90s", "worker drain w4 --wait=false",
		"model pin fashion-mlp", "model list", "model pin fashion-mlp --devices 2 --model-version 1", "model status fashion-mlp", "model unpin fashion-mlp",
		"model resume fashion-mlp", "model resume other", "model profile", "model profile fashion-mlp", "model profile fashion-mlp --ascii",
		"model profile retiree", "startup status", "startup reopen", "startup close", "cluster status"} {
		o := execute(t, n, environ, strings.Fields(line)...)
		if o.status != 0 || o.err != "" {
			t.Errorf("%s: %+v", line, o)
		}
		fmt.Fprintf(&all, "$ orrery %s\n%s\n", line, o.out)
	}
	golden(t, "tables.txt", all.String())
	want := []string{
		"w2 WORKER_STATUS_CORDONED 0s", "w2 WORKER_STATUS_EVICTED 0s", "w2 WORKER_STATUS_READY 0s", "w2 removed",
		"w3 WORKER_STATUS_DRAINING 1m30s", "w4 WORKER_STATUS_DRAINING 5m0s",
	}
	if diff := cmp.Diff(want, f.statuses); diff != "" {
		t.Errorf("asked of the cluster: %s", diff)
	}
}

// A drain that somebody calls off is no success.
func TestADrainThatIsCalledOff(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.start(t, n)
	f.workers[0].Worker.Incarnation = "A1"
	q := &query{app: &app{dial: n.Host("operator").Dial}}
	var err error
	if q.Client, err = client.New(client.Options{Control: []string{"c:1"}, Dial: q.dial, Name: "test"}); err != nil {
		t.Fatal(err)
	}
	defer q.Client.Close()
	err = q.awaitDrained(t.Context(), &logpb.Worker{Name: "w1", Incarnation: "A1"})
	if err == nil || !strings.Contains(err.Error(), "does not drain any more: it is ready") {
		t.Errorf("got %v", err)
	}
	if err := q.awaitDrained(t.Context(), &logpb.Worker{Name: "w1", Incarnation: "A0"}); err != nil {
		t.Errorf("it was restarted meanwhile: %v", err)
	}
}

func TestPinsRefuseBadInput(t *testing.T) {
	n := testnet.New()
	answers().start(t, n)
	for line, words := range map[string]string{
		"model pin fashion-mlp --devices 0":  "`orrery model unpin` ends a pin",
		"model pin fashion-mlp --devices -1": "invalid argument",
		"model pin":                          "accepts 1 arg",
		"model unpin":                        "accepts 1 arg",
		"model pin other":                    `no model "other"`,
	} {
		if o := execute(t, n, environ, strings.Fields(line)...); o.status == 0 || o.out != "" || !strings.Contains(o.err, words) {
			t.Errorf("%s: %+v", line, o)
		}
	}
}

func TestWorkerCommandsRefuseBadInput(t *testing.T) {
	n := testnet.New()
	answers().start(t, n)
	for line, words := range map[string]string{
		"worker drain w1 --deadline -1s": "can't be negative",
		"worker drain":                   "accepts 1 arg",
		"worker cordon w9":               `no worker "w9"`,
		"worker status":                  "accepts 1 arg",
	} {
		o := execute(t, n, environ, strings.Fields(line)...)
		if o.status == 0 || !strings.Contains(o.err, words) {
			t.Errorf("%s: %+v", line, o)
		}
	}
}

func TestJSON(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.start(t, n)
	o := execute(t, n, environ, "cluster", "status", "-o", "json")
	got := &controlpb.ClusterStatusResponse{}
	if err := protojson.Unmarshal([]byte(o.out), got); err != nil {
		t.Fatalf("%v in %s", err, o.out)
	}
	if diff := cmp.Diff(f.status, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(o.out, "\n      \"voter\": false,\n") {
		t.Errorf("want what is false, indented by two: %s", o.out)
	}
	if again := execute(t, n, append(environ, "ORRERY_OUTPUT=json"), "cluster", "status"); again.out != o.out {
		t.Errorf("by the variable: %s", again.out)
	}
}

func TestModelLoad(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.start(t, n)
	o := execute(t, n, nil, "model", "load", "m", "--control", "c:1", "--source", "m.onnx", "--slo", "50ms", "--model-version", "3",
		"--engine", "gomlx", "--max-rows", "8", "--copies", "2", "--instances", "4", "--label", "zone=b", "--label", "rack=r1")
	want := &logpb.LoadModel{
		Name: "m", Version: "3", Source: "m.onnx", Engine: "gomlx", SloNs: 50_000_000, MaxRows: 8, Copies: 2, Instances: 4,
		Constraints: []*logpb.Label{{Key: "rack", Value: "r1"}, {Key: "zone", Value: "b"}},
	}
	if diff := cmp.Diff(want, f.loaded, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(o.out, "no such file") {
		t.Errorf("the table: %s", o.out)
	}
	if o.status != statusFailed || !strings.HasSuffix(o.err, "orrery: 1 of 2 copies failed to load; mend the cause, then unload and load again\n") {
		t.Errorf("a copy failed: %+v", o)
	}
}

// That a model fits on no device is told at once, though all copies are loaded.
func TestModelLoadThatHasNoRoom(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.models[0].Copies = f.models[0].Copies[:1]
	f.models[0].Code, f.models[0].Reason, f.models[0].Advice = "NO_ROOM", "its weights fit nowhere", "give a worker a larger weights_cache"
	f.start(t, n)
	o := execute(t, n, environ, "model", "load", "fashion-mlp", "--source", "m.onnx")
	if want := "\nfashion-mlp can't be served: NO_ROOM: its weights fit nowhere; give a worker a larger weights_cache\n"; o.status != 0 || !strings.HasSuffix(o.out, want) {
		t.Errorf("%+v", o)
	}
}

func TestProgress(t *testing.T) {
	var got strings.Builder
	p := newProgress(&got)
	for _, s := range answers().startup {
		_ = p.see(s)
		s.CountdownNs++ // says nothing new
		_ = p.see(s)
	}
	_ = p.see(&controlpb.StartupStatus{Phase: logpb.Phase_PHASE_PROFILING, Models: []*controlpb.ModelProgress{
		{Name: "m", Copies: 2, Loaded: 1, Failed: 1, ProfilesWanted: 3, ProfilesDone: 2},
	}})
	want := "   0.0s  waiting for the first load\n   0.0s  loading [fashion-mlp 1/2 loaded]\n   0.0s  profiling [m 2/3 profiled, 1 failed]\n"
	if got.String() != want {
		t.Errorf("%s\nwant\n%s", got.String(), want)
	}
}

func TestDigests(t *testing.T) {
	replicas := func(digests ...string) *controlpb.ClusterStatusResponse {
		s := &controlpb.ClusterStatusResponse{DigestIndex: 7, Leader: "c1"}
		for _, d := range digests {
			s.Replicas = append(s.Replicas, &controlpb.Replica{Digest: d, Voter: true, Reachable: true})
		}
		return s
	}
	for _, test := range []struct {
		status *controlpb.ClusterStatusResponse
		want   string
		equal  bool
	}{
		{replicas("a", "a", "a"), "all equal at index 7", true},
		{replicas("a", "", "a"), "equal at index 7, but 1 replica gave none", false},
		{replicas("a", "b", "a"), "DIFFER at index 7: replicas have come apart, keep their data and logs for an analysis", false},
		{replicas("", ""), "none could be taken", false},
		{replicas(), "none could be taken", false},
	} {
		if got := digests(test.status); got != test.want || digestsEqual(test.status) != test.equal {
			t.Errorf("%q, %v; want %q, %v", got, digestsEqual(test.status), test.want, test.equal)
		}
	}
	if s := replicas("a", "a"); !whole(s, 2) || whole(s, 3) {
		t.Error("two replicas are whole when two are wanted")
	}
	s := replicas("a", "a")
	if s.Replicas[1].Voter = false; whole(s, 2) {
		t.Error("whole without all voters")
	}
}

func TestInfer(t *testing.T) {
	n := testnet.New()
	answers().start(t, n)
	image, labels := "../../models/images/0251-sneaker.png", "../../models/labels.txt"
	o := execute(t, n, environ, "infer", "fashion-mlp", "--image", image, "--labels", labels)
	if o.status != 0 || !strings.HasPrefix(o.out, "Trouser (class 1, score 2.50; ") || !strings.HasSuffix(o.out, " by fashion-mlp on w1)\n") {
		t.Errorf("%+v", o)
	}
	o = execute(t, n, environ, "infer", "fashion-mlp", "--image", image, "-o", "json")
	if o.status != 0 || !strings.Contains(o.out, `"class": 1,`) || !strings.Contains(o.out, "2.5,") {
		t.Errorf("%+v", o)
	}
	o = execute(t, n, environ, "infer", "fashion-mlp", "--image", "nothing.png")
	if o.status != statusFailed || !strings.Contains(o.err, "nothing.png") {
		t.Errorf("%+v", o)
	}
}

func TestUnreachableCluster(t *testing.T) {
	o := execute(t, testnet.New(), nil, "worker", "list", "--control", "nobody:1", "--timeout", "120ms")
	if o.status != statusFailed || !strings.Contains(o.err, "orrery: no answer came within ") || !strings.Contains(o.err, "nobody:1") {
		t.Errorf("%+v", o)
	}
}
