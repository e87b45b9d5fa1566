package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// startupModels are emulated, slow to load, and measured one after the other.
// Two have one source, and so one profile; one does not exist.
var startupModels = []*logpb.LoadModel{
	{Name: "alpha", Source: "table.csv#alpha"},
	{Name: "twin", Source: "table.csv#alpha"},
	{Name: "bad", Source: "table.csv#nosuch"},
	{Name: "beta", Source: "table.csv#beta", SloNs: int64(time.Second)},
	{Name: "gamma", Source: "table.csv#gamma", MaxRows: 1},
	{Name: "delta", Source: "table.csv#delta", Copies: 1},
}

// startupCopies are how many copies two workers load of them, startupKeys how
// many profiles they have on one kind of device.
const (
	startupCopies = 4*2 + 1
	startupKeys   = 4
)

const startupTable = `model,weights_MB,weights_load_ms,b1_ms,b2_ms,disk_load_ms
alpha,10,1,5,8,150
beta,20,2,6,9,300
gamma,30,3,7,10,500
delta,10,1,4,7,100
`

// startupRun is one startup of a cluster of processes, with its clients.
type startupRun struct {
	*cluster
	t      *testing.T
	leader *devcluster.Process
	// others are the controllers that live on, through which the clients come.
	others []*devcluster.Process
	calls  sync.WaitGroup
}

// newStartupRun starts a cluster that waits for its first load.
func newStartupRun(t *testing.T, o devcluster.Options) *startupRun {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "table.csv"), []byte(startupTable), 0o644); err != nil {
		t.Fatal(err)
	}
	o.Engines, o.ModelDir = []string{"emulated"}, dir
	r := &startupRun{cluster: startCluster(t, o), t: t}
	r.isLed(awaitLeader(t, r.Controllers...))
	return r
}

// isLed takes note of who leads.
func (r *startupRun) isLed(by *devcluster.Process) { r.leader, r.others = by, r.without(by) }

// ask has the clients ask for all models, and send requests for one of them that
// are to be buffered. All have to be answered.
func (r *startupRun) ask() {
	for i, model := range startupModels {
		cl, ctx := clientOf(r.t, r.others[i%2]), within(r.t, serveTimeout)
		r.calls.Go(func() {
			answer, err := cl.LoadModel(ctx, model)
			if err != nil || len(answer) != 1 || len(answer[0].Copies) == 0 {
				r.t.Errorf("load %s: %v, %v", model.Name, answer, err)
				return
			}
			want := logpb.HoldingStatus_HOLDING_STATUS_LOADED
			if model.Name == "bad" {
				want = logpb.HoldingStatus_HOLDING_STATUS_FAILED
			}
			for _, h := range answer[0].Copies {
				if h.Status != want {
					r.t.Errorf("load %s: at %s it is %v (%s)", model.Name, h.Worker, h.Status, h.Error)
				}
			}
		})
	}
	for i := range 6 {
		cl, ctx := clientOf(r.t, r.others[i%2]), within(r.t, serveTimeout)
		r.calls.Go(func() {
			if _, _, err := cl.Infer(ctx, emulatedRequest("alpha")); err != nil {
				r.t.Errorf("buffered request %d: %v", i, err)
			}
		})
	}
}

// emulatedRequest is a request for an emulated model.
func emulatedRequest(model string) *inferencepb.ModelInferRequest {
	return &inferencepb.ModelInferRequest{
		ModelName:        model,
		Inputs:           []*inferencepb.ModelInferRequest_InferInputTensor{{Name: "input", Datatype: "UINT8", Shape: []int64{1, 1024}}},
		RawInputContents: [][]byte{make([]byte, 1024)},
	}
}

// stale is what a controller has of the models, without asking the leader.
func (r *startupRun) stale(p *devcluster.Process) []*controlpb.ModelStatus {
	r.t.Helper()
	answer, err := clientOf(r.t, p).ListModels(within(r.t, callTimeout), &controlpb.ListModelsRequest{Stale: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.Models
}

// until waits for something that may come soon, and be over soon.
func (r *startupRun) until(what string, check func() bool) {
	r.t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(recoverTimeout); !check(); <-ticker.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within %v; the end of the leader's log:\n%s", what, recoverTimeout, r.leader.LogTail(10))
		}
	}
}

// loggedLines are how many lines of a process's log contain all of some words.
func (r *startupRun) loggedLines(p *devcluster.Process, words ...string) (n int) {
	r.t.Helper()
	log, err := os.ReadFile(p.Log)
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	return n
}

// saw says whether a controller, as the leader, has seen a phase begin.
func (r *startupRun) saw(p *devcluster.Process, phase string) bool {
	r.t.Helper()
	return r.loggedLines(p, "coordinator: startup: ", "phase="+phase) > 0
}

// loads is how many copies have been read from disk.
func (r *startupRun) loads() (n int) {
	for _, w := range r.Workers {
		if w.PID() != 0 {
			n += r.loggedLines(w, "model loaded: ")
		}
	}
	return n
}

// measured are the digests with a profile that some of the controllers know of.
func (r *startupRun) measured(by ...*devcluster.Process) map[string]bool {
	r.t.Helper()
	digests := map[string]bool{}
	for _, p := range by {
		for _, m := range r.stale(p) {
			if len(m.Profiles) > 0 {
				digests[m.Model.Info.GetDigest()] = true
			}
		}
	}
	return digests
}

// death is that of the leader, and what had been done by then.
type death struct {
	loads int
	// measured are the digests whose profiles the others know of.
	measured map[string]bool
	// since is what each of the others has logged since then.
	since []func() string
}

// killLeader kills the leader.
func (r *startupRun) killLeader() *death {
	r.t.Helper()
	var d death
	for _, p := range r.others {
		d.since = append(d.since, logFrom(r.t, p))
	}
	if err := r.leader.Kill(); err != nil {
		r.t.Fatal(err)
	}
	if exitedBy(r.leader.Wait()) != syscall.SIGKILL {
		r.t.Fatalf("%s has ended by %v", r.leader.Name, r.leader.Wait())
	}
	if d.loads = r.loads(); d.loads > 0 {
		d.measured = r.measured(r.others...)
	}
	r.t.Logf("SIGKILL of %s with %d copies loaded and %d models measured", r.leader.Name, d.loads, len(d.measured))
	return &d
}

// expect lets the startup come to its end: all clients are answered, whoever was
// killed comes back, and what has come out is what is wanted.
func (r *startupRun) expect(want []string, d *death) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.finish()); diff != "" {
		r.t.Errorf("the end is not that of an undisturbed startup (-want +got):\n%s", diff)
	}
	r.nothingTwice(d)
}

func (r *startupRun) finish() []string {
	r.t.Helper()
	r.calls.Wait()
	for _, p := range r.Controllers {
		select {
		case <-p.Exited():
			if err := p.Start(); err != nil {
				r.t.Fatal(err)
			}
		default:
		}
	}
	r.awaitWhole(r.t)
	r.awaitServing(r.t)
	r.awaitHealth(r.t)
	return r.endState()
}

// endState is what a startup has come to, but for times, ids and incarnations.
func (r *startupRun) endState() (state []string) {
	r.t.Helper()
	cl := clientOf(r.t, r.others...)
	models, err := cl.ListModels(within(r.t, callTimeout), &controlpb.ListModelsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	workers, err := cl.ListWorkers(within(r.t, callTimeout), &controlpb.ListWorkersRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	ids := map[uint64]bool{}
	for _, m := range models.Models {
		ids[m.Model.Id] = true
		state = append(state, r.stateOf(m)...)
	}
	if len(ids) != len(models.Models) {
		r.t.Errorf("%d models have %d ids", len(models.Models), len(ids))
	}
	for _, w := range workers.Workers {
		state = append(state, fmt.Sprintf("worker %s: %v, %s", w.Worker.Name, w.Worker.Status, w.State))
	}
	slices.Sort(state)
	return state
}

// stateOf is a line for the model, and one for each of its copies and profiles.
func (r *startupRun) stateOf(m *controlpb.ModelStatus) []string {
	r.t.Helper()
	state := []string{fmt.Sprintf("model %s version %s of %s by %s, digest %.8s, slo %d, rows %d, copies %d: %s", m.Model.Name, m.Model.Version,
		m.Model.Source, m.Model.Engine, m.Model.Info.GetDigest(), m.Model.SloNs, m.Model.MaxRows, m.Model.Copies, m.Code)}
	for _, h := range m.Copies {
		at := h.Worker
		if m.Model.Copies > 0 {
			at = "any" // whom the leader chooses is its business
		}
		state = append(state, fmt.Sprintf("copy of %s at %s: %v %s", m.Model.Name, at, h.Status, h.Error))
	}
	for _, p := range m.Profiles {
		var rows []uint32
		for _, e := range p.Execution {
			rows = append(rows, e.Rows)
			if e.P50Ns <= 0 || p.WeightsLoadP50Ns <= 0 {
				r.t.Errorf("a profile of %s has no times: %v", m.Model.Name, p)
			}
		}
		state = append(state, fmt.Sprintf("profile of %s on %s by %s %s: rows %v", m.Model.Name, p.Key.DeviceKind, p.Key.Engine, p.Key.EngineVersion, rows))
	}
	return state
}

// nothingTwice expects that no worker has read a model from its disk twice, and
// that nothing was measured again that had been when the leader died.
func (r *startupRun) nothingTwice(d *death) {
	r.t.Helper()
	for _, m := range r.stale(r.others[0]) {
		for _, h := range m.Copies {
			want := 0
			if h.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
				want = 1
			}
			if loads := r.loggedLines(r.Worker(h.Worker), fmt.Sprintf("model loaded: model=%d ", m.Model.Id)); loads != want {
				r.t.Errorf("%s has read %s %d times, and it is %v", h.Worker, m.Model.Name, loads, h.Status)
			}
		}
		measurement := fmt.Sprintf(" model=%s device_kind=", m.Model.Name)
		for i, since := range d.since {
			if log := since(); d.measured[m.Model.Info.GetDigest()] && strings.Contains(log, measurement) {
				r.t.Errorf("%s had %s measured again:\n%s", r.others[i].Name, m.Model.Name, log)
			}
		}
	}
	begun := 0
	for _, p := range r.Controllers {
		begun += r.loggedLines(p, ": profiling: ", " model=", " device_kind=")
	}
	if begun < startupKeys {
		r.t.Errorf("of %d measurements %d were logged: the test does not see what it looks for", startupKeys, begun)
	}
}
