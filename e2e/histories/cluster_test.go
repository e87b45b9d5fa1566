package histories

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/netlab"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// How long things may take that are not measured. They are long: a busy machine
// is no defect.
const (
	startTimeout   = 60 * time.Second
	recoverTimeout = 30 * time.Second
	// glance bounds one look at one process.
	glance = 300 * time.Millisecond
)

// cluster is a running cluster, and the network that it is on.
type cluster struct {
	*devcluster.Cluster
	// lab is nil where there can't be one.
	lab *netlab.Lab
	// controls are clients of the controllers, in their order.
	controls []controlpb.ControlClient
	web      *http.Client
}

// start starts a cluster that stays in the phase in which loads are admitted,
// and takes snapshots often. The test ends it.
func start(t *testing.T, binary string) *cluster {
	t.Helper()
	// Made first, it is there until the cluster has ended.
	_ = t.ArtifactDir()
	models, err := filepath.Abs(filepath.Join(source, "models"))
	if err != nil {
		t.Fatal(err)
	}
	o := devcluster.Options{
		Binary: binary, Controllers: 3, Workers: 1, ModelDir: models, Engines: []string{"emulated"},
		ControllerKeys: map[string]string{
			"startup.load_idle":       "24h",
			"workers.lost_after":      "1h",
			"raft.snapshot_threshold": "400",
			"raft.snapshot_interval":  "2s",
			"raft.trailing_logs":      "200",
		},
		WorkerKeys: map[string]string{"host_memory": "64GiB"},
	}
	lab, err := netlab.New("c1", "c2", "c3", "w1")
	switch {
	case err == nil:
		o.Host = lab.Place
		t.Cleanup(func() {
			if err := lab.Close(); err != nil {
				t.Errorf("end the network: %v", err)
			}
		})
	case !errors.Is(err, netlab.ErrUnavailable):
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	started, err := devcluster.Start(ctx, o)
	if err != nil {
		t.Fatalf("start a cluster: %v", err)
	}
	c := &cluster{
		Cluster: started, lab: lab,
		web: &http.Client{Timeout: glance, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	t.Cleanup(func() { c.end(t) })
	for _, p := range c.Controllers {
		conn, err := rpc.Connect(p.Addresses["control"], rpc.DialTCP, 16<<20)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		c.controls = append(c.controls, controlpb.NewControlClient(conn))
	}
	return c
}

// crashes are the beginnings of what Go prints when a process dies of itself,
// and what Orrery logs about a panic that it has survived.
var crashes = regexp.MustCompile(`(?m)^panic: |^fatal error: |\bpanic while |^goroutine \d+ \[`)

// end stops the cluster, and keeps its logs when the test has failed.
func (c *cluster) end(t *testing.T) {
	for _, p := range c.All() {
		log, err := os.ReadFile(p.Log)
		if err != nil {
			t.Error(err)
			continue
		}
		if at := crashes.FindIndex(log); at != nil {
			t.Errorf("%s crashed:\n%s", p.Name, log[at[0]:min(len(log), at[0]+4000)])
		}
		if t.Failed() {
			if err := os.WriteFile(filepath.Join(t.ArtifactDir(), p.Name+".log"), log, 0o644); err != nil {
				t.Log(err)
			}
			t.Logf("the end of the log of %s:\n%s", p.Name, p.LogTail(15))
		}
	}
	if err := c.Stop(); err != nil {
		t.Errorf("stop the cluster: %v", err)
	}
}

// names of the controllers, in their order.
func (c *cluster) names() (names []string) {
	for _, p := range c.Controllers {
		names = append(names, p.Name)
	}
	return names
}

// without are the controllers but one.
func (c *cluster) without(p *devcluster.Process) []*devcluster.Process {
	return slices.DeleteFunc(slices.Clone(c.Controllers), func(o *devcluster.Process) bool { return o == p })
}

// metrics are some figures that a process shows.
func (c *cluster) metrics(p *devcluster.Process, names ...string) ([]float64, error) {
	answer, err := c.web.Get("http://" + p.Addresses["http"] + "/metrics")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(names))
	for i, name := range names {
		_, rest, ok := strings.Cut("\n"+string(text), "\n"+name+" ")
		if !ok {
			return nil, fmt.Errorf("%s shows no metric %s", p.Name, name)
		}
		if _, err := fmt.Sscan(rest, &values[i]); err != nil {
			return nil, fmt.Errorf("%s: metric %s: %w", p.Name, name, err)
		}
	}
	return values, nil
}

// leader returns the controller that leads in the highest term, as they say
// themselves.
func (c *cluster) leader() (leader *devcluster.Process, term float64) {
	for _, p := range c.Controllers {
		if v, err := c.metrics(p, "orrery_leader", "orrery_raft_term"); err == nil && v[0] == 1 && v[1] > term {
			leader, term = p, v[1]
		}
	}
	return leader, term
}

// awaitLeader waits until one of some controllers leads.
func (c *cluster) awaitLeader(ctx context.Context, among []*devcluster.Process) (leader *devcluster.Process, term float64, err error) {
	err = eventually(ctx, recoverTimeout, func() error {
		if leader, term = c.leader(); leader == nil || !slices.Contains(among, leader) {
			return errors.New("none of the controllers leads")
		}
		return nil
	})
	return leader, term, err
}

// eventually polls until look returns nil.
func eventually(ctx context.Context, within time.Duration, look func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", within, err)
		}
	}
}
