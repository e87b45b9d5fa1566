package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// How long things may take that are not measured. They are long: a busy
// machine is no defect.
const (
	startTimeout   = 60 * time.Second
	serveTimeout   = 90 * time.Second
	recoverTimeout = 30 * time.Second
	callTimeout    = 10 * time.Second
)

// slowElections makes a leader stay one on the busiest machine, and an election
// take longer than any request waits: for tests in which none may happen.
func slowElections() map[string]string {
	return map[string]string{"raft.heartbeat_timeout": "3s", "raft.election_timeout": "3s", "raft.leader_lease": "2500ms"}
}

// cluster is a running cluster of processes, and what a test asks of it.
type cluster struct{ *devcluster.Cluster }

// startCluster starts a cluster and has the test end it: with no crash in a
// log, no process that has to be killed, and no file left.
func startCluster(t *testing.T, o devcluster.Options) *cluster {
	t.Helper()
	o.Binary = orrery
	if o.ModelDir == "" {
		o.ModelDir = modelDir
	}
	keys := map[string]string{"startup.load_idle": "1s", "startup.infer_buffer": "60s"}
	maps.Copy(keys, o.ControllerKeys)
	o.ControllerKeys = keys
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	began := time.Now()
	started, err := devcluster.Start(ctx, o)
	if err != nil {
		t.Fatalf("start a cluster: %v", err)
	}
	c := &cluster{started}
	t.Logf("cluster ready after %v in %s: %d controllers, %d workers, %v",
		ms(time.Since(began)), c.Dir(), len(c.Controllers), len(c.Workers), keys)
	t.Cleanup(func() { c.end(t) })
	return c
}

func (c *cluster) end(t *testing.T) {
	logs := map[string]string{}
	for _, p := range c.All() {
		if text, err := os.ReadFile(p.Log); err == nil {
			logs[p.Name] = string(text)
		}
	}
	for name, log := range logs {
		if trace := crash(log); trace != "" {
			t.Errorf("%s crashed:\n%s", name, trace)
		}
	}
	if t.Failed() {
		c.keep(t)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("stop the cluster: %v", err)
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cluster's folder %s is still there (%v)", c.Dir(), err)
	}
}

// keep saves the logs and configurations of a cluster that failed.
func (c *cluster) keep(t *testing.T) {
	for _, p := range c.All() {
		t.Logf("the end of the log of %s:\n%s", p.Name, p.LogTail(25))
		for _, path := range []string{p.Log, p.Config} {
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(filepath.Join(t.ArtifactDir(), p.Name+"-"+filepath.Base(path)), text, 0o644)
			}
			if err != nil {
				t.Log(err)
			}
		}
	}
}

// crashes are the beginnings of what Go prints when a process dies of itself,
// and what Orrery logs about a panic that it has survived.
var crashes = regexp.MustCompile(`(?m)^panic: |^fatal error: |^SIG[A-Z]+: |\bpanic while |^goroutine \d+ \[`)

// crash is the part of a log that tells of a crash, or empty.
func crash(log string) string {
	at := crashes.FindStringIndex(log)
	if at == nil {
		return ""
	}
	return log[at[0]:min(len(log), at[0]+4000)]
}

// eventually polls until check returns nil, and fails the test after some time.
func eventually(t *testing.T, within time.Duration, what string, check func() error) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(within); ; {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatalf("%s: %v: %v", what, t.Context().Err(), err)
		}
	}
}

// within is a context for one call.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// dial connects to a listener of a process.
func dial(t *testing.T, p *devcluster.Process, listener string) *rpc.Conn {
	t.Helper()
	conn, err := rpc.Connect(p.Addresses[listener], rpc.DialTCP, 256<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// clientOf is a client of some controllers alone, tried in this order.
func clientOf(t *testing.T, controllers ...*devcluster.Process) *client.Client {
	t.Helper()
	o := client.Options{Name: "e2e"}
	for _, p := range controllers {
		o.Inference = append(o.Inference, p.Addresses["inference"])
		o.Control = append(o.Control, p.Addresses["control"])
	}
	cl, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

// without are the controllers but one.
func (c *cluster) without(p *devcluster.Process) []*devcluster.Process {
	return slices.DeleteFunc(slices.Clone(c.Controllers), func(o *devcluster.Process) bool { return o == p })
}

// metric is one figure that a process shows.
func metric(ctx context.Context, p *devcluster.Process, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addresses["http"]+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			var value float64
			_, err := fmt.Sscan(rest, &value)
			return value, err
		}
	}
	return 0, fmt.Errorf("%s shows no metric %s", p.Name, name)
}

// awaitLeader waits until exactly one of some controllers says that it leads,
// and returns that one.
func awaitLeader(t *testing.T, among ...*devcluster.Process) (leader *devcluster.Process) {
	t.Helper()
	eventually(t, recoverTimeout, "a leader", func() error {
		var leading []*devcluster.Process
		var names []string
		for _, p := range among {
			if v, err := metric(t.Context(), p, "orrery_leader"); err != nil {
				return err
			} else if v == 1 {
				leading, names = append(leading, p), append(names, p.Name)
			}
		}
		if len(leading) != 1 {
			return fmt.Errorf("leading: %v", names)
		}
		leader = leading[0]
		return nil
	})
	return leader
}

// term is the raft term that a controller is in.
func term(t *testing.T, p *devcluster.Process) float64 {
	t.Helper()
	v, err := metric(t.Context(), p, "orrery_raft_term")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// serve loads models through a follower, waits until the cluster serves, and
// returns the leader.
func (c *cluster) serve(t *testing.T, names ...string) (leader *devcluster.Process) {
	t.Helper()
	leader = awaitLeader(t, c.Controllers...)
	cl := clientOf(t, c.without(leader)[0])
	for _, name := range names {
		loaded(t, cl, name)
	}
	c.awaitServing(t)
	return leader
}

// loaded has all workers load one of our models.
func loaded(t *testing.T, cl *client.Client, name string) {
	t.Helper()
	began := time.Now()
	all, err := cl.LoadModel(within(t, serveTimeout), &logpb.LoadModel{Name: name, Source: name + ".onnx"})
	if err != nil {
		t.Fatalf("load %s: %v", name, err)
	}
	if len(all) != 1 || len(all[0].Copies) == 0 {
		t.Fatalf("load %s: the answer is %v", name, all)
	}
	for _, copy := range all[0].Copies {
		if copy.Status != logpb.HoldingStatus_HOLDING_STATUS_LOADED {
			t.Fatalf("load %s: worker %s: %v: %s", name, copy.Worker, copy.Status, copy.Error)
		}
	}
	t.Logf("%s loaded on %d workers after %v", name, len(all[0].Copies), ms(time.Since(began)))
}

// awaitServing waits until all controllers say that they serve.
func (c *cluster) awaitServing(t *testing.T) {
	t.Helper()
	began := time.Now()
	for _, p := range c.Controllers {
		eventually(t, serveTimeout, p.Name+" serves", func() error {
			if v, err := metric(t.Context(), p, "orrery_ready"); err != nil || v != 1 {
				return fmt.Errorf("not ready (%v); the end of its log:\n%s", err, p.LogTail(5))
			}
			return nil
		})
	}
	t.Logf("all serve after %v", ms(time.Since(began)))
}

// awaitWhole waits until all processes do their part again.
func (c *cluster) awaitWhole(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// clusterStatus asks one controller.
func clusterStatus(t *testing.T, p *devcluster.Process) (*controlpb.ClusterStatusResponse, error) {
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	conn, err := rpc.Connect(p.Addresses["control"], rpc.DialTCP, 4<<20)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return controlpb.NewControlClient(conn).ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
}

// awaitHealth waits until every controller names the same leader, and all
// replicas as voters with equal digests. It returns what the last one said.
func (c *cluster) awaitHealth(t *testing.T) (status *controlpb.ClusterStatusResponse) {
	t.Helper()
	leader := awaitLeader(t, c.Controllers...)
	for _, p := range c.Controllers {
		eventually(t, recoverTimeout, "health, as "+p.Name+" sees it", func() (err error) {
			if status, err = clusterStatus(t, p); err != nil {
				return err
			}
			return healthy(status, leader.Name, len(c.Controllers))
		})
	}
	t.Logf("%s leads, and all digests are %.12s at index %d", leader.Name, status.Replicas[0].Digest, status.DigestIndex)
	return status
}

func healthy(s *controlpb.ClusterStatusResponse, leader string, replicas int) error {
	if s.Leader != leader || len(s.Replicas) != replicas {
		return fmt.Errorf("it names %q as the leader, not %q, and %d replicas", s.Leader, leader, len(s.Replicas))
	}
	for _, r := range s.Replicas {
		if !r.Voter || !r.Reachable || r.Digest == "" || r.Digest != s.Replicas[0].Digest {
			return fmt.Errorf("replicas %v", s.Replicas)
		}
	}
	return nil
}
