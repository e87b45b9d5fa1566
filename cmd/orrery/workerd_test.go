package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/node"
)

func TestCountOfWorkers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.yaml")
	text := "name: w\nmodel_dir: /d\ncluster: {gossip_seeds: ['127.0.0.1:7946']}\ndevices: [{kind: cpu}]\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{-1, 0, 1, 1000, 1001} {
		o := execute(t, nil, nil, "workerd", "--check-config", "--config", path, "--count", fmt.Sprint(count))
		if count >= 1 && count <= 1000 {
			if o.status != 0 || o.out != path+" is valid\n" {
				t.Errorf("%d: %+v", count, o)
			}
			continue
		}
		if o.status != statusUsage || !strings.Contains(o.err, fmt.Sprintf("--count is %d; write 1 to 1000", count)) {
			t.Errorf("%d: %+v", count, o)
		}
	}
	if o := execute(t, nil, nil, "workerd", "--help"); !strings.Contains(o.out, "rehearsals, --count runs many") || !strings.Contains(o.out, "for rehearsals: how many workers") {
		t.Errorf("--help does not say what --count is for:\n%s", o.out)
	}
}

// What a process runs for a count, on ports that the system chooses.
func TestOneWorkerOrMany(t *testing.T) {
	config := configs.DefaultWorker()
	config.Name, config.ModelDir = "w", t.TempDir()
	config.Devices = []configs.Device{{Kind: "cpu", WeightsCache: 1 << 30, PageSize: 1 << 20, Engines: []string{"emulated"}}}
	config.Cluster.GossipSeeds = []configs.Address{"127.0.0.1:1"}
	config.Listen = configs.WorkerListen{Session: "127.0.0.1:8020", HTTP: "127.0.0.1:0", Gossip: "127.0.0.1:7947"}
	many, err := newWorkers(&config, 3, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	fleet, ok := many.(*node.Fleet)
	if !ok {
		t.Fatalf("%T", many)
	}
	seen := map[string]bool{}
	for name, address := range fleet.Addresses() {
		if seen[address] || !strings.HasPrefix(address, "127.0.0.1:") || strings.HasSuffix(address, ":0") {
			t.Errorf("%s is bound to %s", name, address)
		}
		seen[address] = true
	}
	if len(seen) != 7 {
		t.Errorf("listeners: %v", fleet.Addresses())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := fleet.Run(ctx); err != nil {
		t.Error(err)
	}
}
