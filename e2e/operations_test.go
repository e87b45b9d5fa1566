package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// TestOperatorsCommands goes through what an operator does to a cluster, by the
// commands of docs/operations.md.
func TestOperatorsCommands(t *testing.T) {
	c := startCluster(t, devcluster.Options{Workers: 1, Engines: []string{"emulated"}})
	leader := awaitLeader(t, c.Controllers...)
	entry := c.without(leader)[0]
	ask := func(args ...string) result {
		return orreryCommand(t, append(args, "--control="+entry.Addresses["control"])...)
	}
	if r := ask("model", "load", "resnet", "--source=profiles.csv#resnet18_v2"); r.status != 0 {
		t.Fatal(r)
	}
	c.awaitServing(t)

	// Leadership.
	to := c.without(leader)[1]
	ask("cluster", "transfer", to.Name).expect(t, 0, to.Name+" leads")
	if now := awaitLeader(t, c.Controllers...); now != to {
		t.Errorf("%s leads, not %s", now.Name, to.Name)
	}
	ask("cluster", "transfer", "nobody").expect(t, 1, `"nobody"`, "c1-")

	// Stale reads.
	ask("model", "list", "--stale").expect(t, 0, "resnet", "stale: this controller last heard of a leader")
	ask("worker", "list", "--stale").expect(t, 0, "w1", "stale: ")
	ask("cluster", "status", "--stale").expect(t, 0, "serving", "stale: ")

	// Snapshots.
	file := filepath.Join(t.TempDir(), "state.snapshot")
	ask("cluster", "snapshot", "save", file).expect(t, 0, "1 model", "1 worker", "digest")
	ask("cluster", "snapshot", "save", file).expect(t, 1, "is there already")
	orreryCommand(t, "cluster", "snapshot", "inspect", file).expect(t, 0, "epoch 1", "serving", "1 model")
	summary := &controlpb.SnapshotSummary{}
	orreryCommand(t, "cluster", "snapshot", "inspect", "-o", "json", file).json(t, summary)
	if summary.Models != 1 || summary.Digest == "" {
		t.Errorf("the summary as JSON: %v", summary)
	}
	ask("cluster", "set", "late_loads=admit").expect(t, 0)
	ask("cluster", "snapshot", "restore", file).expect(t, 0, "restored; epoch 2 begins")
	ask("cluster", "status").expect(t, 0, "epoch 2", "all equal")
	ask("model", "load", "late", "--source=profiles.csv#resnet18_v2").expect(t, 1, "late_loads") // admitted only after the snapshot

	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	orreryCommand(t, "cluster", "snapshot", "inspect", file).expect(t, 1, "checksum")
	ask("cluster", "snapshot", "restore", file).expect(t, 1, "checksum")

	// A replica is removed for good.
	removed := c.without(entry)[0]
	if removed == to {
		removed = c.without(entry)[1]
	}
	ask("cluster", "remove", removed.Name).expect(t, 0, "is removed")
	if err := removed.Stop(); err != nil {
		t.Error(err)
	}
	start(t, removed)
	eventually(t, recoverTimeout, "it says that it was removed", func() error {
		return logged(removed, "was removed from this cluster")
	})
	ask("cluster", "join", removed.Addresses["peer"], "--timeout=5s").expect(t, 1, "was removed from this cluster", "empty its data_dir")
	wipe(t, c, removed)
	start(t, removed)
	ask("cluster", "join", removed.Addresses["peer"]).expect(t, 0, removed.Name, "is a voter")
	c.awaitHealth(t)
	recoverByCommand(t, c)
}

// recoverByCommand loses the disks of two of three controllers.
func recoverByCommand(t *testing.T, c *cluster) {
	left, lost := c.Controllers[0], c.Controllers[1:]
	recover := func(flags ...string) result {
		return orreryCommand(t, append([]string{"cluster", "recover", "--config=" + left.Config}, flags...)...)
	}
	recover().expect(t, 1, "in use by another process")
	for _, p := range c.Controllers {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range lost {
		wipe(t, c, p)
	}
	recover().expect(t, 0, "last entry  index ", "c2-", "nothing was changed")
	if r := recover("--write"); r.status != 0 || !strings.Contains(r.stdout, "it is the only voter now") {
		t.Fatal(r)
	}
	start(t, left)
	if now := awaitLeader(t, left); now != left {
		t.Fatal(now.Name)
	}
	for _, p := range lost {
		start(t, p)
	}
	c.awaitWhole(t)
	status := c.awaitHealth(t)
	if status.Cluster.GetEpoch() <= 2 {
		t.Errorf("the epoch is %d", status.Cluster.GetEpoch())
	}
	orreryCommand(t, "model", "list", "--control="+lost[0].Addresses["control"]).expect(t, 0, "resnet")
}

func start(t *testing.T, p *devcluster.Process) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
}

// wipe ends a controller and empties its disk.
func wipe(t *testing.T, c *cluster, p *devcluster.Process) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(c.Dir(), p.Name, "data")); err != nil {
		t.Fatal(err)
	}
}

// logged says whether a process has logged something lately.
func logged(p *devcluster.Process, text string) error {
	if tail := p.LogTail(20); !strings.Contains(tail, text) {
		return &notLogged{text, tail}
	}
	return nil
}

type notLogged struct{ text, tail string }

func (n *notLogged) Error() string { return "no " + n.text + " in:\n" + n.tail }
