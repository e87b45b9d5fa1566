package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// terminal is one of a fixed size.
func terminal(width, height int) func(io.Writer) (int, int, bool) {
	return func(io.Writer) (int, int, bool) { return width, height, true }
}

// status is one of a phase; the countdown runs when it is not negative.
func status(phase logpb.Phase, countdown time.Duration, models ...*controlpb.ModelProgress) *controlpb.StartupStatus {
	return &controlpb.StartupStatus{
		Phase: phase, CountdownNs: int64(countdown), Workers: 3, LoadIdleNs: int64(10 * time.Second),
		Serving: phase == logpb.Phase_PHASE_SERVING, AdmitsLoads: phase != logpb.Phase_PHASE_SERVING, Models: models,
	}
}

// crowd are many models in all stages.
func crowd() (models []*controlpb.ModelProgress) {
	for i := range 1000 {
		m := &controlpb.ModelProgress{Name: fmt.Sprintf("model-%d", i), Version: "1", Copies: 3}
		switch {
		case i < 600:
			m.Loaded, m.ProfilesWanted, m.ProfilesDone = 3, 1, 1
		case i < 700:
			m.Loaded, m.ProfilesWanted = 3, 1
		case i < 703:
			m.Loaded, m.ProfilesWanted, m.Profiling = 3, 1, true
		case i < 710:
			m.Loaded, m.Failed, m.ProfilesWanted, m.ProfilesDone = 2, 1, 1, 1
		case i < 712:
			m.Loaded, m.Pending = 1, 2
		default:
			m.Pending = 3
		}
		models = append(models, m)
	}
	return models
}

func TestStartupScreenGolden(t *testing.T) {
	const waiting, loading, profiling, serving = logpb.Phase_PHASE_WAITING, logpb.Phase_PHASE_LOADING, logpb.Phase_PHASE_PROFILING, logpb.Phase_PHASE_SERVING
	model := &controlpb.ModelProgress{Name: "fashion-mlp", Version: "1", Copies: 3, Loaded: 3, ProfilesWanted: 2, ProfilesDone: 2}
	querying := status(logpb.Phase_PHASE_QUERYING, -1)
	querying.WaitingFor, querying.Workers = "a worker to join", 0
	first := status(waiting, -1)
	first.WaitingFor = "the first LoadModelFromDisk request"
	pending := status(loading, -1, &controlpb.ModelProgress{Name: "a-name-that-is-longer-than-others", Version: "20260101", Copies: 3, Loaded: 1, Failed: 1, Pending: 1},
		&controlpb.ModelProgress{Name: "nowhere", Version: "1"})
	pending.WaitingFor = "1 load that is pending"
	measuring := status(profiling, -1, model, &controlpb.ModelProgress{Name: "m", Version: "1", Copies: 1, Loaded: 1, ProfilesWanted: 3, ProfilesDone: 1, ProfilesFailed: 1, Profiling: true})
	measuring.WaitingFor = "3 of 5 measurements"
	admits := status(serving, -1, model)
	admits.AdmitsLoads = true
	again := status(waiting, -1, model)
	again.Serving, again.WaitingFor = true, "the first LoadModelFromDisk request"
	leaderless := status(loading, -1, model)
	leaderless.WaitingFor, leaderless.LoadIdleNs = "a leader", 0
	many := status(loading, -1, crowd()...)
	many.WaitingFor = "868 loads that are pending"
	var all strings.Builder
	for _, test := range []struct {
		title  string
		status *controlpb.StartupStatus
		look   look
	}{
		{"without workers", querying, look{asciiGlyphs(), 80, 20}},
		{"before the first load", first, look{asciiGlyphs(), 80, 20}},
		{"loads are pending", pending, look{blockGlyphs(), 80, 20}},
		{"the countdown runs", status(loading, 7*time.Second, model), look{blockGlyphs(), 80, 20}},
		{"the countdown has run", status(loading, 0, model), look{asciiGlyphs(), 80, 20}},
		{"profiling", measuring, look{blockGlyphs(), 80, 20}},
		{"serving", status(serving, -1, model), look{blockGlyphs(), 80, 20}},
		{"serving, and admitting", admits, look{blockGlyphs(), 80, 20}},
		{"reopened", again, look{blockGlyphs(), 80, 20}},
		{"without a leader", leaderless, look{blockGlyphs(), 80, 20}},
		{"a thousand models", many, look{blockGlyphs(), 100, 20}},
		{"a thousand models, a small terminal", many, look{asciiGlyphs(), 60, 3}},
	} {
		lines := startupScreen(test.status, test.look)
		fmt.Fprintf(&all, "# %s\n%s\n\n", test.title, strings.Join(lines, "\n"))
		if len(lines) > 10+test.look.models {
			t.Errorf("%s: %d lines", test.title, len(lines))
		}
		for _, line := range lines {
			if n := len([]rune(line)); n > 80 && test.look.width == 80 {
				t.Errorf("%s: %d wide: %s", test.title, n, line)
			}
		}
	}
	golden(t, "startup.txt", all.String())
}

// What a watch prints where there is no terminal stays short, however many models
// there are.
func TestProgressOfManyModels(t *testing.T) {
	models := crowd()
	line := progressLine(status(logpb.Phase_PHASE_LOADING, -1, models...))
	if want := "loading [1000 models, 70 % loaded, 7 failed, 85 % profiled]"; line != want {
		t.Errorf("%s, want %s", line, want)
	}
	var got strings.Builder
	p := newProgress(&got)
	for _, m := range models {
		m.Loaded, m.Failed, m.Pending = 0, 0, 3
	}
	for _, m := range models {
		m.Loaded, m.Pending = 3, 0
		_ = p.see(status(logpb.Phase_PHASE_LOADING, -1, models...))
	}
	if n := strings.Count(got.String(), "\n"); n != 101 {
		t.Errorf("%d lines for a thousand loads, want one for each hundredth", n)
	}
}

// phases are what a cluster goes through that comes to serve.
func phases() []*controlpb.StartupStatus {
	model := func(loaded, measured uint32) *controlpb.ModelProgress {
		return &controlpb.ModelProgress{Name: "m", Version: "1", Copies: 2, Pending: 2 - loaded, Loaded: loaded, ProfilesWanted: 1, ProfilesDone: measured}
	}
	return []*controlpb.StartupStatus{
		status(logpb.Phase_PHASE_LOADING, -1, model(1, 0)),
		status(logpb.Phase_PHASE_LOADING, 2*time.Second, model(2, 0)),
		status(logpb.Phase_PHASE_LOADING, time.Second, model(2, 0)),
		status(logpb.Phase_PHASE_SERVING, -1, model(2, 1)),
	}
}

func TestStartupWatchEndsWhenTheClusterServes(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.startup = phases()
	f.start(t, n)
	o := execute(t, n, environ, "startup", "status", "--watch")
	want := "   0.0s  loading [m 1/2 loaded]\n   0.0s  loading [m 0/1 profiled]\n   0.0s  serving [m 1/1 profiled]\n"
	if o.status != 0 || o.err != "" || o.out != want {
		t.Errorf("lines: %+v\nwant\n%s", o, want)
	}

	o = execute(t, n, environ, "startup", "status", "--watch", "-o", "json")
	lines := strings.Split(strings.TrimSpace(o.out), "\n")
	if o.status != 0 || len(lines) != len(f.startup) {
		t.Fatalf("JSON: %+v", o)
	}
	for i, line := range lines {
		got := &controlpb.StartupStatus{}
		if err := protojson.Unmarshal([]byte(line), got); err != nil || got.CountdownNs != f.startup[i].CountdownNs {
			t.Errorf("line %d: %v, %s", i, err, line)
		}
	}

	o = executeOn(t, n, terminal(80, 24), environ, "startup", "status", "--watch")
	first, rest, _ := strings.Cut(o.out, "\x1b[J")
	if o.status != 0 || strings.Contains(first, "\x1b[10A") || strings.Count(rest, "\x1b[10A\r") != len(f.startup)-1 {
		t.Errorf("on a terminal each but the first is drawn over the one before: %q", o.out)
	}
	for _, words := range []string{"profiling begins in 2s", "profiling begins in 1s", "> [serving]", "1/1 profiled"} {
		if !strings.Contains(o.out, words) {
			t.Errorf("%q is missing in %s", words, o.out)
		}
	}
	if dumb := executeOn(t, n, terminal(80, 24), append(environ, "TERM=dumb"), "startup", "status", "--watch"); dumb.out != want {
		t.Errorf("on a dumb terminal: %q", dumb.out)
	}
}

// A cluster that serves already is watched until it has gone through the phases.
func TestStartupWatchOfAClusterThatServes(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.now = status(logpb.Phase_PHASE_SERVING, -1)
	f.startup = append([]*controlpb.StartupStatus{f.now}, phases()...)
	f.start(t, n)
	if o := execute(t, n, environ, "startup", "status", "--watch"); o.status != 0 || strings.Count(o.out, "serving") != 2 {
		t.Errorf("it was reopened meanwhile: %+v", o)
	}
	f.startup = f.startup[:1]
	if o := execute(t, n, environ, "startup", "status", "--watch", "--timeout", "300ms"); o.status != 0 || o.err != "" || strings.Count(o.out, "serving") != 1 {
		t.Errorf("nothing was waited for: %+v", o)
	}
	f.startup = phases()[:1]
	f.startup[0].WaitingFor = "1 load that is pending"
	f.now = f.startup[0]
	o := execute(t, n, environ, "startup", "status", "--watch", "--timeout", "300ms")
	if o.status != statusFailed || !strings.HasSuffix(o.err, "still in phase loading after 300ms: it waits for 1 load that is pending\n") {
		t.Errorf("it does not come to serve: %+v", o)
	}
}

func TestStartupReopen(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.start(t, n)
	f.refusal = errs.New(errs.Precondition, "the cluster does not serve yet, it is in phase loading: loads are accepted anyway")
	for _, line := range []string{"startup reopen", "startup close"} {
		o := execute(t, n, environ, strings.Fields(line)...)
		if o.status != statusFailed || o.out != "" || o.err != "orrery: the cluster does not serve yet, it is in phase loading: loads are accepted anyway\n" {
			t.Errorf("%s: %+v", line, o)
		}
	}
	if diff := cmp.Diff([]bool{false, true}, f.reopens); diff != "" {
		t.Errorf("asked of the cluster: %s", diff)
	}
	if got := reopenText(&controlpb.StartupStatus{AdmitsLoads: true}, true); !strings.Contains(got, "late_loads=admit") {
		t.Errorf("closed, and loads are admitted all the same: %s", got)
	}
	if got := reopenText(&controlpb.StartupStatus{}, false); !strings.Contains(got, "for a while (startup.load_idle)") {
		t.Errorf("whoever answers knows no time: %s", got)
	}
}

// That no controller answers any more is told once.
func TestAWatchThatNobodyAnswers(t *testing.T) {
	var out, err strings.Builder
	q := &query{app: &app{out: &out, err: &err}}
	v := q.startupViewer(0)
	_ = v.see(status(logpb.Phase_PHASE_LOADING, -1))
	for range 3 {
		v.answered(errs.New(errs.Unreachable, "nobody is there"))
	}
	if err.String() != "orrery: nobody is there; the watch goes on\n" {
		t.Errorf("lines: %q", err.String())
	}
	q.size = terminal(80, 24)
	v = q.startupViewer(0)
	_ = v.see(status(logpb.Phase_PHASE_LOADING, -1))
	v.answered(errs.New(errs.Unreachable, "nobody is there"))
	lost := out.Len()
	v.answered(nil)
	if !strings.Contains(out.String()[:lost], "no controller answers") || strings.Contains(out.String()[lost:], "no controller") {
		t.Errorf("terminal: %q", out.String())
	}
}
