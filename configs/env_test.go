package configs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEnvironmentOverridesTheFile(t *testing.T) {
	got, err := ParseController("c.yaml", []byte(leastController+"raft: {leader_lease: 100ms}\nexpose: [http]\n"), []string{
		"HOME=/root",
		"ORRERY_NAME=c2",
		"ORRERY_LISTEN_PEER=127.0.0.1:9011",
		"ORRERY_CLUSTER_CONTROLLERS=127.0.0.1:9011, 10.0.0.2:8011,10.0.0.3:8011",
		"ORRERY_EXPOSE=",
		"ORRERY_RAFT_LEADER_LEASE=1s",
		"ORRERY_RAFT_LEADER_LEASE=200ms", // the last one counts, as in a process
		"ORRERY_INFERENCE_HELD_BYTES=1GiB",
		"ORRERY_CONTROL_NO_LEADER_TIMEOUT=3s",
		EnvControl + "=127.0.0.1:8010",
		EnvInferenceAddress + "=127.0.0.1:8001",
		EnvOutput + "=json",
		"ORRERY=ignored",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultController()
	want.Name, want.DataDir = "c2", "/data"
	want.Listen.Peer = "127.0.0.1:9011"
	want.Cluster.Controllers = []Address{"127.0.0.1:9011", "10.0.0.2:8011", "10.0.0.3:8011"}
	want.Raft.LeaderLease = 200 * time.Millisecond
	want.Inference.HeldBytes = GiB
	want.Control.NoLeaderTimeout = 3 * time.Second
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEnvironmentOverridesTheFileOfAWorker(t *testing.T) {
	got, err := ParseWorker("w.yaml", []byte(leastWorker+"labels: {rack: r1}\n"), []string{
		"ORRERY_ENGINES_GOMLX_BATCH_ROWS=1,32",
		"ORRERY_ENGINES_EMULATED_ALLOW_COMMANDS=true",
		"ORRERY_LABELS=zone=a, row=7",
		"ORRERY_SPEED=0.5",
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 32}, got.Engines.GoMLX.BatchRows); diff != "" {
		t.Errorf("batch rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"zone": "a", "row": "7"}, got.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if !got.Engines.Emulated.AllowCommands || got.Speed != 0.5 {
		t.Errorf("allow_commands %v, speed %v", got.Engines.Emulated.AllowCommands, got.Speed)
	}
}

func TestEnvironmentAloneConfigures(t *testing.T) {
	_, err := ParseController("c.yaml", []byte("{}\n"), []string{
		"ORRERY_NAME=c1", "ORRERY_DATA_DIR=/data", "ORRERY_CLUSTER_CONTROLLERS=127.0.0.1:8011",
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBadEnvironment(t *testing.T) {
	tests := []struct {
		file string // controller or worker, laid over its required keys
		env  string // variables parted by ;
		want string
	}{
		{"controller", "ORRERY_RAFT_HARTBEAT_TIMEOUT=1s",
			"ORRERY_RAFT_HARTBEAT_TIMEOUT: names no key of a controller; did you mean ORRERY_RAFT_HEARTBEAT_TIMEOUT?"},
		{"controller", "ORRERY_DATADIR=/data",
			"ORRERY_DATADIR: names no key of a controller; did you mean ORRERY_DATA_DIR?"},
		{"controller", "ORRERY_PASSWORD=secret",
			"ORRERY_PASSWORD: names no key of a controller; unset it"},
		{"controller", "ORRERY_MODEL_DIR=/models",
			"ORRERY_MODEL_DIR: names no key of a controller; it sets a worker, this is a controller; unset it"},
		{"worker", "ORRERY_RAFT_LEADER_LEASE=1s",
			"ORRERY_RAFT_LEADER_LEASE: names no key of a worker; it sets a controller, this is a worker; unset it"},
		{"controller", "ORRERY_LOG=debug",
			"ORRERY_LOG: names no key of a controller; it is a section; set its keys, as in ORRERY_LOG_LEVEL, ORRERY_LOG_FORMAT"},
		{"controller", "ORRERY_PORT_8001_TCP_ADDR=10.0.0.1",
			"ORRERY_PORT_8001_TCP_ADDR: names no key of a controller; Kubernetes makes it for a Service; set enableServiceLinks: false in the pod"},
		{"controller", "ORRERY_SERVICE_HOST=10.0.0.1",
			"ORRERY_SERVICE_HOST: names no key of a controller; Kubernetes makes it for a Service; set enableServiceLinks: false in the pod"},
		{"worker", "ORRERY_DEVICES=cpu",
			"ORRERY_DEVICES: names no key of a worker; devices can be set only in the file"},
		{"worker", "ORRERY_DEVICES_0_KIND=cpu",
			"ORRERY_DEVICES_0_KIND: names no key of a worker; devices can be set only in the file"},
		{"controller", "ORRERY_RAFT_LEADER_LEASE=100",
			`ORRERY_RAFT_LEADER_LEASE: raft.leader_lease: "100" has no unit; write for example 100ms or 100s`},
		{"controller", "ORRERY_RAFT_LEADER_LEASE=",
			`ORRERY_RAFT_LEADER_LEASE: raft.leader_lease: "" is not a duration; write a number with a unit of ns, us, ms, s, m or h, for example 500ms`},
		{"controller", "ORRERY_RAFT_LEADER_LEASE=1s",
			"ORRERY_RAFT_LEADER_LEASE: raft.leader_lease: 1s is longer than raft.heartbeat_timeout, 500ms; write 500ms or less, or raise raft.heartbeat_timeout"},
		{"controller", "ORRERY_INFERENCE_MAX_MESSAGE=1MB",
			`ORRERY_INFERENCE_MAX_MESSAGE: inference.max_message: "1MB" has an unknown unit; write 1MiB`},
		{"controller", "ORRERY_INFERENCE_HELD_REQUESTS=lots",
			`ORRERY_INFERENCE_HELD_REQUESTS: inference.held_requests: "lots" is not a whole number; write for example 8`},
		{"controller", "ORRERY_NAME=",
			"ORRERY_NAME: name: is required; write for example c1"},
		{"controller", "ORRERY_LISTEN_HTTP=:8000",
			"ORRERY_LISTEN_HTTP: listen.http: :8000 can be reached from other machines; add http to expose if that is meant, or bind 127.0.0.1:8000"},
		{"controller", "ORRERY_CLUSTER_CONTROLLERS=127.0.0.1:8011,c2,c3:8011",
			`ORRERY_CLUSTER_CONTROLLERS: cluster.controllers[1]: "c2" is not an address; write host:port, for example 127.0.0.1:8011; an IPv6 host goes in brackets, as in "[::1]:8000"`},
		{"controller", "ORRERY_EXPOSE=http,",
			`ORRERY_EXPOSE: expose[1]: "" is not known; write one of inference, http, control, peer, raft, gossip`},
		{"worker", "ORRERY_ENGINES_GOMLX_BATCH_ROWS=1,two",
			`ORRERY_ENGINES_GOMLX_BATCH_ROWS: engines.gomlx.batch_rows: "two" is not a whole number; write for example 8`},
		{"worker", "ORRERY_ENGINES_EMULATED_ALLOW_COMMANDS=1",
			`ORRERY_ENGINES_EMULATED_ALLOW_COMMANDS: engines.emulated.allow_commands: "1" is neither true nor false; write true or false`},
		{"worker", "ORRERY_LABELS=zone",
			`ORRERY_LABELS: labels: "zone" has no value; write key=value, with commas between several`},
		{"worker", "ORRERY_LABELS=Zone=a",
			`ORRERY_LABELS: labels.Zone: "Zone" is not a valid name; use a to z, 0 to 9 and, between them, -; for example zone`},
		{"worker", "ORRERY_SPEED=-1;ORRERY_HOST_MEMORY=4",
			"ORRERY_HOST_MEMORY: host_memory: 4 is too low; write 1MiB or more\n" +
				"ORRERY_SPEED: speed: -1 is not a finite number above 0; write 1 for a worker of usual speed, 2 for one twice as fast"},
	}
	for _, test := range tests {
		t.Run(test.file+" "+test.env, func(t *testing.T) {
			data := leastController
			if test.file == "worker" {
				data = leastWorker
			}
			err := parseFile(test.file, []byte(data), strings.Split(test.env, ";"))
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

// TestProblemsOfFileAndEnvironmentComeTogether also shows that an override leaves no place of the file behind.
func TestProblemsOfFileAndEnvironmentComeTogether(t *testing.T) {
	file := "name: c1\ndata_dir: /data\ncluster:\n  controllers:\n    - 127.0.0.1:8011\n    - 127.0.0.1:8011\nlog: {level: loud}\n"
	_, err := ParseController("c.yaml", []byte(file), []string{"ORRERY_CLUSTER_CONTROLLERS=127.0.0.1:8011,c2,c3"})
	problems, ok := errors.AsType[Problems](err)
	if !ok || len(problems) != 3 {
		t.Fatalf("got %v, want three problems", err)
	}
	const first = `c.yaml:7:7: log.level: "loud" is not known; write one of trace, debug, info, warn, error`
	if problems[0].Error() != first {
		t.Errorf("got  %v\nwant %s", problems[0], first)
	}
	for _, p := range problems[1:] {
		if p.Source != "ORRERY_CLUSTER_CONTROLLERS" || p.Line != 0 {
			t.Errorf("place of %v, want the variable", p)
		}
	}
}

func TestEveryKeyHasAVariableOfItsOwn(t *testing.T) {
	for _, doc := range []document{new(Controller), new(Worker)} {
		paths := map[string]string{EnvControl: "", EnvInferenceAddress: "", EnvOutput: ""}
		for _, k := range keysOf(doc) {
			if k.section {
				continue
			}
			name := variableOf(k.path)
			if other, taken := paths[name]; taken {
				t.Errorf("%s stands for %q and for %q", name, k.path, other)
			}
			paths[name] = k.path
			if isDevices(k.value) {
				continue
			}
			setText(k.value, "1") // panics on a field of a type that can't be read
		}
	}
}
