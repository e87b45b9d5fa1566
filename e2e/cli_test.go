package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// result is what a command has left.
type result struct {
	args           []string
	status         int
	stdout, stderr string
}

// orreryCommand runs the binary to its end.
func orreryCommand(t *testing.T, args ...string) result {
	t.Helper()
	command := exec.CommandContext(within(t, serveTimeout), orrery, args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); command.ProcessState == nil {
		t.Fatalf("orrery %v: %v", args, err)
	}
	return result{args, command.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// expect checks the exit status and what was printed on standard output, or on
// standard error when the status is not 0. Nothing may be on the other one.
func (r result) expect(t *testing.T, status int, says ...string) {
	t.Helper()
	text, other := r.stdout, r.stderr
	if status != 0 {
		text, other = other, text
	}
	if r.status != status || other != "" {
		t.Errorf("orrery %v: exit status %d, want %d\nstdout: %s\nstderr: %s", r.args, r.status, status, r.stdout, r.stderr)
	}
	for _, s := range says {
		if !strings.Contains(text, s) {
			t.Errorf("orrery %v does not say %q:\n%s", r.args, s, text)
		}
	}
}

// readOnly runs the commands that ask a cluster that serves.
func readOnly(t *testing.T, c *cluster) {
	leader := awaitLeader(t, c.Controllers...)
	follower := c.without(leader)[0]
	control := "--control=" + follower.Addresses["control"]

	out := orreryCommand(t, "cluster", "status", control)
	out.expect(t, 0, "phase    serving", "leader   "+leader.Name, "all equal", "gossip   5 members", "REPLICA", "follower", "c1", "c2", "c3")
	t.Logf("orrery cluster status:\n%s", out.stdout)
	status := &controlpb.ClusterStatusResponse{}
	orreryCommand(t, "cluster", "status", "-o", "json", control).json(t, status)
	if err := healthy(status, leader.Name, len(c.Controllers)); err != nil || status.Name != follower.Name || status.Cluster.GetPhase() != logpb.Phase_PHASE_SERVING {
		t.Errorf("cluster status as JSON: %v; %v", err, status)
	}

	out = orreryCommand(t, "worker", "list", control)
	out.expect(t, 0, "NAME", "w1", "w2", "ready", "gomlx", mlp)
	t.Logf("orrery worker list:\n%s", out.stdout)
	workers := &controlpb.ListWorkersResponse{}
	orreryCommand(t, "worker", "list", "-o", "json", control).json(t, workers)
	for _, w := range workers.Workers {
		if !w.Live.GetConnected() || !slices.Contains(w.Models, mlp) {
			t.Errorf("worker as JSON: %v", w)
		}
	}

	models := &controlpb.ListModelsResponse{}
	orreryCommand(t, "model", "list", control).expect(t, 0, "NAME", mlp, mlp+".onnx", "2/2", "ready")
	orreryCommand(t, "model", "list", "-o", "json", control).json(t, models)
	out = orreryCommand(t, "model", "status", mlp, control)
	out.expect(t, 0, "WORKER", "w1", "w2", "loaded", "ROWS", "P50", "16")
	t.Logf("orrery model status:\n%s", out.stdout)
	one := &controlpb.ListModelsResponse{}
	orreryCommand(t, "model", "status", mlp, "-o", "json", control).json(t, one)
	if len(workers.Workers) != 2 || len(models.Models) == 0 || len(one.Models) != 1 || one.Models[0].Model.GetName() != mlp {
		t.Errorf("%d workers, %d models; of %s %v", len(workers.Workers), len(models.Models), mlp, one)
	}
	orreryCommand(t, "model", "status", "nobody", control).expect(t, 1, `"nobody"`, "orrery model list")
	// Without the first controller it is the second one that answers.
	orreryCommand(t, "cluster", "status", "--control=127.0.0.1:1,"+follower.Addresses["control"]).expect(t, 0, "all equal")
	inferByCommand(t, follower)
}

// inferByCommand classifies pictures: one that the model takes for what it is,
// and one that it doesn't.
func inferByCommand(t *testing.T, p *devcluster.Process) {
	entry, labels := "--inference="+p.Addresses["inference"], "--labels="+filepath.Join(modelDir, "labels.txt")
	text, err := os.ReadFile(filepath.Join(modelDir, "labels.txt"))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Split(string(text), "\n")
	for _, right := range []bool{true, false} {
		all := pictures(t)
		picture := all[slices.IndexFunc(all, func(p picture) bool { return (p.Predictions[mlp] == p.Label) == right })]
		image, class := "--image="+filepath.Join(modelDir, "images", picture.File), picture.Predictions[mlp]
		orreryCommand(t, "infer", mlp, image, labels, entry).expect(t, 0, name[class]+" (class "+strconv.Itoa(class), mlp)
		out := orreryCommand(t, "infer", mlp, image, entry, "-o", "json")
		var answer struct {
			Class  int
			Scores []float32
			Worker string
		}
		if err := json.Unmarshal([]byte(out.stdout), &answer); err != nil || answer.Class != class || len(answer.Scores) != classes || answer.Worker == "" {
			t.Errorf("infer as JSON: %v in %s", err, out.stdout)
		}
	}
	image := "--image=" + filepath.Join(modelDir, "images", pictures(t)[0].File)
	orreryCommand(t, "infer", "nobody", image, entry).expect(t, 1, `"nobody"`)
	orreryCommand(t, "infer", mlp, "--image="+filepath.Join(modelDir, "labels.txt"), entry).expect(t, 1, "labels.txt", "PNG")
	orreryCommand(t, "infer", mlp, entry).expect(t, 2, "--image")
}

// json reads what the command has printed with -o json.
func (r result) json(t *testing.T, into proto.Message) {
	t.Helper()
	r.expect(t, 0)
	if err := protojson.Unmarshal([]byte(r.stdout), into); err != nil {
		t.Errorf("orrery %v: %v in\n%s", r.args, err, r.stdout)
	}
}

// TestCommandLine runs what needs no cluster.
func TestCommandLine(t *testing.T) {
	orreryCommand(t, "--help").expect(t, 0, "controller", "workerd", "dev", "demo", "model", "worker", "cluster", "infer", "version", "completion")
	orreryCommand(t, "version").expect(t, 0, "orrery ", "go1.")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		orreryCommand(t, "completion", shell).expect(t, 0, shell+" completion")
	}
	orreryCommand(t, "model").expect(t, 0, "load", "unload", "list", "status")
	orreryCommand(t, "frobnicate").expect(t, 2, "frobnicate", "--help")
	orreryCommand(t, "model", "frobnicate").expect(t, 2, "frobnicate", "orrery model --help")
	orreryCommand(t, "model", "load", mlp).expect(t, 2, "--source")
	orreryCommand(t, "cluster", "status", "-o", "xml").expect(t, 2, "xml", "json")
	orreryCommand(t, "cluster", "status", "--control=127.0.0.1:1", "--timeout=300ms").expect(t, 1, "127.0.0.1:1", "refused")
	orreryCommand(t, "controller").expect(t, 2, "--config")
}

// TestCheckConfig checks good and bad files.
func TestCheckConfig(t *testing.T) {
	for kind, file := range map[string]string{"controller": "controller.yaml", "workerd": "worker.yaml"} {
		path := filepath.Join("..", "configs", file)
		orreryCommand(t, kind, "--check-config", "--config", path).expect(t, 0, path+" is valid")
	}
	for name, bad := range map[string]struct {
		kind, text string
		says       []string
	}{
		"UnknownKey": {"controller", "name: c1\ndata_dri: /x\nraft:\n  heartbeat_timeout: 100\n",
			[]string{"bad.yaml:2:1: data_dri", "data_dir", "bad.yaml:4:3: raft.heartbeat_timeout", "100ms"}},
		"AllProblems": {"controller", "name: c1\nlisten:\n  http: 0.0.0.0:8000\nraft:\n  leader_lease: 9s\n",
			[]string{"data_dir", "listen.http", "expose", "raft.leader_lease", "cluster.controllers"}},
		"Worker":  {"workerd", "name: w1\ndevices: []\n", []string{"model_dir", "devices", "cluster.gossip_seeds"}},
		"NotYAML": {"controller", "name: [c1\n", []string{"bad.yaml:"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.yaml")
			if err := os.WriteFile(path, []byte(bad.text), 0o644); err != nil {
				t.Fatal(err)
			}
			checked := orreryCommand(t, bad.kind, "--check-config", "--config", path)
			checked.expect(t, 1, bad.says...)
			t.Logf("%s", checked.stderr)
			// Nothing starts with what the check refuses.
			orreryCommand(t, bad.kind, "--config", path).expect(t, 1, bad.says...)
		})
	}
	orreryCommand(t, "controller", "--check-config", "--config", "/nowhere.yaml").expect(t, 1, "/nowhere.yaml")
}

// configFiles checks the files of a cluster that runs, and that a second
// process with one of them does no harm.
func configFiles(t *testing.T, c *cluster) {
	for _, p := range c.All() {
		orreryCommand(t, string(p.Kind), "--check-config", "--config", p.Config).expect(t, 0, "is valid")
		second := orreryCommand(t, string(p.Kind), "--config", p.Config)
		if second.status != 1 || !strings.Contains(second.stderr, "address already in use") || !strings.Contains(second.stderr, "choose another address") {
			t.Errorf("a second %s: exit status %d, %s", p.Name, second.status, second.stderr)
		}
	}
}

// reload changes a running controller's configuration: keys of which one can be
// applied at once, then nonsense, then what it was.
func reload(t *testing.T, c *cluster) {
	p := c.Controllers[0]
	text, err := os.ReadFile(p.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		config string
		logs   []string
	}{
		{string(text) + "log: {level: debug}\nshutdown_timeout: 3s\n",
			[]string{"configuration applied: keys=[\"log.level\"]", "not applied: shutdown_timeout", "restart"}},
		{"nonsense: 1\n", []string{"nonsense: is not a known key"}},
		{string(text), []string{"configuration applied"}},
	} {
		since := logFrom(t, p)
		if err := os.WriteFile(p.Config, []byte(step.config), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := p.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for _, says := range step.logs {
			eventually(t, recoverTimeout, "the reload", func() error {
				if log := since(); !strings.Contains(log, says) {
					return fmt.Errorf("the log does not say %q: %s", says, log)
				}
				return nil
			})
		}
	}
	stillGood(t, c, pictures(t)[0])
}

// TestDev runs a throw-away cluster as a user does, and ends it by Ctrl-C.
func TestDev(t *testing.T) {
	command := exec.CommandContext(within(t, startTimeout), orrery, "dev", "--model-dir", modelDir, "--load-idle", "1s")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	var folder string
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "The cluster serves") {
		t.Log(lines.Text())
		if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(lines.Text()), "export "), "="); ok {
			values[name] = value
		}
		if at := strings.LastIndex(lines.Text(), " "); strings.HasSuffix(lines.Text(), "/log") {
			folder = filepath.Dir(filepath.Dir(lines.Text()[at+1:]))
		}
	}
	control, entry := "--control="+values["ORRERY_CONTROL"], "--inference="+values["ORRERY_INFERENCE_ADDRESS"]
	orreryCommand(t, "cluster", "status", control).expect(t, 0, "all equal")
	if load := orreryCommand(t, "model", "load", mlp, "--source", mlp+".onnx", control); load.status != 0 || strings.Count(load.stdout, "loaded") != 2 {
		t.Errorf("exit status %d: %s%s", load.status, load.stdout, load.stderr)
	}
	image := pictures(t)[0]
	orreryCommand(t, "infer", mlp, "--image", filepath.Join(modelDir, "images", image.File), "--timeout=30s", entry).
		expect(t, 0, fmt.Sprintf("(class %d,", image.Predictions[mlp]))

	if _, err := os.Stat(folder); err != nil {
		t.Errorf("the cluster's folder: %v", err)
	}
	asked := time.Now()
	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if err := command.Wait(); err != nil {
		t.Errorf("orrery dev: %v\n%s%s", err, rest, &stderr)
	}
	t.Logf("all ended after %v", ms(time.Since(asked)))
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder %s is still there (%v)", folder, err)
	}
}
