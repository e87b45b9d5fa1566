package configs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	leastController = "name: c1\ndata_dir: /data\ncluster: {controllers: [127.0.0.1:8011]}\n"
	leastWorker     = "name: w1\nmodel_dir: /models\ncluster: {gossip_seeds: [127.0.0.1:7946]}\ndevices: [{kind: cpu}]\n"
)

func TestSampleControllerHasTheDefaults(t *testing.T) {
	got, err := LoadController("controller.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultController()
	want.Name = "c1"
	want.DataDir = "/var/lib/orrery"
	want.Cluster.Controllers = []Address{"127.0.0.1:8011"}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("controller.yaml (-defaults +sample):\n%s", diff)
	}
}

func TestSampleWorkerHasTheDefaults(t *testing.T) {
	got, err := LoadWorker("worker.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultWorker()
	want.Name = "w1"
	want.ModelDir = "/var/lib/orrery/models"
	want.Cluster.GossipSeeds = []Address{"127.0.0.1:7946"}
	device := DefaultDevice()
	device.Kind = "cpu"
	want.Devices = []Device{device}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("worker.yaml (-defaults +sample):\n%s", diff)
	}
}

func TestSamplesListEveryKey(t *testing.T) {
	for file, doc := range map[string]document{"controller.yaml": new(Controller), "worker.yaml": new(Worker)} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := &decoder{doc: doc, file: file, where: places{}}
		d.decode(data, reflect.ValueOf(doc).Elem())
		want := keysIn(reflect.ValueOf(&Device{}).Elem(), "devices[0].", false)
		if doc.kind() == "controller" {
			want = nil
		}
		for _, k := range append(want, keysOf(doc)...) {
			if _, ok := d.where[k.path]; !ok {
				t.Errorf("%s lacks %s", file, k.path)
			}
		}
	}
}

// TestSamplesMarkLiveKeys compares the word "live" in the comments with what a reload applies.
func TestSamplesMarkLiveKeys(t *testing.T) {
	for file, doc := range map[string]document{"controller.yaml": new(Controller), "worker.yaml": new(Worker)} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := &decoder{doc: doc, file: file, where: places{}}
		d.decode(data, reflect.ValueOf(doc).Elem())
		lines := strings.Split(string(data), "\n")
		for _, k := range keysOf(doc) {
			if k.section {
				continue
			}
			line := lines[d.where[k.path].line-1]
			if marked := strings.Contains(line, "# live"); marked != k.live {
				t.Errorf("%s: %s: marked live %v, is live %v", file, k.path, marked, k.live)
			}
		}
	}
}

func TestDefaultsNeedOnlyTheRequiredKeys(t *testing.T) {
	c := DefaultController()
	w := DefaultWorker()
	for doc, want := range map[document][]string{
		&c: {"name", "data_dir", "cluster.controllers"},
		&w: {"name", "cluster.gossip_seeds", "model_dir", "devices"},
	} {
		problems, ok := errors.AsType[Problems](doc.Validate())
		if !ok {
			t.Fatalf("%s: want Problems", doc.kind())
		}
		var got []string
		for _, p := range problems {
			got = append(got, p.Path)
			if p.Source != "" || p.Line != 0 {
				t.Errorf("a configuration that was not loaded has a place: %+v", p)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: paths of problems (-want +got):\n%s", doc.kind(), diff)
		}
	}
}

func TestDefaultsAreNotShared(t *testing.T) {
	a, b := DefaultWorker(), DefaultWorker()
	a.Engines.GoMLX.BatchRows[0] = 99
	if b.Engines.GoMLX.BatchRows[0] == 99 {
		t.Error("two defaults share a list")
	}
}

func TestParseTakesEveryWayOfWriting(t *testing.T) {
	const file = "\ufeff" + `# A comment, then flow and block style, quotes, anchors, and a section without keys.
name: '007'
data_dir: >-
  relative/dir
listen: {inference: "0.0.0.0:8001", http: "[::1]:8000"}
expose:
  - inference
advertise:
  inference: models.example:8001
cluster:
  controllers: [&own 127.0.0.1:8011, 10.0.0.2:8011, 10.0.0.3:8011]
  gossip_seeds: [ *own ]
raft:
#  leader_lease: 1ms
startup:
  load_idle: 1m30s
inference:
  held_requests: "5"
  held_bytes: 1073741824
`
	for _, newline := range []string{"\n", "\r\n"} {
		got, err := ParseController("c.yaml", []byte(strings.ReplaceAll(file, "\n", newline)), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := DefaultController()
		want.Name, want.DataDir = "007", "relative/dir"
		want.Listen.Inference, want.Listen.HTTP = "0.0.0.0:8001", "[::1]:8000"
		want.Expose = []string{"inference"}
		want.Advertise.Inference = "models.example:8001"
		want.Cluster.Controllers = []Address{"127.0.0.1:8011", "10.0.0.2:8011", "10.0.0.3:8011"}
		want.Cluster.GossipSeeds = []Address{"127.0.0.1:8011"}
		want.Startup.LoadIdle = 90e9
		want.Inference.HeldRequests, want.Inference.HeldBytes = 5, GiB
		if diff := cmp.Diff(want, *got); diff != "" {
			t.Errorf("newline %q (-want +got):\n%s", newline, diff)
		}
		advertised := ControllerAdvertise{
			Inference: "models.example:8001", Control: "127.0.0.1:8010",
			Peer: "127.0.0.1:8011", Raft: "127.0.0.1:8012", Gossip: "127.0.0.1:7946",
		}
		if diff := cmp.Diff(advertised, got.Advertised()); diff != "" {
			t.Errorf("advertised (-want +got):\n%s", diff)
		}
	}
}

func TestParseWorkerDevices(t *testing.T) {
	const file = `name: w1
model_dir: /models
listen:
  session: 127.0.0.1:0
advertise:
  session: 127.0.0.1:9000
cluster:
  gossip_seeds: [127.0.0.1:7946]
devices:
  - &gpu
    kind: v100
    weights_cache: 8GiB
  - *gpu
  - kind: cpu
    engines: [emulated, gomlx]
engines:
  gomlx: {batch_rows: [1, 64]}
labels: {zone: a, rack: "7"}
`
	got, err := ParseWorker("w.yaml", []byte(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	gpu := Device{Kind: "v100", WeightsCache: 8 * GiB, PageSize: 16 * MiB, Engines: []string{"gomlx"}}
	cpu := Device{Kind: "cpu", WeightsCache: 512 * MiB, PageSize: 16 * MiB, Engines: []string{"emulated", "gomlx"}}
	if diff := cmp.Diff([]Device{gpu, gpu, cpu}, got.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"zone": "a", "rack": "7"}, got.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{1, 64}, got.Engines.GoMLX.BatchRows); diff != "" {
		t.Errorf("batch rows (-want +got):\n%s", diff)
	}
	if got := got.Advertised(); got != (WorkerAdvertise{Session: "127.0.0.1:9000", Gossip: "127.0.0.1:7947"}) {
		t.Errorf("advertised %+v", got)
	}
}

// TestAddressInAListInBraces: the YAML library takes such addresses apart at the colon.
func TestAddressInAListInBraces(t *testing.T) {
	got, err := ParseController("c.yaml", []byte("{name: c1, data_dir: /data, cluster: {controllers: [127.0.0.1:8011, h2:8011,  h3:1], gossip_seeds: [h4:7946]}}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := ControllerCluster{Bootstrap: true, Controllers: []Address{"127.0.0.1:8011", "h2:8011", "h3:1"}, GossipSeeds: []Address{"h4:7946"}}
	if diff := cmp.Diff(want, got.Cluster); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := ParseController("c.yaml", []byte("{cluster: {controllers: [a: b]}}"), nil); err == nil {
		t.Error("a key and its value are accepted as an address")
	}
}

func TestLoadReportsAnUnreadableFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := LoadController(missing, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("controller: %v, want one that says that %s doesn't exist", err, missing)
	}
	if _, err := LoadWorker(t.TempDir(), nil); err == nil {
		t.Error("a folder was read as a configuration")
	}
}

func TestProblemsNameTheFileAsItWasGiven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(leastController+"shutdown_timeout: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadController(path, nil)
	want := path + `:4:1: shutdown_timeout: "2" has no unit; write for example 2ms or 2s`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// FuzzParse looks for panics, and for errors that are not Problems.
func FuzzParse(f *testing.F) {
	for _, file := range append(badFiles(f), "controller.yaml", "worker.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 8192 {
			f.Add(data, "ORRERY_RAFT_LEADER_LEASE=1s")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, variable string) {
		for _, name := range []string{"controller", "worker"} {
			if err := parseFile(name, data, []string{variable}); err != nil {
				problems, ok := errors.AsType[Problems](err)
				if !ok || len(problems) == 0 {
					t.Errorf("%s: error is %T: %v", name, err, err)
				}
			}
		}
	})
}
